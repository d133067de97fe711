"""Files on their way to this worker: written as they come, and passed on to others meanwhile.

- Each has one writer at a time, a thread that fetches or the agent's loop with pieces, and any number of
  readers, the threads of the transfer server. A reader sees the bytes that were written, never one more.
- When a link breaks what has come stays, and the next fetch of that file goes on from there. When what came
  is damaged, all of it is thrown away, and whoever was reading it is told.
- Readers hold descriptors, not paths: the file may get its name in the store, or be dropped, while they read.
  The writer's own descriptor is closed by whoever is last, it or the one who gives the file up.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Literal

import xxhash

from graphvine.protocol import tree_files
from graphvine.protocol.trees import BadTreeError
from graphvine.worker.content import Content, TreeContent, ValueContent


class ArrivalFailedError(OSError):
    """It will not come; whoever waited must look elsewhere."""


class Arrival:
    """One file on its way. ``path`` is where a value is written, ``tree_path`` where a tree is."""

    def __init__(self, file: int, size: int, path: str, tree_path: str) -> None:
        self.file = file
        self.size = size
        self.hashed = xxhash.xxh3_64()
        """Of all that was handed to ``write``, kept by whoever writes."""
        self._path = path
        self._tree_path = tree_path
        self._changed = threading.Condition()
        self._state: Literal["coming", "complete", "failed"] = "coming"
        self._checksum = 0
        self._written = 0
        self._descriptor = -1
        """Of the value, or of the directory of the tree."""
        self._writer: tree_files.Writer | None = None
        self._writing = False
        self._closed = False

    # -- the writer ------------------------------------------------------------------------------------

    @property
    def written(self) -> int:
        """How much of it has come and is written."""
        return self._written

    def begin(self, tree: bool) -> None:
        """It is a value, or a tree. Raises BadTreeError when it was said to be the other before, OSError."""
        with self._changed:
            self._check_open()
            if self._descriptor >= 0:
                if tree != (self._writer is not None):
                    raise BadTreeError("one holder has a tree and another one a value")
                return
            if tree:
                self._writer = tree_files.Writer(self._tree_path)
                self._descriptor = os.open(self._tree_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            else:
                # Not truncated first: a spare's pages are what makes writing quick (see ``spare``).
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises BadTreeError, OSError."""
        with self._at_work():
            if self._writer is not None:
                self._writer.feed(data)
            else:
                position, view = self._written, memoryview(data)
                while view:
                    count = os.pwrite(self._descriptor, view, position)
                    position, view = position + count, view[count:]
            self._written += len(data)

    def complete(self, checksum: int) -> None:
        """All of it came, and was right. Raises BadTreeError, OSError."""
        with self._at_work():
            if self._writer is not None:
                self._writer.finish()
            else:
                os.ftruncate(self._descriptor, self.size)
            with self._changed:
                self._check_open()
                self._checksum = checksum
                self._state = "complete"

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._changed:
            self._check_open()
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                if self._closed:
                    self._let_go()
                self._changed.notify_all()

    def remove(self) -> None:
        """Remove what was written of it."""
        tree_files.remove(self._path)
        tree_files.remove(self._tree_path)

    def _check_open(self) -> None:
        if self._state == "failed":
            raise ArrivalFailedError(f"file {self.file} is not wanted any more")

    # -- readers ---------------------------------------------------------------------------------------

    def wait_for_begin(self, timeout_s: float) -> bool:
        """Whether there is something to send; waits so long at most. Raises ArrivalFailedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != "coming" or self._readable() > 0, timeout_s)
            self._check_open()
            return self._state == "complete" or self._readable() > 0

    def open(self) -> Content:
        """Its content, as far as it is there (after ``wait_for_begin``). Raises OSError."""
        with self._changed:
            self._check_open()
            if self._closed:
                raise ArrivalFailedError(f"file {self.file} is in the store by now")
            if self._writer is not None:
                return TreeContent(tree_files.Reader(self._descriptor, self._writer.head))
            return ValueContent(os.dup(self._descriptor), self.size)

    def wait_beyond(self, position: int) -> int:
        """How much is there to read, once it is more than ``position``; waits. Raises ArrivalFailedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != "coming" or self._readable() > position)
            self._check_open()
            return self._readable()

    def wait_for_checksum(self) -> int:
        """The checksum of all of it, when it was right; waits. Raises ArrivalFailedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != "coming")
            self._check_open()
            return self._checksum

    def _readable(self) -> int:
        if self._writer is not None and self._writer.head is None:
            return 0
        return self._written

    # -- the end ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """It is in the store, or given up. Who was reading what is complete goes on."""
        with self._changed:
            if self._state == "coming":
                self._state = "failed"
            self._closed = True
            if not self._writing:
                self._let_go()
            self._changed.notify_all()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if self._writer is not None:
            self._writer.close()
        if descriptor >= 0:
            os.close(descriptor)


class Arrivals:
    """All of a worker, by number."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._arrivals: dict[int, Arrival] = {}
        self._closed = False

    def get(self, file: int, timeout_s: float = 0.0) -> Arrival | None:
        """Waits so long for it to be on its way."""
        found = self._arrivals.get(file)
        if found is not None or not timeout_s:
            return found
        with self._lock:
            self._lock.wait_for(lambda: self._closed or file in self._arrivals, timeout_s)
            return self._arrivals.get(file)

    def add(self, arrival: Arrival) -> Arrival:
        """Instead of one of the same file that may be there."""
        with self._lock:
            before = self._arrivals.get(arrival.file)
            self._arrivals[arrival.file] = arrival
            self._lock.notify_all()
        if before is not None:
            before.close()
        return arrival

    def forget(self, file: int, arrival: Arrival | None = None) -> None:
        """It is in the store, or given up (``arrival``: only if it is this one)."""
        with self._lock:
            found = self._arrivals.get(file)
            if found is None or (arrival is not None and found is not arrival):
                return
            del self._arrivals[file]
        found.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        for file in list(self._arrivals):
            self.forget(file)
