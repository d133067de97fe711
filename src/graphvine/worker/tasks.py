"""Tasks given to this worker, and the order in which they run.

- A ``Job`` waits for ``missing`` inputs, then lies in its lane, then in a packet, then is gone.
- A ``Lane`` holds the ready jobs that the same executors can take, on the same request. Jobs leave it in the
  order in which their orders came, whatever the order in which they became ready.
- Jobs leave a lane's middle lazily: they are marked gone and skipped when they come to the front.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

import msgspec

from graphvine.protocol.messages import Resources, TaskOrder

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


class Lane:
    """Ready jobs of one request whose contexts import the same."""

    __slots__ = ("_arrived", "_woken", "key", "listed", "request", "size", "starting")

    def __init__(self, key: str, request: Resources) -> None:
        self.key = key
        """What its executors must have imported before they were forked ("": nothing)."""
        self.request = request
        self.size = 0
        self.listed = False
        """Whether it is in the core's list of lanes with ready jobs."""
        self.starting = 0
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
