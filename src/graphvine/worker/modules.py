"""The user's own modules in an executor: each context has its archive on ``sys.path``, and sees no other's.

The archive is unpacked beside itself, once for all executors of the worker: what lies beside a module
(tables, corrections) is mostly found by its ``__file__``.

An executor may serve tasks of several contexts, and two contexts may hold different modules of one name. So
one context is active at a time: switching takes the modules of the old archive out of ``sys.modules`` and
puts back those of the new one.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import sys
from types import ModuleType

from graphvine.envs.pointers import MARK
from graphvine.worker.packets import ContextRef


class Contexts:
    """Contexts this executor was told of. Number 0 is the plain context, always known."""

    def __init__(self) -> None:
        self.active = 0
        self._shown = ""
        """The archive whose modules are seen; several contexts may have the same one."""
        self._archives: dict[int, str] = {0: ""}
        self._names: dict[str, frozenset[str]] = {}
        """Top-level names, where it is unpacked, and modules that were taken out, of each archive."""
        self._places: dict[str, str] = {}
        self._parked: dict[str, dict[str, ModuleType]] = {}
        self._imports: dict[int, list[str]] = {}

    def tell(self, ref: ContextRef) -> None:
        """Learn of a context; nothing is loaded yet."""
        if ref.context not in self._archives:
            self._archives[ref.context] = ref.path
            self._imports[ref.context] = ref.imports

    def activate(self, context: int) -> None:
        """Make ``context`` the one whose modules are seen. Raises KeyError, OSError, BadZipFile."""
        if context == self.active:
            return
        archive = self._archives[context]
        if archive != self._shown:
            self._show(archive)
        self.active = context
        for name in self._imports.pop(context, ()):
            _import_if_possible(name)

    def _show(self, archive: str) -> None:
        if archive and archive not in self._names:
            self._names[archive] = _top_names(archive)
            self._places[archive] = _unpacked(archive)
        self._leave()
        if archive:
            _take_out(self._names[archive])
            sys.path.insert(0, self._places[archive])
            sys.modules.update(self._parked.pop(archive, {}))
        self._shown = archive

    def _leave(self) -> None:
        archive = self._shown
        if archive:
            self._parked[archive] = _take_out(self._names[archive])
            if self._places[archive] in sys.path:
                sys.path.remove(self._places[archive])
        self.active, self._shown = 0, ""


def _top_names(archive: str) -> frozenset[str]:
    """Names of the top-level modules and packages in an archive, but for those with compiled code."""
    import zipfile  # 10 ms, which an agent never needs; the zygote has it

    with zipfile.ZipFile(archive) as content:
        members = (member for member in content.infolist() if member.comment != MARK)
        tops = (member.filename.split("/", 1)[0] for member in members)
        return frozenset(top.removesuffix(".py") for top in tops)


def _unpacked(archive: str) -> str:
    """Where the content of an archive lies: in a directory beside it, or, without room for one, in it."""
    import zipfile

    place = archive.removesuffix(".zip") + ".d"
    unfinished = f"{place}-{os.getpid()}"
    with open(archive, "rb") as file:
        # Executors come at the same time; one that is killed here leaves what nobody takes for whole.
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if not os.path.isdir(place):
                with zipfile.ZipFile(file) as content:
                    content.extractall(unfinished)
                os.rename(unfinished, place)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            return archive
    return place


def _take_out(names: frozenset[str]) -> dict[str, ModuleType]:
    """Remove modules of these top-level names from ``sys.modules``."""
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}


def _import_if_possible(name: str) -> None:
    # Only a head start: the task that needs the module meets the error again, where it can be reported.
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 -- modules raise what they like, SystemExit included
        print(f"graphvine: {name} could not be imported ahead: {error!r}", file=sys.stderr)
