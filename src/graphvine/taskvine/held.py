"""Declared files that the tasks of a graph find in their working directories."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from graphvine.taskvine.desk import Desk
from graphvine.taskvine.files import File
from graphvine.taskvine.plans import MissingInputError
from graphvine.taskvine.remote.around import run_with_files


class HeldFile:
    """One of them, as a result that a plan can build on."""

    def __init__(self, file: int, owner: HeldFiles) -> None:
        self.file = file
        self._owner = owner

    def check(self) -> None:
        """A task that needs it learns what became of it."""


class HeldFiles:
    """Files that stay in the engine as long as this object."""

    def __init__(self, desk: Desk, files: Sequence[File]) -> None:
        """Raises FileNotFoundError for one that is not there, ManagerClosedError."""
        try:
            self._numbers = desk.hold(files)
        except MissingInputError as error:
            raise FileNotFoundError(str(error)) from None
        self._finalizer = weakref.finalize(self, desk.let_go, list(files))
        self._finalizer.atexit = False

    #: Runs an entry with them (see ``dask_adapter.reshape.with_files``).
    run_with = staticmethod(run_with_files)

    def results(self) -> list[Any]:
        """What a plan takes as results of earlier ones. They hold the files, too."""
        return [HeldFile(number, self) for number in self._numbers]
