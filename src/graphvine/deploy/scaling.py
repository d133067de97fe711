"""How many workers the work asks for: `Scaler`, which is told the demand and gives a number.

Rules:

- Workers are wanted as long as each shortens the work: not more than tasks that could run now need, and not
  more than are needed to finish all known work in ``Policy.finish_s``. What has never been measured counts as
  if it took as long as that.
- Up at once, down slowly: what is let go is what was not needed at any time in the last ``Policy.hold_s``.
- A lull (few tasks could run now, but many wait for them) lets nobody go that the waiting tasks will keep
  busy, for ``Policy.lull_s``. A tail (little is left at all) is no lull.
- Tasks that a worker of this size can never run ask for none of them. They are named (``misfits``).
- What a worker has is often up to the batch system, and not known before one is there. Then the largest that
  was seen counts (``on_workers``): what did not fit there would wait on a thousand more of them, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from graphvine.protocol.messages import Resources, Wanted, WorkerNews, is_light, largest_share


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    minimum: int = 0
    maximum: int
    finish_s: float = 60.0
    """All known work should be finished in so long; then more workers are not worth their start."""
    hold_s: float = 60.0
    lull_s: float = 600.0


class Size(msgspec.Struct, frozen=True):
    """What one worker has. None: not known before it has started."""

    cores: float = 1.0
    memory_mb: float | None = None
    disk_mb: float | None = None
    gpus: float = 0.0
    features: tuple[str, ...] = ()
    tasks: int = 0
    """So many tasks are counted for one worker, whatever they ask for; 0: as many as it can run at once."""


class Need(msgspec.Struct, frozen=True):
    """What all tasks together ask for, in workers of one size."""

    width: float = 0.0
    """So many could work now."""
    work: float = 0.0
    """So many would finish everything in time, could all of it run at once."""
    whole: float = 0.0
    """So many would each have something, could all of it run at once."""

    @property
    def now(self) -> int:
        """Workers that are worth having now."""
        return max(math.ceil(min(self.width, self.work)), int(self.whole > 0))

    @property
    def later(self) -> int:
        """Workers that there will be work for when what waits is ready."""
        return max(math.ceil(min(self.whole, self.work)), int(self.whole > 0))


def slots(request: Resources, size: Size) -> int:
    """How many tasks that ask for this run at once on a worker of this size; 0: none ever does."""
    if is_light(request):
        return max(1, math.floor(size.cores))
    pairs = [(request.memory_mb, size.memory_mb), (request.disk_mb, size.disk_mb), (request.gpus, size.gpus)]
    known = [(asked, there) for asked, there in pairs if asked and there is not None]
    if request.cores > size.cores or any(asked > there for asked, there in known):
        return 0
    capacity = Resources(size.cores, size.memory_mb or 0.0, size.disk_mb or 0.0, size.gpus)
    cores = request.cores or size.cores * largest_share(request, capacity)
    shares = [there / asked for asked, there in known]
    return max(1, math.floor(min([size.cores / max(cores, 0.01), *shares]) + 1e-9))


def misfit(wanted: Wanted, size: Size) -> bool:
    """Whether no worker of this size can ever run such tasks. Those that are bound to certain workers are
    nobody else's business."""
    lacking = not set(wanted.features) <= set(size.features)
    return not wanted.names and (lacking or not slots(wanted.request, size))


def need_of(demand: Iterable[Wanted], size: Size, finish_s: float) -> Need:
    """What these tasks ask for."""
    width = work = whole = 0.0
    for wanted in demand:
        if wanted.names or misfit(wanted, size):
            continue
        at_once = size.tasks or slots(wanted.request, size)
        width += wanted.able / at_once
        work += (wanted.seconds / finish_s + wanted.unmeasured) / at_once
        whole += wanted.left / at_once
    return Need(width, work, whole)


class Scaler:
    """Goes from demand to a number of workers, and remembers what it needs for that."""

    def __init__(self, policy: Policy, size: Size) -> None:
        self.policy = policy
        self._stated = size
        self.size = size
        """As it was stated, and as it was seen where it was not."""
        self._need = Need()
        self._demand: Sequence[Wanted] = ()
        self.misfits: list[Wanted] = []
        """Tasks that these workers can never run."""
        self._fewer_since: float | None = None
        self._peak = 0
        """The most that was wanted since then."""
        self._lull_since: float | None = None
        self._lull_over = False

    def on_demand(self, demand: Sequence[Wanted]) -> None:
        """What is asked for now."""
        self._demand = demand
        self._need = need_of(demand, self.size, self.policy.finish_s)
        self.misfits = [wanted for wanted in demand if misfit(wanted, self.size)]

    def on_workers(self, news: Iterable[WorkerNews]) -> None:
        """What workers of ours have, where that was not stated."""
        before = self.size
        for worker in news:
            memory_mb, disk_mb = self.size.memory_mb, self.size.disk_mb
            if self._stated.memory_mb is None and worker.memory_mb:
                memory_mb = max(memory_mb or 0.0, worker.memory_mb)
            if self._stated.disk_mb is None and worker.disk_mb:
                disk_mb = max(disk_mb or 0.0, worker.disk_mb)
            self.size = msgspec.structs.replace(self.size, memory_mb=memory_mb, disk_mb=disk_mb)
        if self.size != before:
            self.on_demand(self._demand)

    def target(self, have: int, now: float) -> int:
        """How many workers there should be, where ``have`` are there or on their way."""
        wish = self._clamp(self._need.now)
        if wish >= have:
            self._fewer_since = self._lull_since = None
            self._lull_over = False
            return wish
        wish = max(wish, self._kept_through_lull(have, now))
        if wish >= have:
            self._fewer_since = None
            return self._clamp(have)
        if self._fewer_since is None:
            self._fewer_since, self._peak = now, 0
        self._peak = max(self._peak, wish)
        if now < self._fewer_since + self.policy.hold_s:
            return self._clamp(have)
        enough = self._peak
        self._fewer_since, self._peak = now, wish
        return self._clamp(enough)

    def deadline(self) -> float | None:
        """When ``target`` is to be asked again though nothing was heard."""
        times = []
        if self._fewer_since is not None:
            times.append(self._fewer_since + self.policy.hold_s)
        if self._lull_since is not None and not self._lull_over:
            times.append(self._lull_since + self.policy.lull_s)
        return min(times, default=None)

    def _kept_through_lull(self, have: int, now: float) -> int:
        """How many are kept because of what waits."""
        if self._lull_since is None:
            self._lull_since = now
        self._lull_over = now >= self._lull_since + self.policy.lull_s
        if self._lull_over:
            return 0
        return min(have, self._clamp(self._need.later))

    def _clamp(self, count: int) -> int:
        return min(max(count, self.policy.minimum), self.policy.maximum)
