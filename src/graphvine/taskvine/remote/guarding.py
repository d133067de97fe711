"""Inputs that are files of the store, and tasks that write to them all the same.

What a task finds in its directory are links to what other tasks read, too. A task that writes to them is not
stopped; but what it wrote to is no file of anybody's any more: it is dropped from the store, and the worker,
which finds that it is gone, has it made or sent again.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from graphvine.protocol import tree_files
from graphvine.protocol.trees import Tree

log = logging.getLogger("graphvine.command")

#: Of one file: its path below the input, its size, and when it was last written to.
_Seen = tuple[str, int, int]


class Stamp(msgspec.Struct, frozen=True):
    """What an input was like before. ``name``: in the sandbox."""

    name: str
    seen: list[_Seen]


def stamps(linked: Iterable[tuple[Any, str]]) -> dict[str, Stamp]:
    """What tells whether a task writes to its inputs, given each with its name in the sandbox; by the paths
    of those that are files or directories of the store."""
    return {value.path: Stamp(name, _look(value.path)) for value, name in linked if isinstance(value, Tree)}


def drop_changed(before: dict[str, Stamp], line: str = "") -> None:
    """Drop the inputs that were written to."""
    for path, stamp in before.items():
        try:
            if _look(path) == stamp.seen:
                continue
        except FileNotFoundError:
            if not os.path.lexists(path):
                continue  # another task did it before
        log.warning(
            "%s wrote to its input %s, which is made or sent again for others: what is declared as an "
            "output of that name, too, is a copy",
            repr(line) if line else "a task",
            stamp.name,
        )
        tree_files.remove(os.path.dirname(path))


def _look(path: str) -> list[_Seen]:
    """Raises FileNotFoundError."""
    status = os.stat(path)
    seen = [("", status.st_size, status.st_mtime_ns)]
    if stat.S_ISDIR(status.st_mode):
        seen += sorted(_below(path, ""))
    return seen


def _below(directory: str, prefix: str) -> Iterator[_Seen]:
    with os.scandir(directory) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            name = f"{prefix}/{entry.name}"
            yield name, status.st_size, status.st_mtime_ns
            if stat.S_ISDIR(status.st_mode):
                yield from _below(entry.path, name)
