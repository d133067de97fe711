"""What the work asks for, for those who start workers: told when it changes, at most so often.

Rules:

- Nothing is counted while nobody listens (``State.watch`` is None).
- Whoever moves tasks from state to state says of which plan (``State.touch``). Only those plans are counted
  anew, when it is time to tell, and the totals are changed by the difference. Counting one is a look at its
  states at the speed of C where all its tasks ask for the same.
- Tasks *left* are those not done. *Able* are those of them that are ready, or given to a worker with all
  their inputs: so many could run at once. Of those with a named limit no more are able than it lets through.
- A worker is news when it joins, leaves, or goes from having work to having none, or back.
- What was told last stands until something else is told; what did not change is not told again.
"""

from __future__ import annotations

from collections import Counter

from graphvine.manager.instructions import Asked
from graphvine.manager.placement import pool_of
from graphvine.manager.pools import PoolKey
from graphvine.manager.state import State
from graphvine.manager.tasks import DISPATCHED, DONE, READY, PlanTable
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import Demand, Wanted, WorkerNews

#: Of more tasks of one plan that workers have, all count as able to run.
_MANY = 10_000


class Count:
    """Tasks of one kind: how many are able to run, and those that are left, by category of the manager."""

    __slots__ = ("able", "left")

    def __init__(self) -> None:
        self.able = 0
        self.left: Counter[int] = Counter()

    def add(self, other: Count, sign: int) -> None:
        """Add, or take away, what another counted."""
        self.able += sign * other.able
        for category, count in other.left.items():
            self.left[category] += sign * count
            if not self.left[category]:
                del self.left[category]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Count) and (self.able, self.left) == (other.able, other.left)

    __hash__ = None  # type: ignore[assignment]


class Watch:
    """What is counted while somebody listens."""

    def __init__(self) -> None:
        #: Of each plan that has tasks left, by its number; and of all.
        self.counts: dict[int, dict[PoolKey, Count]] = {}
        self.totals: dict[PoolKey, Count] = {}
        #: Workers that have nothing to do, and since when; and those that are news.
        self.idle: dict[int, float] = {}
        self.news: dict[int, WorkerNews | None] = {}
        self.told: list[Wanted] = []
        #: Something was counted anew since that was told.
        self.changed = False
        #: When was last looked whether there is something to tell.
        self.looked_at = float("-inf")


def watch(state: State) -> Demand:
    """Begin to count, if nobody did. Returns all there is to know now."""
    if state.watch is None:
        state.watch = Watch()
        state.touched = {}
        for table in state.plans.values():
            state.touch(table)
        for worker in state.workers.values():
            note_worker(state, worker)
    look(state)
    return Demand(wanted(state), [news_of(state, worker) for worker in state.workers.values()])


def unwatch(state: State) -> None:
    """Nobody listens any more."""
    state.watch = state.touched = None


# -- what happens ---------------------------------------------------------------------------------------


def note_worker(state: State, worker: Worker) -> None:
    """Something was said to a worker, or by it: perhaps it has work now, or none any more."""
    seen = state.watch
    if seen is None:
        return
    number = worker.number
    if not worker.queue:
        if number not in seen.idle:
            seen.idle[number] = state.now
            seen.news[number] = None
    elif seen.idle.pop(number, None) is not None:
        seen.news[number] = None


def note_joined(state: State, worker: Worker) -> None:
    """A worker is there."""
    if state.watch is not None:
        state.watch.news[worker.number] = None
        note_worker(state, worker)


def note_lost(state: State, worker: Worker) -> None:
    """A worker is gone."""
    if state.watch is not None:
        state.watch.idle.pop(worker.number, None)
        hello = worker.hello
        state.watch.news[worker.number] = WorkerNews(
            worker.number, hello.job, hello.name, hello.host, worker.cores, 0.0, gone=True
        )


def deadline(state: State) -> float | None:
    """When there is next something to tell."""
    seen = state.watch
    if seen is None or not (state.touched or seen.changed or seen.news):
        return None
    return seen.looked_at + state.settings.demand_s


