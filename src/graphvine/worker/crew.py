"""The executors of a worker as its core sees them: who is free, for what, and what each has been given.

- A context with imports has executors of its own: they were forked after the zygote had imported them. Jobs
  of contexts without imports can run in any executor.
- A busy executor occupies the request of the lane it works for, once, whatever number of packets it holds:
  it runs one task at a time. Free resources are never exceeded; a request larger than the whole worker is
  cut down to it.
- Light requests (``messages.is_light``) occupy nothing of this: beside all else there may be as many of them
  as the worker has cores, and executors that are busy with them take nobody's place.
- An executor that is starting occupies nothing, but counts against the number of executors.
- Requests for gpus have executors of their own, which own devices (see ``devices``) and run nothing else.
  They take nobody's place: there are as many as there are devices for.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from graphvine.protocol.messages import Resources, cores_of, is_light
from graphvine.worker.devices import Devices
from graphvine.worker.tasks import Job, Lane

#: Fractions of cores are sums of floats.
_SLACK = 1e-9
#: Executors of several zygotes may be idle at the same time, so that work that alternates between them finds
#: some; so many times the number that can be busy.
_IDLE_CREWS = 2
#: Requests below a quarter of a core do not get more executors than that.
_SMALLEST_SHARE = 0.25


class Bundle(msgspec.Struct):
    """A packet on its way: its jobs (those with this number in ``job.packet`` are not done yet), when it
    was given away, how long it should take, what it told its executor, what stored files it reads."""

    number: int
    jobs: list[Job]
    expected_s: float
    long: bool
    sent_at: float
    blobs: list[int]
    contexts: list[int]
    files: list[int]


class Executor:
    """One executor process."""

    __slots__ = (
        "blobs",
        "bundles",
        "contexts",
        "devices",
        "doomed_at",
        "expires_at",
        "gpus",
        "key",
        "lane",
        "number",
        "ready",
        "stolen",
        "taking",
        "zygote",
    )

    def __init__(
        self, number: int, key: str, zygote: str, gpus: float = 0.0, devices: tuple[int, ...] = ()
    ) -> None:
        self.number = number
        self.key = key
        self.zygote = zygote
        self.gpus = gpus
        """It runs what asks for so many, on its ``devices``."""
        self.devices = devices
        self.lane: Lane | None = None
        """Whose request it occupies while it holds packets."""
        self.ready = False
        self.bundles: deque[Bundle] = deque()
        self.blobs: set[int] = set()
        """What it was told by packets that it has finished; ``contexts`` too."""
        self.contexts: set[int] = set()
        self.doomed_at: float | None = None
        """When to stop it: it runs a cancelled task."""
        self.expires_at: float | None = None
        """When the task it runs has taken longer than it may."""
        self.stolen = 0
        """The packet at the head when its unread packets were last taken back."""
        self.taking = False
        """Its unread packets are being taken back: what it knows, and has, is not certain until they are."""

    @property
    def idle(self) -> bool:
        return self.ready and not self.bundles

    @property
    def at_light_work(self) -> bool:
        return self.lane is not None and self.lane.light

    def serves(self, lane: Lane) -> bool:
        """Whether it can run the lane's jobs at all."""
        same = self.zygote == lane.zygote and self.gpus == lane.request.gpus
        return same and lane.key in ("", self.key)


def cut_down(request: Resources, capacity: Resources) -> Resources:
    """What is set aside for ``request``: nothing of what others share for a light one, which stays as it is;
    else unstated cores follow the largest share that is stated of anything else, unstated memory is an equal
    share, nothing exceeds the worker."""
    if is_light(request):
        return request
    cores = min(cores_of(request, capacity), capacity.cores)
    share = capacity.memory_mb * cores / capacity.cores if capacity.cores else 0.0
    memory = min(request.memory_mb or share, capacity.memory_mb)
    return Resources(cores, memory, min(request.disk_mb, capacity.disk_mb), min(request.gpus, capacity.gpus))


