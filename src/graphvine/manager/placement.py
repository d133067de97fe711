"""Which worker a ready task is kept for, and what a worker with room takes. A pull: workers come for work.

A worker with room takes, in this order: from its own heap and share, whichever comes first in the plan; a
share of a pool; half the backlog of the worker with the longest, if moving the data is quicker than waiting
there. A dry one asks for tasks that were given to a busy worker and not begun. Each step costs the same
however many workers and tasks there are: nothing here loops over all of either.
"""

from __future__ import annotations

import heapq
from itertools import islice

from graphvine.manager import lifetimes, limits, readiness, suspects
from graphvine.manager.pools import Pool
from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, DISPATCHED, KEY_MASK, READY, PlanTable
from graphvine.manager.workers import Worker

#: So many victims are looked at for one hungry worker, and so many queued tasks of one.
_TRIES = 2
_LOOK = 64
#: So many workers may find nothing to steal in one turn, until no more are let try.
_IN_VAIN = 16


def pool_of(table: PlanTable, index: int) -> Pool:
    """The pool of a task: what it asks for."""
    pools: dict[int, Pool] = table.pools
    return pools.get(index, table.pool) if pools else table.pool


def place_fresh(state: State) -> None:
    """Give every task that became ready since the last turn a place where a worker will find it."""
    fresh, state.fresh = state.fresh, []
    table: PlanTable | None = None
    for number in fresh:
        if table is None or not table.base <= number < table.end:
            table = state.table_of(number)
            if table is None:
                continue
        index = number - table.base
        if table.state[index] == READY:
            place(state, table, index)


def place(state: State, table: PlanTable, index: int) -> None:
    """Put a ready task into the heap of the worker that has most of its input, else into its pool."""
    pool = pool_of(table, index)
    key = table.key(index)
    if pool.limit and not limits.lets_through(state, table, index, pool.limit):
        return
    if table.losses and suspects.is_suspect(state, table, index):
        heapq.heappush(state.suspects, key)
        return
    if index in table.avoid:
        home = next((worker for n, worker in pool.members.items() if n not in table.avoid[index]), None)
    else:
        home = preferred(state, table, index, pool)
        if pool.zygote and home is not None and not readiness.room(state, home, pool.zygote):
            home = None
    if home is None:
        heapq.heappush(pool.loose, key)
        return
    heapq.heappush(home.heap, key)
    state.marked[home.number] = home


def preferred(state: State, table: PlanTable, index: int, pool: Pool) -> Worker | None:
    """The worker that has most bytes of a task's input; None when that is no reason to prefer any."""
    if table.soft and index in table.soft:
        wished = wished_worker(state, table, index)
        if wished is not None:
            return wished
    names = table.inputs[index]
    if not names:
        return None
    best = 0
    first = names[0]
    if first >= 0 and len(table.consumers[first]) <= state.settings.wide:
        where = table.where
        best = where[first]
        for name in names:
            if name < 0 or where[name] != best:
                best = 0
                break
    best = best or most_bytes(state, table, index)
    return pool.members.get(best)


def most_bytes(state: State, table: PlanTable, index: int) -> int:
    """The number of the worker that has most bytes of a task's input; 0 is none. Inputs that many tasks
    share don't count: they will be everywhere soon."""
    wide = state.settings.wide
    weights: dict[int, int] = {}
    for name in table.inputs[index]:
        origin = table
        if name < 0:
            origin, name = table.origins[-1 - name]
        if len(origin.consumers[name]) > wide:
            continue
        data = origin.data[name]
        size = 1 + (data if type(data) is int else len(data)) if data else 1  # type: ignore[arg-type]
        first = origin.where[name]
        if first:
            weights[first] = weights.get(first, 0) + size
        if name in origin.extra:
            for other in origin.extra[name]:
                weights[other] = weights.get(other, 0) + size
    return max(weights, key=weights.__getitem__) if weights else 0


def wished_worker(state: State, table: PlanTable, index: int) -> Worker | None:
    """The least loaded of the present workers a task would rather run on; None when there is none."""
    pool = pool_of(table, index)
    found = [
        worker
        for name in table.options(index).workers
        for worker in islice(state.named.get(name, {}).values(), _LOOK)
        if worker.number in pool.members
    ]
    return min(found, key=lambda worker: (worker.load + len(worker.heap)) / worker.cores) if found else None


# -- what a worker takes --------------------------------------------------------------------------------


def heed_urgent(state: State, worker: Worker) -> None:
    """Take from a pool what comes before everything this worker has, by the user's priority or an earlier
    plan."""
    if not (worker.share or worker.heap):
        return
    for pool in worker.pools:
        while (pool.segments or pool.loose) and pool.urgent(own_key(worker)):
            room = readiness.room(state, worker, pool.zygote)
            if not room:
                break
            for key in pool.cut(worker, room):
                heapq.heappush(worker.heap, key)


def own_key(worker: Worker) -> int:
    """The key of the task this worker would take next from what is kept for it. There is something."""
    if worker.share:
        last = worker.share[-1]
        return min(last, worker.heap[0]) if worker.heap else last
    return worker.heap[0]


def feed(state: State, worker: Worker) -> bool:
    """Find work for a worker that has none kept for it. False when there is none."""
    best: Pool | None = None
    best_key = 0
    for pool in worker.pools:
        key = pool.first_key()
        if key is None or (best is not None and key > best_key):
            continue
        if not pool.zygote or readiness.room(state, worker, pool.zygote):
            best, best_key = pool, key
    if best is not None:
        at_most = readiness.room(state, worker, best.zygote) if best.zygote else readiness.MANY
        worker.share = best.cut(worker, at_most)
        return True
    return steal(state, worker)