def tell(state: State) -> None:
    """Tell what changed, if it is time."""
    due = deadline(state)
    seen = state.watch
    if seen is None or due is None or state.now < due:
        return
    look(state)
    seen.looked_at, seen.changed = state.now, False
    now_wanted = wanted(state)
    if now_wanted == seen.told and not seen.news:
        return
    news = [said or news_of(state, state.workers[number]) for number, said in seen.news.items()]
    seen.news = {}
    seen.told = now_wanted
    state.tell(Asked(Demand(now_wanted, news)))


# -- counting -------------------------------------------------------------------------------------------


def look(state: State) -> None:
    """Count the plans anew of which something changed."""
    seen = state.watch
    if seen is None or not state.touched:
        return
    for base, table in state.touched.items():
        for key, old in seen.counts.pop(base, {}).items():
            seen.totals[key].add(old, -1)
            if not seen.totals[key].left:
                del seen.totals[key]
        if base in state.plans and (counted := count(table)):
            seen.counts[base] = counted
            for key, new in counted.items():
                seen.totals.setdefault(key, Count()).add(new, 1)
    state.touched.clear()
    seen.changed = True


def count(table: PlanTable) -> dict[PoolKey, Count]:
    """Tasks of a plan that are not done, by what they ask for."""
    whole = Count()
    rows = zip(table.categories, table.totals, table.done_of, strict=True)
    for category, total, done in rows:
        if total > done:
            whole.left[category] += total - done
    if not whole.left:
        return {}
    if table.pools:
        return count_kinds(table, whole)
    whole.able = table.state.count(READY) + sum(table.running_of)
    if 0 < sum(table.running_of) <= _MANY:
        waits = table.waits
        whole.able -= sum(1 for index in table.in_state(DISPATCHED) if waits[index])
    return {table.pool.key: whole}


def count_kinds(table: PlanTable, whole: Count) -> dict[PoolKey, Count]:
    """The same of a plan whose tasks ask for different things."""
    found: dict[PoolKey, Count] = {table.pool.key: whole}
    states, waits = table.state, table.waits
    for index, pool in table.pools.items():
        if states[index] < DONE:
            category = table.categories[table.category_of[index]]
            found.setdefault(pool.key, Count()).left[category] += 1
            whole.left[category] -= 1
    for current in (READY, DISPATCHED):
        for index in table.in_state(current):
            if not waits[index]:
                found[pool_of(table, index).key].able += 1
    whole.left += Counter()  # without those of which none is left
    return {key: counted for key, counted in found.items() if counted.left}


# -- what is told ---------------------------------------------------------------------------------------


def wanted(state: State) -> list[Wanted]:
    """What all plans ask for."""
    return [] if state.watch is None else [wish(state, key, c) for key, c in state.watch.totals.items()]


def wish(state: State, key: PoolKey, counted: Count) -> Wanted:
    """What the tasks of one kind ask for."""
    request, names, features, limit, _ = key
    able = counted.able
    if limit in state.limits:
        able = min(able, state.limits[limit].count)
    measured = {category: n for category, n in counted.left.items() if state.category_count[category]}
    left = sum(counted.left.values())
    seconds = sum(n * state.category_mean[category] for category, n in measured.items())
    # Rounded, so that a mean that hardly changes is no news.
    return Wanted(
        request, features, names, able, left, float(f"{seconds:.3g}"), left - sum(measured.values())
    )


def news_of(state: State, worker: Worker) -> WorkerNews:
    """How a worker is."""
    since = state.watch.idle.get(worker.number) if state.watch is not None else None
    idle_s = -1.0 if since is None else state.now - since
    hello = worker.hello
    has = hello.capacity
    return WorkerNews(
        worker.number,
        hello.job,
        hello.name,
        hello.host,
        worker.cores,
        idle_s,
        memory_mb=has.memory_mb,
        disk_mb=has.disk_mb,
    )