class Crew:
    """All executors, and the resources that are free."""

    def __init__(self, capacity: Resources) -> None:
        self.executors: dict[int, Executor] = {}
        self.capacity = capacity
        self._cores = capacity.cores
        self._memory_mb = capacity.memory_mb
        self._disk_mb = capacity.disk_mb
        self._gpus = capacity.gpus
        self.devices = Devices(math.ceil(capacity.gpus - _SLACK))
        self._light = self._cores_at_least_one()

    def _cores_at_least_one(self) -> int:
        return max(1, math.ceil(self.capacity.cores))

    def add(self, number: int, key: str, zygote: str = "", gpus: float = 0.0) -> Executor:
        """``gpus``: what it is started for; there is a place for it."""
        devices = self.devices.take(number, gpus)
        executor = self.executors[number] = Executor(number, key, zygote, gpus, devices)
        return executor

    def remove(self, number: int) -> None:
        """It is being ended, or gone (then ``devices`` are told so, too)."""
        del self.executors[number]
        self.devices.let_go(number)

    # -- resources -------------------------------------------------------------------------------------

    def fits(self, request: Resources, times: int = 1) -> bool:
        """Whether ``times`` more executors could work on ``request`` at once."""
        if is_light(request):
            return times <= self._light
        return (
            request.cores * times <= self._cores + _SLACK
            and request.memory_mb * times <= self._memory_mb * (1 + _SLACK) + _SLACK
            and request.disk_mb * times <= self._disk_mb + _SLACK
            and request.gpus * times <= self._gpus + _SLACK
        )

    def occupy(self, executor: Executor, lane: Lane) -> None:
        """An idle executor begins to work for ``lane``."""
        executor.lane = lane
        self._change(lane.request, -1)

    def vacate(self, executor: Executor) -> None:
        """It holds no packets any more."""
        if executor.lane is not None:
            self._change(executor.lane.request, 1)
            executor.lane = None
        executor.expires_at = None

    def _change(self, request: Resources, sign: int) -> None:
        if is_light(request):
            self._light += sign
            return
        self._cores += sign * request.cores
        self._memory_mb += sign * request.memory_mb
        self._disk_mb += sign * request.disk_mb
        self._gpus += sign * request.gpus

    # -- choosing --------------------------------------------------------------------------------------

    def limit(self, request: Resources) -> int:
        """How many executors there may be while jobs of this request are ready."""
        cores = self._cores_at_least_one()
        if request.cores >= 1:
            return cores
        return math.ceil(cores / max(request.cores, _SMALLEST_SHARE))

    def most_at_once(self, request: Resources) -> int:
        """How many executors could work on a request at once if nothing else was done."""
        room = int(self.capacity.cores / request.cores + _SLACK) if request.cores else 1
        if request.gpus:
            room = min(room, int(self.capacity.gpus / request.gpus + _SLACK))
        return max(1, min(self.limit(request), room))

    def idle_for(self, lane: Lane) -> Executor | None:
        """An idle executor for a lane's jobs; one without imports the lane does not need, if there is one."""
        found = None
        for executor in self.executors.values():
            if not executor.ready or executor.bundles or executor.gpus != lane.request.gpus:
                continue
            if executor.zygote == lane.zygote:
                if executor.key == lane.key:
                    return executor
                if not lane.key:
                    found = executor
        return found

    def has_place(self, lane: Lane) -> bool:
        """Whether there may be one more executor for a lane's jobs."""
        if lane.request.gpus:
            return self.devices.can_take(lane.request.gpus)
        limit = self.limit(lane.request)
        counted = self._counted()
        siblings = sum(1 for executor in counted if executor.zygote == lane.zygote)
        return siblings < limit and len(counted) < limit * _IDLE_CREWS

    def idle_stranger(self, lane: Lane) -> Executor | None:
        """An idle executor that cannot run this lane's jobs, and without which there is a place for one that
        can (or will be: where ``devices`` come free). Of another zygote's the first: it is the oldest."""
        if lane.request.gpus:
            among = [executor for executor in self.executors.values() if executor.devices]
        else:
            counted = self._counted()
            siblings = [executor for executor in counted if executor.zygote == lane.zygote]
            among = siblings if len(siblings) >= self.limit(lane.request) else counted
        for executor in among:
            if executor.idle and not executor.serves(lane):
                return executor
        return None

    def _counted(self) -> list[Executor]:
        """Those that take a place."""
        return [one for one in self.executors.values() if not one.at_light_work and not one.devices]

    def followers(self, lane: Lane, at_most: int) -> list[Executor]:
        """Executors at work for this lane that can take one more packet, the least loaded first."""
        found = [
            executor
            for executor in self.executors.values()
            if executor.lane is lane
            and len(executor.bundles) < at_most
            and executor.doomed_at is None
            and not executor.taking
            and not executor.bundles[-1].long
            # One whose packets were taken from it is late already.
            and executor.stolen != executor.bundles[0].number
        ]
        found.sort(key=lambda executor: executor.bundles[-1].expected_s)
        return found

    def count_starting(self, lane: Lane) -> int:
        return sum(1 for e in self.executors.values() if not e.ready and e.serves(lane))

    def count_idle(self) -> int:
        return sum(1 for e in self.executors.values() if e.idle)

    def count_running(self) -> int:
        return sum(1 for e in self.executors.values() if e.bundles)
