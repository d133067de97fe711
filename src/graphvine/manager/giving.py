"""Files of the manager's own machine, read for the workers that pull them.

Reading, and looking whether a file is still what it was when it was declared, is done by one thread: so that
the manager's loop never waits for a disk. Pieces are answered in the order in which they were asked for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from graphvine.manager.plan import GivenFile
from graphvine.protocol.messages import Piece, Pull
from graphvine.protocol.pieces import not_held, piece_of
from graphvine.protocol.tree_files import Reader, scan
from graphvine.protocol.trees import BadTreeError, Entry

#: So many files are remembered between their pieces.
_READERS = 16


class ChangedError(Exception):
    """A file is not what it was when it was declared; the message says how."""


class TreeReader(Reader):
    """The flat form of a file or directory that lies anywhere. What changes while it is read is refused."""

    def __init__(self, path: str) -> None:
        """Raises BadTreeError, OSError."""
        self._root = os.path.realpath(path)
        self.head = scan(self._root)

    def close(self) -> None:
        """Nothing is open between two pieces."""

    def open(self, entry: Entry) -> int:
        """Raises OSError, ChangedError."""
        path = os.path.join(os.fsencode(self._root), entry.path) if entry.path else os.fsencode(self._root)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if (status.st_size, int(status.st_mtime)) != (entry.size, entry.mtime):
            os.close(descriptor)
            raise ChangedError(f"{os.fsdecode(path)} changed while it was sent to the workers")
        return descriptor


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
            status = os.fstat(file.fileno())
            if (status.st_size, status.st_mtime_ns) != (self.size, self._mtime_ns):
                raise ChangedError(f"{self._path} changed while it was sent to the workers")
            return os.pread(file.fileno(), length, offset)


def check_unchanged(given: GivenFile) -> None:
    """Raises ChangedError when a file is not what it was, OSError when it is not there."""
    status = os.stat(given.path)
    if given.mtime_ns and status.st_mtime_ns != given.mtime_ns:
        raise ChangedError(f"{given.path} changed since it was declared")
    if stat.S_ISREG(status.st_mode) and given.mtime_ns and status.st_size != given.size:
        raise ChangedError(f"{given.path} had {given.size} bytes when it was declared, now {status.st_size}")


class Giver:
    """Lives in the manager's thread; reads in another, which reports through ``call``."""

    def __init__(
        self,
        call: Callable[[Callable[[], None]], None],
        answer: Callable[[int, Piece], None],
        on_read: Callable[[int, int], None],
        on_lost: Callable[[int, str], None],
    ) -> None:
        """``answer(worker, piece)``; ``on_read(file, size)``: how many bytes travel, as soon as that is
        known; ``on_lost(file, reason)``: it can't be had."""
        self._call = call
        self._answer = answer
        self._on_read = on_read
        self._on_lost = on_lost
        self._thread: ThreadPoolExecutor | None = None
        self._readers: dict[int, TreeReader | ValueReader] = {}
        """The thread's own."""

    def give(self, given: GivenFile, question: Pull) -> None:
        """Answer a question about a file."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="graphvine-give")
        self._thread.submit(self._give_in_thread, given, question)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    # -- the thread ------------------------------------------------------------------------------------

    def _give_in_thread(self, given: GivenFile, question: Pull) -> None:
        file, worker = question.file, question.requester
        try:
            reader = self._reader(given, file)
            data = reader.read(question.offset, question.length)
        except (OSError, BadTreeError, ChangedError) as error:
            reason = why(error, given.path)
            self._readers.pop(file, None)
            self._call(lambda: self._on_lost(file, reason))
            self._call(lambda: self._answer(worker, not_held(question)))
        else:
            piece = piece_of(question, data, reader.size, tree=given.tree)
            self._call(lambda: self._answer(worker, piece))

    def _reader(self, given: GivenFile, file: int) -> TreeReader | ValueReader:
        """Looked up once for all pieces. Raises OSError, BadTreeError, ChangedError."""
        reader = self._readers.get(file)
        if reader is not None:
            return reader
        check_unchanged(given)
        reader = TreeReader(given.path) if given.tree else ValueReader(given.path)
        while len(self._readers) >= _READERS:
            del self._readers[next(iter(self._readers))]
        self._readers[file] = reader
        size = reader.size
        self._call(lambda: self._on_read(file, size))
        return reader


def why(error: Exception, path: str) -> str:
    """In words for the user."""
    if isinstance(error, OSError):
        return f"{error.filename or path}: {error.strerror or error}"
    return str(error)
