"""Futures of the standard library for what runs on an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class RunFuture(Future):  # type: ignore[type-arg]
    """A future that can be cancelled until it has its result: nothing says when its work began."""

    def __init__(self, on_cancel: Callable[[RunFuture], None] | None = None) -> None:
        super().__init__()
        self._on_cancel = on_cancel
        self._settled = threading.Lock()

    def cancel(self) -> bool:
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
