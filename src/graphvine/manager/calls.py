"""What other threads want done in the thread of a loop that polls descriptors."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable


class Calls:
    """``call`` from any thread; ``descriptor`` is readable until ``make`` was called in the loop's."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self.descriptor, self._sender = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._sender, False)
        self._awake = False
        self._open = True
        self._pid = os.getpid()
        # Reentrant: a finalizer may call while this very thread is calling.
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        """Whether one waits."""
        return bool(self._waiting)

    def call(self, command: Callable[[], None]) -> None:
        """Have ``command`` called in the loop's thread, soon. After closing, and in a forked child, which has
        no such thread: nothing happens."""
        if os.getpid() != self._pid:
            return
        self._waiting.append(command)
        if not self._awake:
            self._awake = True
            self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._open:
                # A full pipe wakes the loop as well as one byte more.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._sender, b"x")

    def make(self) -> None:
        """Make those calls that wait now."""
        # Cleared before the queue is read: whoever appends after that wakes the loop again.
        self._awake = False
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)
        for _ in range(len(self._waiting)):
            self._waiting.popleft()()

    def close(self) -> None:
        with self._lock:
            self._open = False
            os.close(self.descriptor)
            os.close(self._sender)
