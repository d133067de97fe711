"""A packet under way, and who looks after it when one of its tasks takes unexpectedly long.

Tasks that are expected to be short travel several to a packet. When one of them is not short after all, the
results before it would wait for it, and so would the tasks after it, while other executors are idle. A thread
of the executor therefore looks at every packet of several tasks that is not done after ``RELIEF_S``: it sends
the results that are there, and hands back what has not begun. The thread sleeps while packets are short. (A
task that never lets go of the interpreter can't be relieved.)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from graphvine.worker.packets import PacketTask, TaskResult

RELIEF_S = 0.02


class UnderWay:
    """The tasks of one packet that have not begun, and the results that were not sent. For two threads."""

    def __init__(self, number: int, tasks: Sequence[PacketTask]) -> None:
        self.number = number
        self._lock = threading.Lock()
        self._tasks = deque(tasks)
        self._results: list[TaskResult] = []

    def begin(self) -> PacketTask | None:
        """The next task, which is about to run; None when there is none left."""
        with self._lock:
            return self._tasks.popleft() if self._tasks else None

    def add(self, result: TaskResult) -> None:
        with self._lock:
            self._results.append(result)

    def take_results(self) -> list[TaskResult]:
        """The results that nobody has taken."""
        with self._lock:
            results, self._results = self._results, []
        return results

    def take_tasks(self) -> list[int]:
        """The tasks that have not begun, which now never will here."""
        with self._lock:
            tasks = [task.task for task in self._tasks]
            self._tasks.clear()
        return tasks


class Relief:
    """The thread. ``relieve(packet)`` is called from it, again and again while a packet is overdue."""

    def __init__(self, relieve: Callable[[UnderWay], None]) -> None:
        self._relieve = relieve
        self._packet: UnderWay | None = None
        self._begun = threading.Event()
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, packet: UnderWay) -> Relief:
        """``with relief(packet):`` around the running of it."""
        self._packet = packet
        return self

    def __enter__(self) -> None:
        self._working.acquire()
        if self._thread is None:
            # Only now: an executor of long tasks never has a second thread.
            self._thread = threading.Thread(target=self._watch, name="executor-relief", daemon=True)
            self._thread.start()
        self._begun.set()

    def __exit__(self, *_: object) -> None:
        self._packet = None
        self._working.release()

    def _watch(self) -> None:
        while True:
            self._begun.wait()
            self._begun.clear()
            while not self._working.acquire(timeout=RELIEF_S):
                packet = self._packet
                if packet is not None:
                    self._relieve(packet)
            self._working.release()
