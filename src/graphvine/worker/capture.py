"""What the running task prints, kept for the task itself in place of being passed on.

Standard output and error are a file of this executor while it lasts. The file is there from task to task, as
making one takes longer than many a call does; what a task printed is taken away with ``take``, or moved with
``move``. A child that the executor forks for a task has the executor's. When the process dies, the agent
finds its last words there (``scratch.printed_path``).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import sys

from graphvine.worker import scratch

#: Looked for here, once: in a child, each would look for it anew.
_flush_c = ctypes.CDLL(None).fflush
_STANDARD = (1, 2)
#: Out of the way of those who close everything up to some small number.
_FROM = 100
_CLOSED = b"graphvine: a task closed file descriptors that are not its own; close only what it has opened\n"


class _Capture:
    """The file of one process, and what its standard output and error are without it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.path = scratch.printed_path()
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self.path, flags, 0o600)
        self.file = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, _FROM)
        os.close(file)
        self.before = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FROM) for fd in _STANDARD]
        self.lasts = False

    def is_there(self) -> bool:
        """Whether the file lies where it is looked for."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.file))
        except OSError:
            return False

    def close(self) -> None:
        for descriptor in (self.file, *self.before):
            os.close(descriptor)


_capture: _Capture | None = None


def prepare() -> None:
    """Have a file, if there is room for one. In time for a child that is about to be forked, which may have
    moved it the last time."""
    global _capture
    if _capture is not None and _capture.pid == os.getpid() and not _capture.is_there():
        _capture.close()
        _capture = None
    if _capture is None or _capture.pid != os.getpid():
        try:
            _capture = _Capture()
        except OSError:
            _capture = None


def adopt() -> None:
    """In a child that was forked for a task: what the executor has prepared is its own."""
    if _capture is not None:
        _capture.pid = os.getpid()


def begin() -> None:
    """From now on what is printed is kept; where there is no room for a file, it is passed on as ever."""
    if _capture is None or _capture.pid != os.getpid():
        prepare()
    if _capture is None:
        return
    if os.fstat(_capture.file).st_size:
        # Nobody took what was printed last, as something else went wrong.
        os.ftruncate(_capture.file, 0)
    _flush()
    _redirect([_capture.file] * 2)
    _capture.lasts = True


def end() -> int:
    """From now on it is passed on again; how many bytes were printed. Safe to call twice, and in a child that
    the task forked, where nothing happens."""
    capture = _capture
    if capture is None or capture.pid != os.getpid():
        return 0
    if capture.lasts:
        _flush()
        _redirect(capture.before)
        capture.lasts = False
    return os.fstat(capture.file).st_size


def take() -> bytes:
    """What was printed; then it is gone."""
    assert _capture is not None
    size = os.fstat(_capture.file).st_size
    data = os.pread(_capture.file, size, 0)
    os.ftruncate(_capture.file, 0)
    return data


def move(path: str) -> None:
    """Put what was printed into a file of that path, on the same disk. Raises OSError."""
    global _capture
    assert _capture is not None
    os.rename(_capture.path, path)
    _capture.close()
    _capture = None


def _redirect(files: list[int]) -> None:
    try:
        for file, standard in zip(files, _STANDARD, strict=True):
            os.dup2(file, standard)
    except OSError:
        with contextlib.suppress(OSError):
            os.write(2, _CLOSED)
        os._exit(1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # They may be closed, or what the user put in their place.
        with contextlib.suppress(Exception):
            stream.flush()
    # What was printed by libraries that are not Python.
    _flush_c(None)
