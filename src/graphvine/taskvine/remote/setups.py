"""The set-up of a library with what is to be there before it: input files, a command that was run.

It runs in a directory of its own. The files stand there, and links to them in the directories of its calls:
none is to be written to.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphvine.taskvine.remote import spawning
from graphvine.taskvine.remote.contents import place_named, resolved
from graphvine.worker import library, scratch

#: The library's files: paths by the names that they have in a directory.
_files: dict[str, str] = {}


def set_up(
    inputs: Sequence[Any],
    names: Sequence[str],
    line: str,
    function: Callable[..., Any] | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call a set-up function after a command line. Raises what it raises, FileNotFoundError for an input that
    cannot be had, CalledProcessError."""
    library.lend_hoisted(function)
    with spawning.coming_back():
        home = scratch.lasting()
        _place_all(dict(zip(names, inputs, strict=True)), home)
        os.chdir(home)
        if line:
            subprocess.run(line, shell=True, check=True)
        return function(*args, **kwargs) if function is not None else None


def _place_all(inputs: Mapping[str, Any], home: str) -> None:
    for name, value in inputs.items():
        _files[name] = place_named(resolved(value), name, home)


def link_files() -> None:
    """Have the library's files in the working directory, where nothing else has such a name."""
    for name, path in _files.items():
        if not os.path.lexists(name):
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            os.symlink(path, name)
