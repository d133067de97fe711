"""The outputs of a command, taken out of its sandbox on their way into the store, and what it printed.

They are moved to a directory of the task's own. One output is the result itself; several are a ``Bundle``
(all small) or a directory, of which ``pick`` takes one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from graphvine.protocol.tree_files import scan
from graphvine.protocol.trees import BadTreeError, NewTree, Tree
from graphvine.taskvine.remote.contents import (
    MARK,
    Absent,
    Made,
    SmallFile,
    copy_tree,
    is_small,
    last_line,
    link_tree,
    make,
    place,
    reason_absent,
)
from graphvine.taskvine.remote.description import Command, Status
from graphvine.taskvine.remote.home import OUTPUT, Home
from graphvine.worker import scratch

#: Standard output up to this travels in the status; what is longer is kept with the outputs.
SHORT_OUTPUT_BYTES = 32 * 2**10
#: ... and is cut off here.
OUTPUT_BYTES = 10**9
_CUT = b"\n[standard output is cut here: it had %d bytes]\n"
_MAX_NAMED = 20


class Bundle(msgspec.Struct, frozen=True):
    """Several outputs, each small or absent, by position."""

    members: list[SmallFile | Absent]


def pick(inputs: Sequence[Any], position: int) -> Made:
    """One output of a command that has several."""
    (whole,) = inputs
    reason = reason_absent(whole)
    if reason:
        return Absent(reason)
    if isinstance(whole, Bundle):
        return whole.members[position]
    assert isinstance(whole, Tree), "several outputs are a bundle or a directory"
    source = os.path.join(whole.path, str(position))
    if not os.path.lexists(source):
        return Absent("the command did not make it")
    target = os.path.join(scratch.directory(), "picked")
    link_tree(source, target)
    return make(target)


def output_of(inputs: Sequence[Any]) -> bytes:
    """The standard output that was kept with a command's outputs. Raises OSError."""
    (whole,) = inputs
    assert isinstance(whole, Tree), "it was kept"
    with open(os.path.join(whole.path, OUTPUT), "rb") as file:
        return file.read()


def watched(sandbox: str, command: Command) -> list[tuple[str, int]]:
    """The outputs that are sent as they grow, by path and position."""
    return [
        (os.path.join(sandbox, outlet.name), position)
        for position, outlet in enumerate(command.outputs)
        if outlet.watch
    ]


# -- what it printed -------------------------------------------------------------------------------------


def cut_output(path: str, size: int) -> None:
    """Have standard output end where it is too long."""
    if size > OUTPUT_BYTES:
        os.truncate(path, OUTPUT_BYTES)
        with open(path, "ab") as file:
            file.write(_CUT % size)


def take_printed(path: str, output: int, status: Status) -> None:
    found = os.fstat(output)
    if not found.st_nlink:
        status.word, status.reason = "stdout missing", "the command removed the file that takes its output"
    elif found.st_size > SHORT_OUTPUT_BYTES:
        status.kept_bytes = found.st_size
        cut_output(path, found.st_size)
    elif found.st_size:
        status.output = os.pread(output, SHORT_OUTPUT_BYTES, 0)


# -- what it made ----------------------------------------------------------------------------------------


def collect(home: Home, command: Command, status: Status) -> Any:
    collected = Collected()
    made = take_all(home.sandbox, collected, command, status)
    if status.missing and status.word == "success":
        status.word = "output missing"
        status.reason = f"not made: {', '.join(status.missing)}" + _said(status)
    del status.missing[_MAX_NAMED:]
    if status.kept_bytes:
        home.give_up_output()
        os.rename(home.output_path, os.path.join(collected.path, OUTPUT))
        mark(collected.path)
        return collected.whole(made)
    if len(made) < 2:
        return made[0] if made else None
    members = [one for one in made if isinstance(one, (SmallFile, Absent))]
    return Bundle(members) if len(members) == len(made) else collected.whole(made)


def mark(directory: str) -> None:
    """Who takes the directory as an input takes what lies there as 0, and not all of it."""
    place(SmallFile(b""), os.path.join(directory, MARK))


class Collected:
    """The directory for outputs that are on their way into the store, made when one needs it."""

    def __init__(self, first: int = 0) -> None:
        """``first``: the position of the first output of the sandbox."""
        self._path = ""
        self.first = first

    @property
    def path(self) -> str:
        self._path = self._path or scratch.directory()
        return self._path

    def target(self, position: int) -> str:
        return os.path.join(self.path, str(position))

    def whole(self, made: Sequence[Made]) -> NewTree:
        """All outputs together, each by its position."""
        for position, one in enumerate(made):
            if isinstance(one, SmallFile):
                place(one, self.target(position))
        return NewTree(self.path)


def take_all(sandbox: str, collected: Collected, command: Command, status: Status) -> list[Made]:
    """The outputs that are wanted, taken out of the sandbox. Notes in ``status`` what is missing."""
    succeeded = status.word == "success" and status.exit_code == 0
    names = [outlet.name for outlet in command.outputs]
    made: list[Made] = []
    for position, outlet in enumerate(command.outputs):
        if outlet.when == ("failure" if succeeded else "success"):
            made.append(Absent(f"it is wanted after {outlet.when} only"))
        else:
            if outlet.mode:
                _set_mode(os.path.join(sandbox, outlet.name), outlet.mode)
            made.append(_take(sandbox, names, position, collected, status))
    return made


def _unfit(path: str, sandbox: str) -> str:
    """Why a directory can be no output, in the names that the command used; "" when it can."""
    if os.path.isdir(path):
        try:
            scan(path)
        except BadTreeError as error:
            return str(error).replace(f"{os.path.realpath(sandbox)}/", "")
    return ""


def _set_mode(path: str, mode: int) -> None:
    # Not of what a link leads to, which may be anything.
    if os.path.isfile(path) and not os.path.islink(path):
        os.chmod(path, mode)


def _said(status: Status) -> str:
    last = last_line(status.output.decode(errors="replace"))
    code = f"; the command ended with exit code {status.exit_code}" if status.exit_code else ""
    return code + (f" and said: {last}" if last else "")


def _take(sandbox: str, names: Sequence[str], position: int, collected: Collected, status: Status) -> Made:
    name = names[position]
    path = os.path.join(sandbox, name)
    # Another one may lie in it, or be the same. And what a link leads to may be an input, or lie anywhere.
    others = names[position + 1 :]
    stays = any(other == name or other.startswith(f"{name}/") for other in others) or os.path.islink(path)
    path = os.path.realpath(path)
    if not os.path.isfile(path) and not os.path.isdir(path):
        status.missing.append(name)
        why = f"; {status.reason}" if status.reason else _said(status)
        return Absent(f"the command did not make {name!r} (or no file and no directory){why}")
    if is_small(path):
        return make(path)
    unfit = _unfit(path, sandbox)
    if unfit:
        status.missing.append(f"{name} ({unfit})")
        return Absent(unfit)
    target = collected.target(collected.first + position)
    if stays:
        copy_tree(path, target)
    else:
        os.rename(path, target)
    return make(target)
