"""What the value of a file is, where a task takes it as an input or makes it.

A file or directory is a ``Tree`` (``protocol.trees``) in the store of a worker. Three things stand in for
one: a small file travels as its bytes, inside the messages; what could not be made is ``Absent``; and a
task that failed for good left ``Failed`` (``protocol.outcomes``).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from typing import Any

import msgspec

from graphvine.envs.cache import is_full
from graphvine.protocol.outcomes import Failed
from graphvine.protocol.trees import NewTree, Tree
from graphvine.worker import scratch

#: A file of at most so many bytes is carried as its bytes.
SMALL_BYTES = 4096


#: Whose text says all.
_OUR_ERROR = re.compile(r"^graphvine(\.\w+)+: ")


class SmallFile(msgspec.Struct, frozen=True):
    """A whole regular file. ``mode``: its permission bits."""

    data: bytes
    mode: int = 0o644


class Absent(msgspec.Struct, frozen=True):
    """There is no such file, and why. ``no_room``: because the disk of the worker was full."""

    reason: str
    no_room: bool = False


#: In a directory: the output of a command, as ``0``, which is kept together with something else.
MARK = ".graphvine-outputs"

#: What a task may return for a file, and what is had of one.
Made = NewTree | SmallFile | Absent


def resolved(value: Any) -> Any:
    """A file itself, where its producer had to keep it together with something else."""
    if isinstance(value, Tree) and os.path.lexists(os.path.join(value.path, MARK)):
        path = os.path.join(value.path, "0")
        return Tree(path, value.size) if os.path.lexists(path) else Absent("the command did not make it")
    return value


def reason_absent(value: Any) -> str:
    """Why a (resolved) input cannot be had; "" when it can."""
    if isinstance(value, Absent):
        return value.reason
    if isinstance(value, Failed):
        if value.kind == "cancelled":
            return "the task that makes it was cancelled"
        line = last_line(value.text)
        return _OUR_ERROR.sub("", line) or f"what makes it failed ({value.kind})"
    return ""


def is_for_lack_of_room(value: Any) -> bool:
    """Whether an input cannot be had only because there was no room for it where it was to be made."""
    return (isinstance(value, Absent) and value.no_room) or (
        isinstance(value, Failed) and value.kind == "storage"
    )


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


@contextlib.contextmanager
def telling_full_disks(what: str) -> Iterator[None]:
    """Errors for want of room as what they are. ``what``: there was no room for. Raises FullDiskError."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise scratch.FullDiskError(f"{what}: the disk of the worker is full ({error})") from error


def is_small(path: str) -> bool:
    """Whether it is carried as its bytes. Raises OSError."""
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_size <= SMALL_BYTES


def make(path: str) -> Made:
    """The result for the file or directory ``path``, which is ours to give away. Raises OSError."""
    status = os.lstat(path)
    if is_small(path):
        return small_file(path, status.st_mode)
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return NewTree(path)
    return Absent(f"{os.path.basename(path)!r} is neither a file nor a directory")


def small_file(path: str, mode: int) -> SmallFile:
    with open(path, "rb") as file:
        return SmallFile(file.read(), stat.S_IMODE(mode))


def place(value: Any, path: str, *, link: bool = True) -> None:
    """Put a file at ``path``: linked where that is possible and ``link`` allows it, else a copy.

    ``value``: a SmallFile, bytes, str or Tree. Raises OSError, TypeError."""
    if isinstance(value, Tree):
        if link:
            link_tree(value.path, path)
        else:
            copy_tree(value.path, path)
        return
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = SmallFile(bytes(value))
    if not isinstance(value, SmallFile):
        raise TypeError(f"an input is no file, but a {type(value).__name__}")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(value.data)
        os.fchmod(descriptor, value.mode | stat.S_IWUSR)


def place_named(value: Any, name: str, directory: str) -> str:
    """Put a file, as ``resolved`` gave it, into a directory under a name that may have directories in it; its
    path. Raises FileNotFoundError for one that cannot be had, OSError, TypeError."""
    reason = reason_absent(value)
    if reason:
        raise FileNotFoundError(f"{name}: {reason}")
    path = os.path.join(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    place(value, path)
    return path


def link_tree(source: str, target: str) -> None:
    """Hard links to the files of ``source`` under ``target``; copies where links cannot be. Raises
    OSError."""
    if os.path.isdir(source):
        shutil.copytree(source, target, symlinks=True, copy_function=_link)
    else:
        _link(source, target)


def copy_tree(source: str, target: str) -> None:
    """A copy that its owner may write to. Raises OSError."""
    if os.path.isdir(source):
        shutil.copytree(source, target, symlinks=True)
        for directory, _, names in os.walk(target):
            _make_writable(directory)
            for name in names:
                path = os.path.join(directory, name)
                if not os.path.islink(path):
                    _make_writable(path)
    else:
        shutil.copy2(source, target)
        _make_writable(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # Another file system, or one without links.
        shutil.copy2(source, target, follow_symlinks=False)


def _make_writable(path: str) -> None:
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_IWUSR)
