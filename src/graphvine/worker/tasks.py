"""Tasks given to this worker, and the order in which they run.

- A ``Job`` waits for ``missing`` inputs, then lies in its lane, then in a packet, then is gone.
- A ``Lane`` holds the ready jobs that the same executors can take, on the same request. Jobs leave it in the
  order in which their orders came, whatever the order in which they became ready.
- Jobs leave a lane's middle lazily: they are marked gone and skipped when they come to the front.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush

import msgspec

from graphvine.protocol.messages import Resources, TaskOrder, is_light

#: Values of ``Job.packet`` that are no packet's number.
QUEUED = 0
GONE = -1
CANCELLED = -2
"""Gone, but an executor may be at it."""


class Job(msgspec.Struct, gc=False):
    """One order on its way. ``packet``: number of the packet it is in, QUEUED or GONE."""

    order: TaskOrder
    lane: Lane
    sequence: int
    missing: int = 0
    packet: int = QUEUED
    max_s: float = 0.0
    """How long it may run (0: for ever)."""


class Lane:
    """Ready jobs of one request whose contexts have one zygote and import the same."""

    __slots__ = ("_arrived", "_woken", "held", "key", "light", "listed", "request", "size", "zygote")

    def __init__(self, key: str, request: Resources, zygote: str = "") -> None:
        self.key = key
        """What its executors must have imported before they were forked ("": nothing)."""
        self.zygote = zygote
        """Key of the zygote from which its executors are forked."""
        self.held = False
        """Nobody runs its jobs: its zygote is not ready."""
        self.request = request
        self.light = is_light(request)
        """Its jobs take nothing from others (see ``crew``)."""
        self.size = 0
        self.listed = False
        """Whether it is in ``Queue.ready``, or in ``Queue.held``."""
        # Most jobs are ready when they come, and so are in order by themselves.
        self._arrived: deque[Job] = deque()
        self._woken: list[tuple[int, Job]] = []

    def arrive(self, job: Job) -> None:
        """A job that came later than all before is ready."""
        self._arrived.append(job)
        self.size += 1

    def wake(self, job: Job) -> None:
        """A job that came earlier is ready (again)."""
        heappush(self._woken, (job.sequence, job))
        self.size += 1

    def discard(self, job: Job) -> None:
        """A ready job of this lane is no longer wanted."""
        job.packet = GONE
        self.size -= 1

    def front(self) -> Job | None:
        """The job to run next; it stays in the lane."""
        arrived, woken = self._arrived, self._woken
        while arrived and arrived[0].packet == GONE:
            arrived.popleft()
        while woken and woken[0][1].packet == GONE:
            heappop(woken)
        if woken and (not arrived or woken[0][0] < arrived[0].sequence):
            return woken[0][1]
        return arrived[0] if arrived else None

    def take(self) -> Job:
        """Remove and return the job ``front`` just returned."""
        arrived, woken = self._arrived, self._woken
        self.size -= 1
        if woken and (not arrived or woken[0][0] < arrived[0].sequence):
            return heappop(woken)[1]
        return arrived.popleft()


class Queue:
    """All jobs of this worker, and the lanes in which the ready ones lie."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.ready: list[Lane] = []
        """Lanes that have ready jobs (and some that had, until ``tidy``)."""
        self.held: list[Lane] = []
        """The like, of zygotes that are not ready."""
        self._lanes: dict[tuple[str, Resources, str], Lane] = {}

    def lane(self, key: str, request: Resources, zygote: str = "") -> Lane:
        lane = self._lanes.get((key, request, zygote))
        if lane is None:
            lane = self._lanes[key, request, zygote] = Lane(key, request, zygote)
        return lane

    def list(self, lane: Lane) -> None:
        """A lane that had no ready jobs has some."""
        lane.listed = True
        (self.held if lane.held else self.ready).append(lane)

    def hold(self, zygote: str, held: bool) -> None:
        """The lanes of a zygote are held back, or not any more."""
        for lane in self._lanes.values():
            if lane.zygote == zygote:
                lane.held = held
        listed = self.ready + self.held
        self.ready = [lane for lane in listed if not lane.held]
        self.held = [lane for lane in listed if lane.held]

    def forget_lanes(self, zygote: str) -> None:
        """A zygote is not needed any more, and nor are its lanes, which are empty."""
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.zygote != zygote}
        self.ready = [lane for lane in self.ready if lane.zygote != zygote]
        self.held = [lane for lane in self.held if lane.zygote != zygote]

    def drain(self, lane: Lane) -> Iterator[Job]:
        """Take the jobs out of a lane; they are gone."""
        while lane.front() is not None:
            job = lane.take()
            del self.jobs[job.order.task]
            job.packet = GONE
            yield job

    def wake(self, jobs: Iterable[Job]) -> None:
        """These jobs have all their inputs (those that are gone are passed over)."""
        for job in jobs:
            if job.packet == QUEUED:
                lane = job.lane
                job.missing = 0
                lane.wake(job)
                if not lane.listed:
                    self.list(lane)

    def forget(self, task: int) -> None:
        """A task is no longer here, wherever it was."""
        job = self.jobs.pop(task)
        if job.packet == QUEUED and job.missing == 0:
            job.lane.discard(job)
        job.packet = GONE

    def tidy(self) -> None:
        """Take the empty lanes out of ``ready``."""
        if all(lane.size for lane in self.ready):
            return
        for lane in self.ready:
            lane.listed = lane.size > 0
        self.ready = [lane for lane in self.ready if lane.listed]

    def first_lane(self, but: Sequence[Lane] = ()) -> Lane | None:
        """The lane whose front job came first, of those that are not in ``but``."""
        best, least = None, 0
        for lane in self.ready:
            job = lane.front()
            if job is not None and (best is None or job.sequence < least) and lane not in but:
                best, least = lane, job.sequence
        return best

    def has_ready(self) -> bool:
        return any(lane.size for lane in self.ready)
