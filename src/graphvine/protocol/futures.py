"""Futures of the standard library for what runs on an engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import FINISHED
from typing import Any, NoReturn

from graphvine.protocol.errors import check_process


class RunFuture(Future):  # type: ignore[type-arg]
    """A future that can be cancelled until it has its result: nothing says when its work began."""

    def __init__(self, on_cancel: Callable[[RunFuture], None] | None = None) -> None:
        super().__init__()
        self._on_cancel = on_cancel
        self._settled = threading.Lock()
        self._pid = os.getpid()

    def result(self, timeout: float | None = None) -> Any:
        """As ever. Raises ManagerClosedError in a forked child to which it would never come."""
        self._check_process()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As ever. Raises ManagerClosedError in a forked child to which it would never come."""
        self._check_process()
        return super().exception(timeout)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a future can't be sent to another process: calls of the same executor take it as an argument "
            "(also in lists, tuples, sets and dicts), all others what its result() gives"
        )

    def _check_process(self) -> None:
        # Without the lock that ``done`` takes, which a thread that is not there may hold.
        if self._state != FINISHED:
            check_process(self._pid)

    def cancel(self) -> bool:
        self._check_process()
        if not super().cancel():
            return False
        if self._settled.acquire(blocking=False):
            # Only now do wait() and as_completed() hear of it.
            self.set_running_or_notify_cancel()
            if self._on_cancel is not None:
                self._on_cancel(self)
        return True

    def settle(self, value: Any = None, error: BaseException | None = None) -> None:
        """Give it its result, or the exception, unless it has one or was cancelled."""
        if not self._settled.acquire(blocking=False) or not self.set_running_or_notify_cancel():
            return
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(value)


def is_interrupt(kind: type[BaseException] | None) -> bool:
    """Whether a block is left because its user pressed Ctrl-C: then what it began is not waited for."""
    return kind is not None and issubclass(kind, KeyboardInterrupt)
