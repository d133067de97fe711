"""Tasks that follow others in one packet, and take their values as they are.

A job whose missing inputs are all made in the packet that is being filled may follow in it (``follow``; part
of the agent's core). A value that is used nowhere else is not kept at all: no pickle, no file. Where some of
those inputs lie in the packet, and the rest is next in the lane, the rest is taken along (``gather``). Rules:

- A task whose time is limited goes alone.
- Only so much is taken along that everybody else who could work finds as many ready jobs.
- Only tasks follow whose duration is known, up to ``Settings.family_s`` in all, and only while everybody else
  who could work has a ready job to begin: at the end of a graph tasks go one by one again.
- What is passed on is told only when the packet ends, and only when all that needed it has run. Otherwise it
  counts as not run, with all that it needs and that was passed on too (``Passing``; in the executor). So when
  an executor dies, nothing is lost of which anybody knew.
- Values are shared, not copied, as in dask's own schedulers within one process and on one worker of
  distributed, where a task that changes its inputs is at fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from heapq import heappop, heappush
from typing import Any

from graphvine.worker.packets import PacketTask, TaskResult
from graphvine.worker.packing import Load
from graphvine.worker.settings import Settings
from graphvine.worker.tasks import QUEUED, Job, Lane


def gather(
    load: Load,
    lane: Lane,
    others: int,
    jobs: Mapping[int, Job],
    waiters: Mapping[int, list[Job]],
    means: Mapping[int, float],
    settings: Settings,
) -> None:
    """Add to a load what comes next in its lane, when that is all that is missing for a job that needs the
    last of the load, and nobody else needs that. ``others``: how many executors might want as much."""
    last = load.jobs[-1].order
    waiting = waiters.get(last.task, ()) if last.uses == 1 else ()
    if len(waiting) != 1 or waiting[0].packet != QUEUED or waiting[0].lane is not lane:
        return
    join = waiting[0].order
    if waiting[0].max_s or len(join.inputs) > settings.packet_tasks - len(load.jobs):
        return
    rest = {file for file in join.inputs if file in jobs} - {job.order.task for job in load.jobs}
    if not rest or lane.size - len(rest) < others * len(load.jobs):
        return
    expected = _expected_s((*(jobs[task] for task in rest), waiting[0]), means, settings)
    if load.expected_s + expected > settings.join_s:
        return
    taken = _take_next(lane, rest)
    load.jobs += taken
    load.expected_s += _expected_s(taken, means, settings)
    load.long = load.long or load.expected_s >= settings.ahead_s


def _expected_s(jobs: Iterable[Job], means: Mapping[int, float], settings: Settings) -> float:
    never = float("inf")
    return sum(means.get(job.order.category, never) + settings.task_overhead_s for job in jobs)


def _take_next(lane: Lane, wanted: Set[int]) -> list[Job]:
    """All the wanted tasks, where they are next in the lane in some order; else none."""
    taken: list[Job] = []
    while len(taken) < len(wanted):
        job = lane.front()
        if job is None or job.order.task not in wanted or job.max_s:
            for other in taken:
                lane.wake(other)
            return []
        taken.append(lane.take())
    return taken


def follow(
    load: Load, lane: Lane, waiters: dict[int, list[Job]], means: dict[int, float], settings: Settings
) -> None:
    """Add to a load of one lane what can follow in it."""
    jobs, expected = load.jobs, load.expected_s
    heads = len(jobs)
    missing: dict[int, int] = {}
    ready: list[tuple[int, Job]] = []
    for job in jobs:
        _count_off(job.order.task, lane, waiters, missing, ready)
    while ready and len(jobs) < settings.packet_tasks:
        _, job = heappop(ready)
        mean = means.get(job.order.category)
        if mean is None or expected + mean > settings.family_s:
            continue
        jobs.append(job)
        expected += mean + settings.task_overhead_s
        _count_off(job.order.task, lane, waiters, missing, ready)
    if len(jobs) > heads:
        load.followers = len(jobs) - heads
        load.expected_s = expected
        load.long = load.long or expected >= settings.ahead_s
        _stop_waiting(jobs, heads, waiters)


def _count_off(
    task: int,
    lane: Lane,
    waiters: dict[int, list[Job]],
    missing: dict[int, int],
    ready: list[tuple[int, Job]],
) -> None:
    """What waits for ``task`` will have one input more."""
    for job in waiters.get(task, ()):
        if job.packet == QUEUED and job.lane is lane and not job.max_s:
            number = job.order.task
            missing[number] = left = missing.get(number, job.missing) - 1
            if not left:
                heappush(ready, (job.sequence, job))


def _stop_waiting(jobs: list[Job], heads: int, waiters: dict[int, list[Job]]) -> None:
    followers = {job.order.task for job in jobs[heads:]}
    for job in jobs:
        task = job.order.task
        waiting = waiters.get(task)
        if waiting is not None:
            waiters[task] = [other for other in waiting if other.order.task not in followers]
            if not waiters[task]:
                del waiters[task]


def mark_passed(tasks: Sequence[PacketTask], jobs: Sequence[Job]) -> None:
    """Note in the tasks of a packet how often each one's value is passed on in it, and whether it is needed
    elsewhere too."""
    uses: dict[int, int] = {}
    for task in tasks:
        for given in task.inputs:
            if type(given) is int:
                uses[given] = uses.get(given, 0) + 1
    for task, job in zip(tasks, jobs, strict=True):
        task.passed = uses.get(task.task, 0)
        task.kept = not task.passed or task.passed != job.order.uses


class Passing:
    """The values that the tasks of one packet hand each other. Not for two threads at once, but for
    ``values``, which is the running task's."""

    def __init__(self, tasks: Iterable[PacketTask]) -> None:
        self.values: dict[int, Any] = {}
        self._inputs = {task.task: [given for given in task.inputs if type(given) is int] for task in tasks}
        self._left = {task.task: task.passed for task in tasks if task.passed}
        self._passed: set[int] = set()
        """Tasks that ran, and whose values were not kept."""
        self._skipped: list[int] = []

    def can_run(self, task: PacketTask) -> bool:
        """Whether the values are there that a task is to be passed; if not, it is not run in this packet."""
        if all(file in self.values for file in self._inputs[task.task]):
            return True
        self._skipped.append(task.task)
        return False

    def on_result(self, result: TaskResult) -> None:
        """A task is over."""
        if result.kind:
            return
        if was_passed_on(result):
            self._passed.add(result.task)
        for file in self._inputs[result.task]:
            self._left[file] -= 1
            if not self._left[file]:
                del self.values[file]

    def end(self) -> list[int]:
        """All has run that could. What did not, and what ran for nothing."""
        unused = [task for task in self._passed if self._left[task]]
        return self.give_back(self._skipped + unused)

    def give_back(self, tasks: Iterable[int]) -> list[int]:
        """These tasks will run elsewhere, and before them what they need of what was only passed on."""
        found = dict.fromkeys(tasks)
        stack = list(found)
        while stack:
            for file in self._inputs[stack.pop()]:
                if file in self._passed and file not in found:
                    found[file] = None
                    stack.append(file)
        self._passed.difference_update(found)
        return list(found)

    def is_pending(self, result: TaskResult) -> bool:
        """Whether it is not certain yet that a result will count."""
        return result.task in self._passed


def was_passed_on(result: TaskResult) -> bool:
    """Whether a task ran and its value was not kept (a file is never empty)."""
    return not result.kind and result.value is None and not result.size
