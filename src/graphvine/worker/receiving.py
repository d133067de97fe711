"""Taking in one file: over a link, or from this node's own file system.

Writing to a memory file costs about as much as receiving (its pages have to be found), so for large files the
two go on side by side: this thread receives into one buffer while another writes the one before.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from queue import SimpleQueue

from graphvine.protocol.bulk import CHUNK_BYTES, Link
from graphvine.protocol.given_files import check_unchanged, open_given
from graphvine.protocol.messages import OnNode
from graphvine.protocol.trees import BadTreeError
from graphvine.worker.arrivals import Arrival

#: A thread of its own does not pay for less.
_BESIDE_FROM = 8 * 2**20
_BUFFERS = 4


def receive(link: Link, arrival: Arrival) -> int:
    """Take in what ``link`` was asked for, from where ``arrival`` has come to; its checksum.

    Raises BulkError; BadTreeError, OSError when it cannot be written."""
    if arrival.size - arrival.written < _BESIDE_FROM:
        buffer = memoryview(bytearray(min(CHUNK_BYTES, arrival.size)))
        return link.receive_chunks(lambda: buffer, arrival.write, arrival.hashed)
    with _Writer(arrival.write) as writer:
        checksum = link.receive_chunks(writer.buffer, writer.take, arrival.hashed)
    writer.check()
    return checksum


def read_here(what: OnNode, arrival: Arrival) -> int:
    """Take in a file of this node, as a holder would send it; its size in that form.

    A copy, never a link: who owns the file may write to it. Raises ChangedError, BadTreeError, OSError."""
    reader = open_given(what.path, what.size, what.tree, what.stamp)
    arrival.size = reader.size
    arrival.begin(what.tree)
    at = 0
    while at < reader.size:
        data = reader.read(at, CHUNK_BYTES)
        if not data:
            raise OSError(errno.EIO, "it was cut short", what.path)
        arrival.hashed.update(data)
        arrival.write(data)
        at += len(data)
    reader.check()
    check_unchanged(what.path, what.stamp)
    arrival.complete(arrival.hashed.intdigest())
    return reader.size


class _Writer:
    """A thread that writes chunks, in order."""

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write = write
        self._full: SimpleQueue[tuple[memoryview, memoryview] | None] = SimpleQueue()
        self._empty: SimpleQueue[memoryview] = SimpleQueue()
        for _ in range(_BUFFERS):
            self._empty.put(memoryview(bytearray(CHUNK_BYTES)))
        self._lent = memoryview(b"")
        self._error: OSError | BadTreeError | None = None
        self._thread = threading.Thread(target=self._run, name="graphvine-write", daemon=True)

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._full.put(None)
        self._thread.join()

    def buffer(self) -> memoryview:
        """Room for the next chunk; waits until a chunk is written. Raises OSError when one could not be."""
        self._lent = self._empty.get()
        self.check()
        return self._lent

    def take(self, chunk: memoryview) -> None:
        """Write ``chunk``, the filled part of the buffer that was lent last."""
        self._full.put((chunk, self._lent))

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (order := self._full.get()) is not None:
            chunk, whole = order
            if self._error is None:
                try:
                    self._write(chunk)
                except (OSError, BadTreeError) as error:
                    self._error = error
            self._empty.put(whole)
