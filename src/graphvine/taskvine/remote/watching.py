"""Files that are sent as they grow, while the task that writes them runs (``add_output(..., watch=True)``).

The kernel tells when something is written (inotify); what has come is then sent in pieces, so many bytes a
second at most: what is not sent comes with the result. A file that has become shorter, or whose task runs
again elsewhere, begins anew.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from graphvine.worker import notes

log = logging.getLogger("graphvine.command")

#: Looks are so far apart, ...
PAUSE_S = 0.2
#: ... and at each so many pieces of a file are sent, at most.
PIECES = 4
PIECE_BYTES = 48 * 2**10
#: IN_MODIFY, IN_CREATE, IN_MOVED_TO
_EVENTS = 0x2 | 0x100 | 0x80
_libc = ctypes.CDLL(None, use_errno=True)


class Piece(msgspec.Struct, array_like=True):
    """Bytes of an output, by its position among those of the task. ``life``: another one for each time that
    the file begins."""

    life: bytes
    position: int
    offset: int
    data: bytes


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Piece).decode


class _Watched:
    """One file, and how much of it was sent."""

    def __init__(self, path: str, position: int) -> None:
        self._path = path
        self._position = position
        self._begin()

    def _begin(self) -> None:
        self._life = uuid.uuid4().bytes
        self._sent = 0

    def send(self) -> bool:
        """Send what has come; whether there is more."""
        try:
            with open(self._path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size < self._sent:
                    self._begin()
                for _ in range(PIECES):
                    data = os.pread(file.fileno(), PIECE_BYTES, self._sent)
                    if not data:
                        return False
                    notes.tell(encode(Piece(self._life, self._position, self._sent, data)))
                    self._sent += len(data)
                return self._sent < size
        except OSError:
            # It is not there (any more), or no file.
            return False


@contextmanager
def watching(files: Sequence[tuple[str, int]]) -> Iterator[None]:
    """Send files, by path and position, as they grow, as long as this lasts. Their directories are there."""
    if not files:
        yield
        return
    try:
        inotify = _open(files)
    except OSError as error:
        log.warning("files cannot be watched here, and are sent when their task is over: %s", error)
        yield
        return
    process, over = os.getpid(), os.eventfd(0, os.EFD_CLOEXEC)
    watched = [_Watched(path, position) for path, position in files]
    thread = threading.Thread(target=_watch, args=(inotify, over, watched), name="graphvine-watch")
    thread.start()
    try:
        yield
    finally:
        if os.getpid() == process:
            os.eventfd_write(over, 1)
            thread.join()
        os.close(over)
        os.close(inotify)


def _open(files: Sequence[tuple[str, int]]) -> int:
    descriptor: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for directory in {os.path.dirname(path) for path, _ in files}:
        if _libc.inotify_add_watch(descriptor, os.fsencode(directory), _EVENTS) < 0:
            number = ctypes.get_errno()
            os.close(descriptor)
            raise OSError(number, os.strerror(number), directory)
    return descriptor


def _watch(inotify: int, over: int, watched: Sequence[_Watched]) -> None:
    pause = select.poll()
    pause.register(over, select.POLLIN)
    news = select.poll()
    for descriptor in (inotify, over):
        news.register(descriptor, select.POLLIN)
    more = False
    while True:
        if not more and any(descriptor == over for descriptor, _ in news.poll()):
            return
        _drain(inotify)
        # Each of them, also after one that has more.
        more = sum(file.send() for file in watched) > 0
        if pause.poll(PAUSE_S * 1000):
            return


def _drain(inotify: int) -> None:
    try:
        while os.read(inotify, 2**16):
            pass
    except BlockingIOError:
        return
