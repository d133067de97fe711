"""Modules with compiled code, which no archive can hold: what travels in their place says where they lie.

A *pointer* is a source of one line, in the archive of the user's own modules, under the module's name. It is
imported like any other, and becomes the module itself: the one that is installed where it runs, else the one
at the place where the user has it, if that is there, too (on his own machine, on a shared file system).

Compiled code can be loaded once per process only. So such a module stays loaded when a process turns to other
modules of the user's; what is changed in it is seen by processes that are started later.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec

#: What a pointer's member of an archive has as its comment.
MARK = b"pointer"


def pointer_to(home: str) -> str:
    """The source that stands for the module or package at ``home``."""
    return f"from graphvine.envs import pointers\npointers.follow(__name__, {home!r}, __file__)\n"


def follow(name: str, home: str, pointer: str) -> None:
    """Have the module ``name`` be the one that the file ``pointer`` leads to. Raises ModuleNotFoundError, and
    what the module raises."""
    spec = _installed(name, os.path.dirname(pointer)) or _at(name, home)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(
            f"{name} holds compiled code, which is not sent along, and there is no {home} here: "
            "install it where the workers run",
            name=name,
        )
    # The import that runs the pointer returns what it finds here after that.
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _installed(name: str, but_not: str) -> ModuleSpec | None:
    """The module where it is installed, in any place but one."""
    before = sys.path[:]
    sys.path[:] = [place for place in before if place != but_not]
    try:
        found = (finder.find_spec(name, None) for finder in sys.meta_path)
        return next((spec for spec in found if spec is not None and spec.loader is not None), None)
    finally:
        sys.path[:] = before


def _at(name: str, home: str) -> ModuleSpec | None:
    if not os.path.isdir(home):
        return importlib.util.spec_from_file_location(name, home) if os.path.exists(home) else None
    return importlib.util.spec_from_file_location(
        name, os.path.join(home, "__init__.py"), submodule_search_locations=[home]
    )
