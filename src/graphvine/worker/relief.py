"""A packet under way, and who looks after it when one of its tasks takes unexpectedly long.

Tasks that are expected to be short travel several to a packet. When one of them is not short after all, the
results before it would wait for it, and so would the tasks after it, while other executors are idle. A thread
of the executor therefore looks at every packet of several tasks that is not done after ``RELIEF_S``: it sends
the results that are there, and hands back what has not begun. The thread sleeps while packets are short. (A
task that never lets go of the interpreter can't be relieved.)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from graphvine.worker.family import Passing, was_passed_on
from graphvine.worker.packets import PacketTask, TaskResult

RELIEF_S = 0.02
_IDLE_LOOKS = 5


class UnderWay:
    """The tasks of one packet that have not begun, and the results that were not sent. For two threads.

    ``say(results, tasks)`` sends; it is called under the lock, so that what one thread takes is sent before
    the other one can say that the packet is finished."""

    def __init__(self, number: int, tasks: Sequence[PacketTask], patience_s: float = 0.0) -> None:
        self.number = number
        self.patience_s = patience_s
        self.passing = Passing(tasks) if any(task.passed for task in tasks) else None
        """When tasks of it hand values on."""
        self._lock = threading.Lock()
        self._tasks = deque(tasks)
        self._results: list[TaskResult] = []

    def begin(self) -> PacketTask | None:
        """The next task, which is about to run; None when there is none left."""
        with self._lock:
            while self._tasks:
                task = self._tasks.popleft()
                if self.passing is None or self.passing.can_run(task):
                    return task
            return None

    def add(self, result: TaskResult) -> None:
        with self._lock:
            self._results.append(result)
            if self.passing is not None:
                self.passing.on_result(result)

    def hand_in(self, say: Callable[[list[TaskResult]], None]) -> None:
        """Send the results that were not sent."""
        with self._lock:
            results, self._results = self._results, []
            say(results)

    def end(self, say: Callable[[list[TaskResult], list[int]], None]) -> None:
        """Nothing is left to begin: send the results that were not sent, and hand back what could not run."""
        with self._lock:
            tasks = self.passing.end() if self.passing is not None else []
            say(self._take_results(tasks, to_the_last=True), tasks)

    def relieve(self, say: Callable[[list[TaskResult], list[int]], None]) -> None:
        """Send the results that were not sent, and hand back the tasks that have not begun."""
        with self._lock:
            tasks = [task.task for task in self._tasks]
            self._tasks.clear()
            if self.passing is not None:
                tasks = self.passing.give_back(tasks)
            results = self._take_results(tasks, to_the_last=False)
            if results or tasks:
                say(results, tasks)

    def _take_results(self, given_back: list[int], to_the_last: bool) -> list[TaskResult]:
        """Results to be sent now: not of what is given back; of what was passed on only ``to_the_last``."""
        results, self._results = self._results, []
        if self.passing is None:
            return results
        void = set(given_back)
        results = [result for result in results if not was_passed_on(result) or result.task not in void]
        if not to_the_last:
            self._results = [result for result in results if self.passing.is_pending(result)]
            results = [result for result in results if not self.passing.is_pending(result)]
        return results


class Relief:
    """The thread. ``relieve(packet)`` is called from it, again and again while a packet is overdue.

    It looks every ``RELIEF_S`` while packets come one after the other, which costs them nothing, and sleeps
    when there were none for a while."""

    def __init__(self, relieve: Callable[[UnderWay], None]) -> None:
        self._relieve = relieve
        self._packet: UnderWay | None = None
        self._begun = threading.Event()
        self._asleep = True
        self._thread: threading.Thread | None = None

    def begin(self, packet: UnderWay) -> None:
        """A packet begins."""
        self._packet = packet
        if self._asleep:
            self._wake()

    def end(self) -> None:
        """The packet is done."""
        self._packet = None

    def _wake(self) -> None:
        if self._thread is None:
            # Only now: an executor of long tasks never has a second thread.
            self._thread = threading.Thread(target=self._watch, name="executor-relief", daemon=True)
            self._thread.start()
        self._begun.set()

    def _watch(self) -> None:
        idle, waited_s, last = 0, 0.0, None
        while True:
            if idle >= _IDLE_LOOKS:
                self._asleep = True
                if self._packet is None:
                    self._begun.wait()
                self._begun.clear()
            self._asleep = False
            packet = self._packet
            time.sleep(RELIEF_S)
            idle = idle + 1 if packet is None else 0
            if packet is not None and self._packet is packet:
                waited_s = waited_s + RELIEF_S if packet is last else RELIEF_S
                if waited_s >= packet.patience_s:
                    self._relieve(packet)
            last = packet
