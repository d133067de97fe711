"""While a manager lives, dask's shuffles are made of tasks.

Without a distributed client dask shuffles through a directory of the local disk, which other nodes do not
see, and it decides so while the graph is built, before any scheduler is asked. A choice that the user has
made is left alone, whether it came before or after.

dask is not imported for this: where it is not there yet, the setting is made when it comes.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_KEY = "dataframe.shuffle.method"
_CONFIG = "dask.config"
#: Reentrant: the garbage collector may end one manager while another one begins.
_lock = threading.RLock()
_holders = 0
_chosen = False


def hold_task_shuffle() -> None:
    """From now on, until as many ``release_task_shuffle``: task-based, unless the user chose."""
    global _holders
    with _lock:
        _holders += 1
        if _CONFIG not in sys.modules and _awaiting not in sys.meta_path:
            sys.meta_path.insert(0, _awaiting)
    if _CONFIG in sys.modules:
        # Waits for a thread that is importing it just now; so not under the lock.
        _choose(importlib.import_module(_CONFIG))


def release_task_shuffle() -> None:
    """One holder less; after the last one, what was before."""
    global _holders, _chosen
    with _lock:
        _holders -= 1
        if _holders:
            return
        _await_no_more()
        if _chosen:
            _chosen = False
            config = sys.modules[_CONFIG]
            if config.get(_KEY, None) == "tasks":
                config.set({_KEY: None})


def _choose(config: ModuleType) -> None:
    global _chosen
    with _lock:
        if _holders and not _chosen and config.get(_KEY, None) is None:
            config.set({_KEY: "tasks"})
            _chosen = True


def _await_no_more() -> None:
    with _lock:
        if _awaiting in sys.meta_path:
            sys.meta_path.remove(_awaiting)


class _Awaiting(MetaPathFinder):
    """Finds ``dask.config`` as everybody else does, and is told when it has been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _CONFIG:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader = _Telling(spec.loader)
                return spec
        return None


class _Telling(Loader):
    """A module's own loader, and a word when it is done."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module looks as if nobody had come between: tools ask its loader for its source.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _await_no_more()
        _choose(module)


_awaiting = _Awaiting()
