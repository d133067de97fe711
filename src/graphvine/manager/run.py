"""One plan on its way: what the user's threads see of it.

The manager's thread writes (``on_*``), users' threads wait and read. Raw results are kept until somebody
asks, and are unpickled in the thread that asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from graphvine.manager.engine import Outcome, Progress, Run
from graphvine.protocol import values
from graphvine.protocol.errors import UndecodableError
from graphvine.protocol.trees import Tree

if TYPE_CHECKING:
    from graphvine.manager.loop import Loop

#: A raw result: an inline pickle, a whole value file in memory or mapped, or a tree in the manager's
#: directory.
Raw = bytes | memoryview | Tree

NOTHING_KNOWN = Progress("", 0, 0, 0, 0, 0, 0, 0.0, 0.0, True, [])


class ManagedRun:
    """Implements ``engine.Run`` on the manager's own loop."""

    def __init__(self, loop: Loop, wanted: int, keep: bool) -> None:
        self.plan = 0
        """The core's number of this plan, once it was handed over."""
        self.keep = keep
        self._loop = loop
        self._raw: list[Raw | None] = [None] * wanted
        self._files: list[int] = []
        self._forgotten: set[int] = set()
        self._taken = threading.Event()
        self._finished = threading.Event()
        self._error: BaseException | None = None
        self._failure: Callable[[], BaseException] | None = None
        """Makes the error, of what came over the wire."""
        self._callbacks: list[Callable[[Run], None]] = []
        self._result_callbacks: list[Callable[[int], None]] = []
        self._outcomes: list[Outcome] = []
        """Told before anybody wanted to hear."""
        self._on_outcome: Callable[[Outcome], None] | None = None
        self._told: list[tuple[int, bytes]] = []
        self._on_told: Callable[[int, bytes], None] | None = None
        self._lock = threading.Lock()
        self.last: Progress | None = None
        """Where it stood when it was finished."""

    # -- users' threads --------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> list[Any]:
        if not self._finished.is_set():
            self._loop.check_process()
        if not self._finished.wait(timeout):
            raise TimeoutError(f"not finished after {timeout} s")
        self._loop.flush_output()
        self.check()
        if self.keep:
            return [None] * len(self._raw)
        return [None if at in self._forgotten else _load(raw) for at, raw in enumerate(self._raw)]

    def check(self) -> None:
        error = self._exception()
        if error is not None:
            raise error

    def forget(self, positions: Sequence[int]) -> None:
        if not self._finished.is_set():
            with self._lock:
                self._forgotten.update(positions)
            self._loop.call(lambda: self._loop.forget(self, list(positions)))

    def files(self) -> list[int]:
        if not self._taken.is_set():
            self._loop.check_process()
        self._taken.wait()
        error = None if self._files else self._exception()
        if error is not None:
            raise error
        return self._files

    def _exception(self) -> BaseException | None:
        # In the thread that asks: unpickling runs the user's code, which may import what is just being
        # imported there. Without a lock, for the same reason; two that ask at once may get one each.
        if self._error is None and self._failure is not None:
            self._error = self._failure()
        return self._error

    def done(self) -> bool:
        return self._finished.is_set()

    def cancel(self) -> bool:
        if self._finished.is_set():
            return False
        self._loop.check_process()
        self._loop.call(lambda: self._loop.cancel(self))
        self._finished.wait()
        return isinstance(self._error, CancelledError)

    def progress(self) -> Progress:
        """A snapshot; after the end, the last one."""
        last = self.last
        if last is not None:
            return last
        snapshot: Progress = self._loop.ask(lambda: self._loop.progress(self))
        return snapshot

    def add_done_callback(self, callback: Callable[[Run], None]) -> None:
        with self._lock:
            if not self._finished.is_set():
                self._callbacks.append(callback)
                return
        callback(self)

    def add_result_callback(self, callback: Callable[[int], None]) -> None:
        with self._lock:
            self._result_callbacks.append(callback)
            here = [position for position, raw in enumerate(self._raw) if raw is not None]
        for position in here:
            callback(position)

    def add_outcome_callback(self, callback: Callable[[Outcome], None]) -> None:
        # From the manager's thread always, so that none overtakes another.
        self._loop.call(lambda: self._hear_outcomes(callback))

    def add_told_callback(self, callback: Callable[[int, bytes], None]) -> None:
        self._loop.call(lambda: self._hear_told(callback))

    def value(self, position: int) -> Any:
        self._loop.flush_output()
        return _load(self._raw[position])

    # -- the manager's thread --------------------------------------------------------------------------

    def on_taken(self, plan: int, files: list[int]) -> None:
        self.plan = plan
        self._files = files
        self._taken.set()

    def on_result(self, position: int, raw: Raw) -> None:
        with self._lock:
            self._raw[position] = raw
            callbacks = list(self._result_callbacks)
        for callback in callbacks:
            callback(position)

    def on_outcome(self, outcome: Outcome) -> None:
        if self._on_outcome is None:
            self._outcomes.append(outcome)
        else:
            self._on_outcome(outcome)

    def on_told(self, task: int, data: bytes) -> None:
        if self._on_told is None:
            self._told.append((task, data))
        else:
            self._on_told(task, data)

    def _hear_told(self, callback: Callable[[int, bytes], None]) -> None:
        self._on_told = callback
        told, self._told = self._told, []
        for task, data in told:
            callback(task, data)

    def _hear_outcomes(self, callback: Callable[[Outcome], None]) -> None:
        self._on_outcome = callback
        told, self._outcomes = self._outcomes, []
        for outcome in told:
            callback(outcome)

    def on_finished(self, error: BaseException | Callable[[], BaseException] | None, last: Progress) -> None:
        """It is over; ``error``: why it failed, or what makes that in the thread that asks."""
        with self._lock:
            if self._finished.is_set():
                return
            if error is None or isinstance(error, BaseException):
                self._error = error
            else:
                self._failure = error
            self.last = last
            self._taken.set()
            self._finished.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


def _load(raw: Raw | None) -> Any:
    assert raw is not None, "a finished run has all its results"
    if isinstance(raw, Tree):
        return raw
    try:
        return values.loads_inline(raw) if isinstance(raw, bytes) else values.loads(raw)
    except Exception as error:
        raise UndecodableError(
            f"the result came back but cannot be unpickled here: {type(error).__name__}: {error}"
        ) from error
