"""Removing directories without anybody waiting for it: a large one takes a while."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from queue import SimpleQueue

from graphvine.protocol import tree_files


class Remover:
    """A thread, begun when first needed. What is left at ``close`` goes with the directory it lies in."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[str | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._numbers = itertools.count(1)
        self._closing = False

    def remove(self, path: str) -> None:
        """A file is gone at once; a directory has lost its name at once, and is gone soon."""
        try:
            os.unlink(path)
        except IsADirectoryError:
            self._remove_directory(path)
        except FileNotFoundError:
            return

    def _remove_directory(self, path: str) -> None:
        parent, name = os.path.split(path)
        aside = f"{parent}/.gone-{os.getpid()}-{next(self._numbers)}-{name}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, aside)
            self._start(aside)

    def _start(self, path: str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="graphvine-remove", daemon=True)
            self._thread.start()
        self._orders.put(path)

    def _run(self) -> None:
        while (path := self._orders.get()) is not None and not self._closing:
            tree_files.remove(path)

    def close(self) -> None:
        """Does not wait for more than the directory that is being removed."""
        self._closing = True
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
