"""Work that no present worker can run: a warning after a while, failure after a long one.

With no worker at all, or fewer than the user waits for, nothing ever fails: they may take an hour to come.
While there are some, and none of them can ever run a task, its plan fails after ``unrunnable_s``, saying what
the task asks and what there is.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphvine.manager import lifetimes, separate
from graphvine.manager.pools import Pool
from graphvine.manager.state import State
from graphvine.manager.tasks import KEY_MASK, READY, PlanTable
from graphvine.protocol.messages import Resources

#: What a task asks for that states nothing.
NOTHING = Resources(0)


def look(state: State) -> None:
    """Note which pools have work and nobody for it. Costs a look at each kind of request there is."""
    for pool in state.pools.values():
        if not pool.parked and (pool.members or not pool):
            if pool.starving_since is not None:
                pool.starving_since = None
                pool.warned = False
        elif pool.starving_since is None:
            pool.starving_since = state.now


def on_first_worker(state: State) -> None:
    """Until now there was no worker at all: patience begins anew."""
    for pool in state.pools.values():
        if pool.starving_since is not None:
            pool.starving_since = state.now
            pool.warned = False


def deadline(state: State) -> float | None:
    """When ``on_time`` has next to do something here."""
    times = [time for pool in state.pools.values() if (time := pool_deadline(state, pool)) is not None]
    return min(times, default=None)


def pool_deadline(state: State, pool: Pool) -> float | None:
    """When something is next due for a pool."""
    if pool.starving_since is None:
        return None
    if not pool.warned:
        settings = state.settings
        patience_s = settings.patience_s if state.has_staying() else settings.first_worker_s
        return pool.starving_since + patience_s
    if pool.parked:
        return pool.reconsidered + state.settings.reconsider_s
    if state.awaited_workers or not state.has_staying():
        return None
    return pool.starving_since + state.settings.unrunnable_s


def on_time(state: State) -> None:
    """Warn about what starves, and give up what starved for too long."""
    for pool in list(state.pools.values()):
        due = pool_deadline(state, pool)
        if due is None or state.now < due:
            continue
        first = next(tasks_in(state, pool), None)
        if first is None:
            pool.starving_since = None
            pool.parked = []
        elif not pool.warned:
            pool.warned = True
            pool.reconsidered = state.now
            state.note("warning", describe(state, pool, *first))
        elif pool.parked:
            pool.reconsidered = state.now
            lifetimes.reconsider(state, pool)
        else:
            give_up(state, pool)


def give_up(state: State, pool: Pool) -> None:
    """Fail every plan that has a task in a pool for which there is nobody."""
    for table, index in list(tasks_in(state, pool)):
        if table.base in state.plans:
            separate.fail(state, table, index, "unrunnable", describe(state, pool, table, index))
    pool.starving_since = None
    pool.warned = False


def tasks_in(state: State, pool: Pool) -> Iterator[tuple[PlanTable, int]]:
    """Ready tasks that lie in a pool."""
    for key in pool.all_keys():
        table = state.table_of(key & KEY_MASK)
        if table is not None and table.state[(key & KEY_MASK) - table.base] == READY:
            yield table, (key & KEY_MASK) - table.base


def describe(state: State, pool: Pool, table: PlanTable, index: int) -> str:
    """What a task asks for and what there is."""
    key = table.plan.keys[index]
    if not state.has_staying():
        advice = state.settings.how_to_join
        none = "every worker that is there is about to leave" if state.workers else "no worker has joined"
        return f"{none}; task {key!r} and others wait" + (advice and f"; {advice}")
    if state.awaited_workers:
        there = f"{len(state.workers)} of the {state.awaited_workers} workers that were asked for are there"
        return f"task {key!r} and others wait: {there}"
    wish = asked(pool.request)
    if pool.names:
        wish += f" on a worker or host named {' or '.join(sorted(pool.names))}"
    if pool.features:
        wish += f" on a worker started with the feature {' and '.join(pool.features)}"
    if pool.parked and pool.members:
        return lifetimes.describe(state, pool, table, index)
    if all(worker.blocked for worker in state.workers.values()):
        return f"task {key!r} and others wait: every worker that is there is blocked"
    return f"task {key!r} asks for {wish}; no worker present can run it: the largest has {largest(state)}"


def asked(request: Resources) -> str:
    """A request in words."""
    parts = [f"{request.cores:g} cores"] if request.cores or request == NOTHING else []
    parts += [f"{request.memory_mb:g} MB of memory"] if request.memory_mb else []
    parts += [f"{request.disk_mb:g} MB of disk"] if request.disk_mb else []
    parts += [f"{request.gpus:g} gpus"] if request.gpus else []
    return ", ".join(parts)


def largest(state: State) -> str:
    """The most that any worker has of each resource, in words."""
    capacities = [worker.hello.capacity for worker in state.workers.values()]
    return asked(
        Resources(
            max(capacity.cores for capacity in capacities),
            max(capacity.memory_mb for capacity in capacities),
            max(capacity.disk_mb for capacity in capacities),
            max(capacity.gpus for capacity in capacities),
        )
    )
