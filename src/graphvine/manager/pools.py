"""Ready tasks that no worker is preferred for, one pool for each kind of request.

A pool holds *segments*, the leaves of a plan in the order in which they should run (last first, so that a
piece of the front is cut off the end of a list), and *loose* tasks, which came back or follow a widely shared
input. A worker takes from a pool only what fits it: its capacity is at least the request, its name or host
is one of those allowed, it has the features, and is not blocked.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator

from graphvine.manager.tasks import KEY_MASK, PlanTable
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import Resources


def fits(request: Resources, capacity: Resources) -> bool:
    """Whether a worker of this capacity can ever run a task of this request."""
    return (
        request.cores <= capacity.cores
        and request.memory_mb <= capacity.memory_mb
        and request.disk_mb <= capacity.disk_mb
        and request.gpus <= capacity.gpus
    )


#: What makes a pool: request, names of workers, features, name of a limit, zygote (see ``readiness``).
PoolKey = tuple[Resources, tuple[str, ...], tuple[str, ...], str, int]
#: That of tasks that ask for nothing.
ORDINARY: PoolKey = (Resources(), (), (), "", 0)

#: A share is made so much longer at most to keep together what the same task needs.
_FAMILY = 32


def _until(worker: Worker) -> float:
    return worker.until or math.inf


class Segment:
    """Keys of leaves of one plan, last first. ``limit`` is the key after the plan's last one."""

    __slots__ = ("keys", "limit", "table")

    def __init__(self, keys: list[int], limit: int, table: PlanTable) -> None:
        self.keys = keys
        self.limit = limit
        self.table = table

    def cut(self, count: int) -> list[int]:
        """Take ``count`` keys off the front, and a few more so that leaves of one consumer stay together."""
        keys = self.keys
        consumers, base = self.table.consumers, self.table.base
        if count < len(keys):
            last = consumers[(keys[-count] & KEY_MASK) - base]
            limit = min(count + _FAMILY, len(keys))
            while last and count < limit and consumers[(keys[-count - 1] & KEY_MASK) - base][:1] == last[:1]:
                count += 1
        share = keys[-count:]
        del keys[-count:]
        return share


class Pool:
    """Ready tasks of one kind of request, and who may take them."""

    def __init__(
        self,
        request: Resources,
        names: tuple[str, ...],
        features: tuple[str, ...] = (),
        limit: str = "",
        zygote: int = 0,
    ) -> None:
        self.key: PoolKey = (request, names, features, limit, zygote)
        self.request = request
        self.names = frozenset(names)
        self.features = features
        #: Its tasks come here only when that limit lets them through (see ``limits``).
        self.limit = limit
        self.zygote = zygote
        self.plain = request == Resources()
        #: Workers that may run tasks of this pool.
        self.members: dict[int, Worker] = {}
        self.cores = 0.0
        #: Members that had room and found nothing to do, in the order in which they ran dry. (Of a plain
        #: dictionary, the first of many is the longer to find the more were taken before.)
        self.hungry: OrderedDict[int, Worker] = OrderedDict()
        #: Living plans with tasks of this kind.
        self.users = 0
        #: Ordered by key of the first task.
        self.segments: list[tuple[int, int, Segment]] = []
        self.loose: list[int] = []
        #: For which no member has the time (see ``lifetimes``).
        self.parked: list[int] = []
        #: Since when there is work here and nobody for it; None when that is not so.
        self.starving_since: float | None = None
        self.warned = False
        #: When the parked ones were last looked at.
        self.reconsidered = 0.0
        self._serial = 0
        self._longest: Worker | None = None

    def admits(self, worker: Worker) -> bool:
        """Whether ``worker`` may run tasks of this pool."""
        hello = worker.hello
        named = not self.names or hello.name in self.names or hello.host in self.names
        able = not self.features or set(self.features) <= set(hello.features)
        return named and able and not worker.blocked and fits(self.request, hello.capacity)

    def join(self, worker: Worker) -> None:
        """A worker that this pool admits is there."""
        self.members[worker.number] = worker
        self._longest = None
        self.cores += worker.cores
        worker.pools.append(self)

    def part(self, worker: Worker) -> None:
        """A member is gone."""
        if self.members.pop(worker.number, None) is not None:
            self.cores = sum(member.cores for member in self.members.values()) if self.members else 0.0
            self.hungry.pop(worker.number, None)
            self._longest = None

    def longest(self) -> Worker | None:
        """The member that stays longest; None when there is none."""
        if self._longest is None:
            self._longest = max(self.members.values(), key=_until, default=None)
        return self._longest

    def add_segment(self, keys: list[int], limit: int, table: PlanTable) -> None:
        """Add leaves of a plan, last first."""
        self._serial += 1
        heapq.heappush(self.segments, (keys[-1], self._serial, Segment(keys, limit, table)))

    def first_key(self) -> int | None:
        """The key of the task that should run first; None when the pool is empty."""
        if self.loose and (not self.segments or self.loose[0] < self.segments[0][0]):
            return self.loose[0]
        return self.segments[0][0] if self.segments else None

    def urgent(self, key: int) -> bool:
        """Whether something here comes before ``key`` by more than the order within one plan."""
        if self.segments:
            first, _, segment = self.segments[0]
            # A plan's tasks may be of many priorities: its limit lies behind the last of them.
            if segment.limit <= key or (first | KEY_MASK) < key:
                return True
        return bool(self.loose) and (self.loose[0] | KEY_MASK) < key

    def cut(self, worker: Worker, at_most: int) -> list[int]:
        """Take a share for ``worker``, last first (Polychronopoulos and Kuck 1987, weighted by cores), of
        about ``at_most`` tasks.

        Not empty unless the pool is."""
        part = worker.cores / (2.0 * self.cores)
        if self.loose and (not self.segments or self.loose[0] < self.segments[0][0]):
            count = min(int(len(self.loose) * part) + 1, at_most)
            return [heapq.heappop(self.loose) for _ in range(min(count, len(self.loose)))][::-1]
        if not self.segments:
            return []
        _, serial, segment = self.segments[0]
        keys = segment.keys
        count = min(int(len(keys) * part) + 1, at_most)
        share = segment.cut(count)
        if keys:
            heapq.heapreplace(self.segments, (keys[-1], serial, segment))
        else:
            heapq.heappop(self.segments)
        return share

    def all_keys(self) -> Iterator[int]:
        """Keys of everything here, in no order."""
        yield from self.parked
        for _, _, segment in self.segments:
            yield from segment.keys
        yield from self.loose

    def __bool__(self) -> bool:
        return bool(self.segments or self.loose)