def steal(state: State, thief: Worker) -> bool:
    """Take half of what is kept for the worker with the longest wait.

    If that is not worth it and the thief is dry, have tasks called back that were given to that worker and
    not begun; then there is nothing to do yet. When some have come in vain in this turn, the others would,
    too: they wait for the next."""
    if not state.victims or state.in_vain >= _IN_VAIN:
        return False
    got = False
    seen: list[Worker] = []
    while state.victims and len(seen) < _TRIES and not got:
        victim = pop_victim(state)
        if victim is None:
            break
        seen.append(victim)
        if victim is thief:
            continue
        if victim.share or victim.heap:
            got = steal_share(state, thief, victim) or steal_heap(state, thief, victim)
        if not got and not thief.asked and len(thief.queue) - thief.held_count < thief.cores:
            recall_half(state, thief, victim)
    for victim in seen:
        list_victim(state, victim)
    state.in_vain += not got
    return got


def list_victim(state: State, worker: Worker) -> None:
    """Note that something may be had from a worker, if it is worth the while."""
    given = len(worker.queue)
    if worker.listed or not given:
        return
    if given + len(worker.share) + len(worker.heap) <= worker.cores and not worker.held:
        return
    wait_s = worker.wait_s()
    if wait_s > state.settings.latency_s:
        worker.listed = True
        heapq.heappush(state.victims, (-wait_s, worker.number))


def pop_victim(state: State) -> Worker | None:
    """Take the worker with the longest wait off the list; None when there is none left."""
    while state.victims:
        noted, number = heapq.heappop(state.victims)
        worker = state.workers.get(number)
        if worker is None:
            continue
        worker.listed = False
        wait_s = worker.wait_s()
        if wait_s < -noted and state.victims and wait_s < -state.victims[0][0]:
            list_victim(state, worker)
            continue
        return worker
    return None


def steal_share(state: State, thief: Worker, victim: Worker) -> bool:
    """Take the back half of a worker's share of leaves."""
    share = victim.share
    if not share or not set(victim.pools) <= set(thief.pools):
        return False
    table = state.table_of(share[0] & KEY_MASK)
    count = (len(share) + 1) // 2
    if table is not None and table.zygote:
        count = min(count, readiness.room(state, thief, table.zygote))
    if not count:
        return False
    thief.share = share[:count]
    del share[:count]
    return True


def steal_heap(state: State, thief: Worker, victim: Worker) -> bool:
    """Take tasks off the back of a worker's heap, as long as each would begin sooner on the thief."""
    heap = victim.heap
    wait_s = victim.wait_s()
    put_back: list[int] = []
    got = 0
    for _ in range(min(_LOOK, (len(heap) + 1) // 2)):
        key = heap.pop()
        table = state.table_of(key & KEY_MASK)
        index = (key & KEY_MASK) - table.base if table is not None else 0
        if table is None or table.state[index] not in (READY, AHEAD):
            continue
        if worth_moving(state, table, index, thief, wait_s):
            heapq.heappush(thief.heap, key)
            got += 1
        else:
            put_back.append(key)
    for key in put_back:
        heapq.heappush(heap, key)
    return got > 0


def worth_moving(state: State, table: PlanTable, index: int, thief: Worker, wait_s: float) -> bool:
    """Whether a task that would wait ``wait_s`` seconds where it is can begin sooner on ``thief``."""
    if table.state[index] != READY or thief.number not in pool_of(table, index).members:
        return False
    if thief.number in table.avoid.get(index, ()):
        return False
    if table.zygote and not readiness.room(state, thief, table.zygote):
        return False
    if thief.until and not lifetimes.has_time(state, thief, table, index):
        return False
    moved = 0
    for origin, name in table.input_files(index):
        if origin.where[name] != thief.number and thief.number not in origin.extra.get(name, ()):
            moved += origin.size_of(name)
    return state.settings.latency_s + moved / state.settings.bandwidth < wait_s


def recall_half(state: State, thief: Worker, victim: Worker) -> None:
    """Call back the end of a worker's queue, until half of what has not begun would be elsewhere."""
    if victim.load < state.settings.recall_s * victim.cores and not victim.held:
        return
    spare = len(victim.queue) - min(int(victim.cores), len(victim.queue) - victim.held_count)
    share = thief.cores / (thief.cores + victim.cores)
    goal = victim.load * share
    looked = taken = 0
    # What was given in this turn stands last. It is not called back before it was said.
    for task in islice(reversed(victim.queue), len(victim.outbox.orders), None):
        looked += 1
        if goal <= 0 or looked > min(spare, _LOOK) or taken >= max(1, int(spare * share)):
            return
        if task in state.recalled:
            continue
        table = state.table_of(task)
        if table is None or thief.number not in pool_of(table, task - table.base).members:
            continue
        if table.state[task - table.base] != DISPATCHED or table.waits[task - table.base]:
            continue
        if table.zygote and table.zygote not in thief.ready and task in victim.held.get(table.zygote, ()):
            # It would wait there as well.
            continue
        if thief.until and not lifetimes.has_time(state, thief, table, task - table.base):
            continue
        goal -= victim.queue[task]
        taken += 1
        state.recalled[task] = thief.number
        thief.asked += 1
        victim.outbox.also().recalls.append(task)
        state.mark(victim)
