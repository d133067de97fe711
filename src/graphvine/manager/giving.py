"""Files of the manager's own machine, read for the workers that pull them.

Reading, and looking whether a file is still what it was when it was declared, is done by one thread: so that
the manager's loop never waits for a disk. Pieces are answered in the order in which they were asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from graphvine.manager.plan import GivenFile
from graphvine.protocol.given_files import UNREADABLE, TreeReader, ValueReader, open_given, why
from graphvine.protocol.messages import Piece, Pull
from graphvine.protocol.pieces import not_held, piece_of

#: So many files are remembered between their pieces.
_READERS = 16


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
        except UNREADABLE as error:
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
        reader = open_given(given.path, given.size, given.tree, given.stamp)
        while len(self._readers) >= _READERS:
            del self._readers[next(iter(self._readers))]
        self._readers[file] = reader
        size = reader.size
        self._call(lambda: self._on_read(file, size))
        return reader
