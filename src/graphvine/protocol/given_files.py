"""Files of the manager's machine that are given with a plan (``manager.plan.GivenFile``), read as a stream.

They are the user's, who may change them at any time: what is not any more what it was, when it was declared
or when its reading began, is refused.
"""

from __future__ import annotations

import os
import stat

import xxhash

from graphvine.protocol.tree_files import Reader, scan
from graphvine.protocol.trees import BadTreeError, Entry


class ChangedError(Exception):
    """A file is not what it was when it was declared; the message says how."""


class TreeReader(Reader):
    """The flat form of a file or directory that lies anywhere. What changes while it is read is refused."""

    def __init__(self, path: str) -> None:
        """Raises BadTreeError, OSError."""
        self._root = os.path.realpath(path)
        self._times: dict[bytes, int] = {}
        self.head = scan(self._root)

    def close(self) -> None:
        """Nothing is open between two pieces."""

    def open(self, entry: Entry) -> int:
        """Raises OSError, ChangedError."""
        path = os.path.join(os.fsencode(self._root), entry.path) if entry.path else os.fsencode(self._root)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        time_ns = self._times.setdefault(entry.path, status.st_mtime_ns)
        if (status.st_size, int(status.st_mtime), status.st_mtime_ns) != (entry.size, entry.mtime, time_ns):
            os.close(descriptor)
            raise ChangedError(f"{os.fsdecode(path)} changed while it was sent to the workers")
        return descriptor

    def check(self) -> None:
        """All of it is still as it was. Raises ChangedError, BadTreeError, OSError."""
        if scan(self._root).raw != self.head.raw:
            raise ChangedError(f"{self._root} changed while it was sent to the workers")
        for entry in self.head.entries:
            if entry.path in self._times:
                os.close(self.open(entry))


class ValueReader:
    """A file of values, as it is."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._path = path
        status = os.stat(path)
        self.size = status.st_size
        self._mtime_ns = status.st_mtime_ns

    def read(self, offset: int, length: int) -> bytes:
        """So much of it, less at its end. Raises OSError, ChangedError."""
        with open(self._path, "rb", buffering=0) as file:
            self._compare(os.fstat(file.fileno()))
            return os.pread(file.fileno(), length, offset)

    def check(self) -> None:
        """It is still as it was. Raises ChangedError, OSError."""
        self._compare(os.stat(self._path))

    def _compare(self, status: os.stat_result) -> None:
        if (status.st_size, status.st_mtime_ns) != (self.size, self._mtime_ns):
            raise ChangedError(f"{self._path} changed while it was sent to the workers")


def open_given(path: str, size: int, tree: bool, stamp: int) -> TreeReader | ValueReader:
    """What was declared as a given file, to be read. Raises ChangedError, BadTreeError, OSError."""
    check_unchanged(path, stamp)
    if not tree:
        return ValueReader(path)
    reader = TreeReader(path)
    if stamp and reader.head.content != size:
        raise ChangedError(f"{path} had {size} bytes when it was declared, now {reader.head.content}")
    return reader


def check_unchanged(path: str, stamp: int) -> None:
    """Raises ChangedError when a file is not what it was, OSError when it is not there."""
    if stamp and stamp_of(path) != stamp:
        raise ChangedError(f"{path} changed since it was declared")


def stamp_of(path: str) -> int:
    """Tells one content of a path from another, as far as that can be told without reading it: by inode,
    mode, size and time, of a directory also by those of all that is in it. Never 0. Raises OSError."""
    status = os.stat(path)
    state = xxhash.xxh3_64(_numbers(status))
    if stat.S_ISDIR(status.st_mode):
        _add_directory(state, path)
    return state.intdigest() or 1


def _add_directory(state: xxhash.xxh3_64, path: str) -> None:
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            status = entry.stat(follow_symlinks=False)
            state.update(os.fsencode(entry.name) + _numbers(status))
            if stat.S_ISDIR(status.st_mode):
                _add_directory(state, entry.path)


def _numbers(status: os.stat_result) -> bytes:
    return b"\0%d %o %d %d\0" % (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns)


def why(error: Exception, path: str) -> str:
    """In words for the user."""
    if isinstance(error, OSError):
        return f"{error.filename or path}: {error.strerror or error}"
    return str(error)


#: What reading a given file may raise.
UNREADABLE = (OSError, BadTreeError, ChangedError)
