"""The user's own modules in an executor: each context has its archive on ``sys.path``, and sees no other's.

An executor may serve tasks of several contexts, and two contexts may hold different modules of one name. So
one context is active at a time: switching takes the modules of the old archive out of ``sys.modules`` and
puts back those of the new one.
"""

from __future__ import annotations

import importlib
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
        """Top-level names, and modules that were taken out, of each archive."""
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
        self._leave()
        if archive:
            _take_out(self._names[archive])
            sys.path.insert(0, archive)
            sys.modules.update(self._parked.pop(archive, {}))
        self._shown = archive

    def _leave(self) -> None:
        archive = self._shown
        if archive:
            self._parked[archive] = _take_out(self._names[archive])
            if archive in sys.path:
                sys.path.remove(archive)
        self.active, self._shown = 0, ""


def _top_names(archive: str) -> frozenset[str]:
    """Names of the top-level modules and packages in an archive, but for those with compiled code."""
    import zipfile  # 10 ms, which an agent never needs; the zygote has it

    with zipfile.ZipFile(archive) as content:
        members = (member for member in content.infolist() if member.comment != MARK)
        tops = (member.filename.split("/", 1)[0] for member in members)
        return frozenset(top.removesuffix(".py") for top in tops)


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
