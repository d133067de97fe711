"""Shows what tasks print on the user's own standard output and error.

- ``put`` never waits: a thread of its own, started with the first lines, does the writing.
- What waits to be written is bounded, for who looks at it slowly or not at all; what is left out is counted.
- ``flush`` lets whoever waited for results see first what their tasks printed.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextlib import suppress

#: So much may wait to be written.
_WAITING_BYTES = 4 * 2**20
#: Results are not held back any longer by a terminal that takes nothing.
_FLUSH_S = 10.0


class Printer:
    """For any thread."""

    def __init__(self, waiting_bytes: int = _WAITING_BYTES) -> None:
        self._waiting_bytes = waiting_bytes
        self._change = threading.Condition()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        """Waiting, or just being written."""
        self._left_out = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, stream: int, data: bytes, left_out: int = 0) -> None:
        """Show ``data`` on standard output (1) or error (2); ``left_out`` bytes before it were not sent."""
        with self._change:
            if self._closed:
                return
            self._left_out += left_out
            if self._bytes + len(data) > self._waiting_bytes:
                self._left_out += len(data)
                return
            if self._left_out:
                self._append(2, _excuse(self._left_out))
                self._left_out = 0
            self._append(stream, data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="graphvine-print", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def flush(self, timeout_s: float = _FLUSH_S) -> None:
        """Wait until all that was put is written."""
        if self._bytes and threading.current_thread() is not self._thread:
            with self._change:
                self._change.wait_for(lambda: not self._bytes, timeout_s)

    def close(self) -> None:
        """Write what is left, and end. Safe to call twice."""
        self.flush()
        with self._change:
            self._closed = True
            self._change.notify_all()
            stuck = self._bytes > 0
        if self._thread is not None and not stuck and self._thread is not threading.current_thread():
            self._thread.join()

    def _append(self, stream: int, data: bytes) -> None:
        self._waiting.append((stream, data))
        self._bytes += len(data)

    def _write_all(self) -> None:
        # Here: every manager has a printer, and few tasks print.
        from graphvine.observe.progress import aside

        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                batch = list(self._waiting)
                self._waiting.clear()
            # A closed or broken stream: then nobody is looking.
            with suppress(Exception), aside():
                for stream, data in batch:
                    write(stream, data)
            with self._change:
                self._bytes -= sum(len(data) for _, data in batch)
                self._change.notify_all()


def write(stream: int, data: bytes) -> None:
    """Raises what the user's stream raises."""
    target = sys.stdout if stream == 1 else sys.stderr
    if target is not None:
        target.write(data.decode(errors="replace"))
        target.flush()


def _excuse(left_out: int) -> bytes:
    return f"graphvine: {left_out:,} bytes that tasks printed are not shown: they were too many\n".encode()
