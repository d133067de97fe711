"""Which task is where, and which of those that are over is returned next. Pure; its owner locks it.

A task is *ready* once it was submitted, *running* once it was handed to the engine, *retrieved* once it is
over and all its outputs are here, and gone when it is returned. Those that are over are returned in that
order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

import msgspec


class Entry(Protocol):
    """What the ledger knows of a task (see ``task.Task``)."""

    _id: int
    _state: str

    @property
    def id(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def tag(self) -> str | None: ...
    @property
    def category(self) -> str: ...
    @property
    def result(self) -> str: ...
    def successful(self) -> bool: ...
    def get_metric(self, name: str) -> int: ...
    def forget(self) -> None: ...


T = TypeVar("T", bound=Entry)


class Totals(msgspec.Struct):
    """Counts since the beginning."""

    submitted: int = 0
    dispatched: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    exhausted: int = 0
    execute_us: int = 0
    """Time that tasks ran, all together."""


class Ledger(Generic[T]):
    """The tasks that were submitted and not returned."""

    def __init__(self) -> None:
        self._tasks: dict[int, T] = {}
        self._over: OrderedDict[int, T] = OrderedDict()
        self._next = 1
        self._states: dict[str, dict[str, int]] = {}
        """Tasks by category and state."""
        self.totals: dict[str, Totals] = {}
        """By category."""

    def submit(self, task: T) -> int:
        """Raises ValueError for one that is here already."""
        if self._tasks.get(task.id) is task:
            raise ValueError(f"task {task.id} was submitted, and is not over")
        task.forget()
        task._id, self._next = self._next, self._next + 1
        self._tasks[task.id] = task
        self._total(task).submitted += 1
        self._change(task, "ready")
        return task.id

    def begin(self, task: T) -> None:
        """It was handed over."""
        self._total(task).dispatched += 1
        self._change(task, "running")

    def end(self, task: T) -> bool:
        """It is over, and has its report; False if that was so before, or it is unknown."""
        if self._tasks.get(task.id) is not task or task.id in self._over:
            return False
        self._over[task.id] = task
        self._change(task, "retrieved")
        total = self._total(task)
        total.done += 1
        total.cancelled += task.result == "cancelled"
        total.failed += not task.successful()
        total.exhausted += task.result == "max retries"
        total.execute_us += task.get_metric("time_workers_execute_all")
        return True

    def take(self, tag: str | None = None, task_id: int | None = None) -> T | None:
        """The next that is over (of that tag, of that number), which is then forgotten."""
        task = self._find(tag, task_id)
        if task is not None:
            del self._over[task.id]
            del self._tasks[task.id]
            self._change(task, "done")
        return task

    def _find(self, tag: str | None, task_id: int | None) -> T | None:
        if task_id is not None:
            return self._over.get(task_id)
        if tag is None:
            return next(iter(self._over.values()), None)
        return next((task for task in self._over.values() if task.tag == tag), None)

    def can_come(self, tag: str | None = None, task_id: int | None = None) -> bool:
        """Whether waiting for such a task makes sense."""
        if task_id is not None:
            return task_id in self._tasks
        if tag is None:
            return bool(self._tasks)
        return any(task.tag == tag for task in self._tasks.values())

    def get(self, task_id: int) -> T | None:
        return self._tasks.get(task_id)

    def unfinished(self) -> list[T]:
        """In the order of submission."""
        return [task for number, task in self._tasks.items() if number not in self._over]

    def in_order(self) -> Iterator[T]:
        """As ``unfinished``, one after the other."""
        return (task for number, task in self._tasks.items() if number not in self._over)

    def count_unfinished(self) -> int:
        return len(self._tasks) - len(self._over)

    def all(self) -> list[T]:
        return list(self._tasks.values())

    def empty(self) -> bool:
        """May be asked without the lock."""
        return not self._tasks

    def count(self, state: str, category: str | None = None) -> int:
        """Tasks in a state."""
        counted = self._states.values() if category is None else [self._states.get(category, {})]
        return sum(states.get(state, 0) for states in counted)

    def set_next_id(self, number: int) -> int:
        """The next task's number is at least this; what it will be."""
        self._next = max(self._next, int(number))
        return self._next

    def categories(self) -> Iterable[str]:
        return self.totals

    def _total(self, task: T) -> Totals:
        return self.totals.setdefault(task.category, Totals())

    def _change(self, task: T, state: str) -> None:
        states = self._states.get(task.category)
        if states is None:
            states = self._states[task.category] = dict.fromkeys(("ready", "running", "retrieved"), 0)
        if task.state in states:
            states[task.state] -= 1
        task._state = state
        if state in states:
            states[state] += 1
