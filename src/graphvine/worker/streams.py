"""Standard input, output and error of an executor: each task finds them whole, whatever those before did.

A task may close them (a daemon's habit), or put something else in their place. What is closed and not opened
again would be the first thing that the next file gets for its number, and everything printed would go there.
"""

from __future__ import annotations

import fcntl
import io
import os
import select
import sys
from typing import TextIO

_STANDARD = (0, 1, 2)
#: Where the duplicates lie: out of the way of those who close everything up to some small number.
_DUPLICATES_FROM = 100


class Streams:
    """``link``: the descriptor without which the executor is nothing. Made before the first task."""

    def __init__(self, link: int) -> None:
        self._link = link
        self._duplicates = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _DUPLICATES_FROM) for fd in _STANDARD]
        self._output, self._error = sys.stdout, sys.stderr
        self._poll = select.poll()
        for descriptor in (*_STANDARD, link):
            # Asked for nothing, it says only what is wrong with a descriptor.
            self._poll.register(descriptor, 0)

    def mend(self) -> None:
        """After every task (one system call). Ends the process when its link was closed."""
        if wrong := self._poll.poll(0):
            self._reopen([descriptor for descriptor, what in wrong if what & select.POLLNVAL])
        if sys.stdout is not self._output or self._output.closed:
            self._output = sys.stdout = _usable(self._output)
        if sys.stderr is not self._error or self._error.closed:
            self._error = sys.stderr = _usable(self._error)

    def _reopen(self, closed: list[int]) -> None:
        if self._link in closed:
            # The task is still marked as begun, so that it is blamed.
            os.write(2 if 2 not in closed else self._duplicates[2], _LINK_CLOSED)
            os._exit(1)
        for descriptor in closed:
            os.dup2(self._duplicates[descriptor], descriptor)


_LINK_CLOSED = (
    b"graphvine: a task closed file descriptors that are not its own, among them the one over which its "
    b"executor gets work; close only what the task has opened\n"
)


def _usable(stream: TextIO) -> TextIO:
    """``stream``, or another one like it when it is closed."""
    if not stream.closed:
        return stream
    descriptor = 1 if stream.errors != "backslashreplace" else 2
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
        write_through=stream.write_through,  # type: ignore[attr-defined]
    )
