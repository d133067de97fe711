"""What executors print: read from their pipes, kept in logs of bounded size, passed on in bounded amount.

- An executor's standard output and error are a pipe each, which the agent reads in pieces, between all else.
  So a task that prints without end costs some time of its core, but no memory and no disk, and waits only
  for its own pipe.
- Whole lines are passed on, as long as what a worker prints keeps within its allowance; the rest is counted,
  and left to the logs.
"""

from __future__ import annotations

import os
import select
from typing import Literal

import msgspec

from graphvine.protocol.messages import Output

#: So much of one pipe is read before anybody else's turn.
READ_BYTES = 2**16
#: A line longer than this is passed on in parts.
_LINE_BYTES = 2**12
#: What is remembered of an executor's last words.
_LAST_BYTES = 8192
#: A log is begun anew when it is longer than this; the one before it stays, too.
LOG_BYTES = 4 * 2**20
#: Passed on at once, and every second in the long run.
_BURST_BYTES = 2**20
_RATE_BYTES_S = 2**16

Stream = Literal[1, 2]


class Printed(msgspec.Struct):
    """An executor printed something, to its standard output (1) or error (2)."""

    executor: int
    stream: Stream
    data: bytes


class Log:
    """A file of bounded length. Where there is no room for it, there is none."""

    def __init__(self, path: str, limit_bytes: int = LOG_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._descriptor = -1
        self._length = 0

    def write(self, data: bytes) -> None:
        try:
            if self._length + len(data) > self._limit_bytes:
                self.close()
                os.replace(self._path, f"{self._path}.old")
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
                self._length = os.fstat(self._descriptor).st_size
            self._length += os.write(self._descriptor, data)
        except OSError:
            # A full disk, or nothing to replace: what is printed is not worth more than the work.
            self._length = 0

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._length = 0


class Pipe:
    """One stream of one executor: our end of it, and the executor's until it is there."""

    def __init__(self, stream: Stream) -> None:
        self.stream: Stream = stream
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self._rest = b""

    def read(self) -> bytes | None:
        """What there is, at most READ_BYTES; None when there is nothing. Empty: nobody can write any more."""
        try:
            return os.read(self.reader, READ_BYTES)
        except BlockingIOError:
            return None

    def lines(self, data: bytes) -> bytes:
        """The whole lines there are with ``data``."""
        text = self._rest + data
        whole, newline, rest = text.rpartition(b"\n")
        if len(rest) > _LINE_BYTES:
            whole, newline, rest = text, b"", b""
        self._rest = rest
        return whole + newline

    def rest(self) -> bytes:
        """What was said of a line that was not ended."""
        rest, self._rest = self._rest, b""
        return rest

    def close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        self.close_writer()
        os.close(self.reader)


class Outlet:
    """Where one executor prints to."""

    def __init__(self, executor: int, log: str) -> None:
        self._executor = executor
        self._log = Log(log)
        self._last = b""
        self.pipes = (Pipe(1), Pipe(2))

    def on_readable(self, pipe: Pipe, poll: select.epoll) -> list[Printed]:
        """One of the pipes has something, or is at its end."""
        data = pipe.read()
        if data == b"":
            poll.unregister(pipe.reader)
        return self._take(pipe, pipe.lines(data)) if data and self._keep(data) else []

    def drain(self) -> list[Printed]:
        """All that is left; the executor is gone (what it forked may go on printing, but not to us)."""
        printed: list[Printed] = []
        for pipe in self.pipes:
            while (data := pipe.read()) and self._keep(data):
                printed += self._take(pipe, pipe.lines(data))
                if len(data) < READ_BYTES:
                    break
            printed += self._take(pipe, pipe.rest())
        return printed

    def last_words(self) -> str:
        return self._last.decode(errors="replace")

    def close_writers(self) -> None:
        """The executor has its own."""
        for pipe in self.pipes:
            pipe.close_writer()

    def close(self) -> None:
        self._log.close()
        for pipe in self.pipes:
            pipe.close()

    def _keep(self, data: bytes) -> bool:
        self._log.write(data)
        self._last = (self._last + data)[-_LAST_BYTES:]
        return True

    def _take(self, pipe: Pipe, data: bytes) -> list[Printed]:
        return [Printed(self._executor, pipe.stream, data)] if data else []


class Allowance:
    """How much of what is printed here is passed on."""

    def __init__(self, burst_bytes: int = _BURST_BYTES, rate_bytes_s: float = _RATE_BYTES_S) -> None:
        self._burst_bytes = burst_bytes
        self._rate_bytes_s = rate_bytes_s
        self._left = float(burst_bytes)
        self._then = 0.0
        self._kept_back = 0

    def pass_on(self, printed: Printed, now: float) -> list[Output]:
        """What the manager is to hear of it."""
        self._left = min(self._burst_bytes, self._left + (now - self._then) * self._rate_bytes_s)
        self._then = now
        if len(printed.data) > self._left:
            self._kept_back += len(printed.data)
            return []
        self._left -= len(printed.data)
        return [*self.excuse(), Output(printed.stream, printed.data)]

    def excuse(self) -> list[Output]:
        """A word about what was not passed on, if there is something of that."""
        kept_back, self._kept_back = self._kept_back, 0
        return [Output(2, b"", kept_back)] if kept_back else []
