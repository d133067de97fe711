"""Giving tasks to workers: as many as each has room for, with what they need to know to begin.

Room is counted in expected seconds: about ``window_s`` of work per core by the measured mean of the category,
and at least ``ahead_per_core`` tasks per core; what is held there (see ``readiness``) does not count. A task
whose remaining inputs all come from tasks given to the same worker is given to it too, at once: whenever the
last of a task's inputs has been dispatched, the task is put into that worker's heap, and looked at when it
comes off. (The last: the highest number. Should another come last, the task just waits for its inputs to
exist.)
"""

from __future__ import annotations

import heapq

from graphvine.manager import lifetimes, limits, placement, readiness, suspects
from graphvine.manager.files import supply, supply_blob
from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, DISPATCHED, DONE, KEY_MASK, READY, WAITING, PlanTable
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import TaskOrder

heappop = heapq.heappop

#: The inputs of every order that has none. Not one list each: by the hundred thousand, they would keep the
#: garbage collector busy with tables that hold no garbage.
_NOTHING: list[int] = []


def fill(state: State, worker: Worker) -> bool:
    """Give a worker what it has room for. False when it has room left and nothing was found for it."""
    settings = state.settings
    if worker.number in state.lonely:
        return fill_lonely(state, worker)
    placement.heed_urgent(state, worker)
    queue = worker.queue
    cores = worker.cores
    window, ahead = settings.window_s * cores, settings.ahead_per_core * cores * state.ahead
    limit, least = window + worker.held_s, ahead + worker.held_count
    heap, until = worker.heap, worker.until
    base = end = 0
    fed = False
    while worker.load < limit or len(queue) < least:
        share = worker.share
        if share and (not heap or share[-1] < heap[0]):
            key = share.pop()
        elif heap:
            key = heappop(heap)
        elif fed and len(queue) >= least:
            # One share a turn, whatever the room: others come for theirs.
            return True
        elif placement.feed(state, worker):
            fed = True
            continue
        else:
            return False
        number = key & KEY_MASK
        if not base <= number < end:
            found = state.table_of(number)
            if found is None:
                continue
            table = found
            base, end = table.base, table.end
            state.touch(table)
        if until and not lifetimes.has_time_now(state, worker, table, number - base):
            if table.state[number - base] == READY and lifetimes.has_time(
                state, worker, table, number - base
            ):
                # When what it was given before is done.
                heapq.heappush(heap, key)
                return True
            lifetimes.send_on(state, worker, table, number - base)
            continue
        if table.zygote and not readiness.room(state, worker, table.zygote):
            readiness.send_on(state, table, number - base)
            continue
        dispatch(state, worker, table, number - base)
        if table.zygote:
            limit, least = window + worker.held_s, ahead + worker.held_count
    return True


def fill_lonely(state: State, worker: Worker) -> bool:
    """Give a suspect to a worker that has nothing else."""
    if worker.draining and not worker.queue:
        key, worker.draining = worker.draining, 0
        worker.alone = key & KEY_MASK
        table = state.table_of(worker.alone)
        if table is not None:
            state.touch(table)
            dispatch(state, worker, table, worker.alone - table.base)
        if not worker.queue:
            suspects.answered(state, worker, worker.alone)
    return True


def dispatch(state: State, worker: Worker, table: PlanTable, index: int) -> None:
    """Give one task to a worker, unless it is not to be run any more, or not there."""
    states = table.state
    if states[index] != READY and states[index] != AHEAD:
        return
    base = table.base
    number = base + index
    if table.losses and suspects.is_suspect(state, table, index) and worker.alone != number:
        if states[index] == AHEAD:
            states[index] = WAITING
        else:
            heapq.heappush(state.suspects, table.key(index))
        return
    if table.limited and not limits.lets_through(state, table, index, placement.pool_of(table, index).limit):
        # It lay in this worker's heap since before it lost an input, or the limit was set.
        return
    inputs = _NOTHING
    names = table.inputs[index]
    if names:
        if not inputs_ready(state, table, index, worker):
            states[index] = WAITING
            return
        inputs = [base + name if name >= 0 else foreign_number(table, name) for name in names]
    states[index] = DISPATCHED
    table.where[index] = worker.number
    local = table.category_of[index]
    category = table.categories[local]
    table.running_of[local] += 1
    expected = state.category_mean[category]
    pool = table.pool
    if not table.plain:
        pool = placement.pool_of(table, index)
        expected *= worker.cores_for(pool.request)
    worker.queue[number] = expected
    worker.load += expected
    if table.zygote and table.zygote not in worker.ready:
        readiness.hold(worker, table.zygote, number, expected)
    blob = table.blob_base + table.blob_of[index]
    if blob not in worker.blobs:
        supply_blob(state, table, blob - table.blob_base, worker)
    attempt = table.attempts.get(index, 0) if table.attempts else 0
    uses = table.need[index] if table.families is not None else 0
    worker.outbox.orders.append(
        TaskOrder(number, blob, table.blob_index[index], inputs, category, attempt, uses, table.shares)
    )
    if not pool.plain:
        worker.outbox.also().requests[number] = pool.request
    if table.timed and (max_s := table.options(index).max_s):
        worker.outbox.also().limits[number] = max_s
    consumers = table.consumers[index]
    if consumers and len(consumers) <= state.settings.wide and not worker.alone:
        look_ahead(state, table, index, worker)


def foreign_number(table: PlanTable, name: int) -> int:
    """The number of an external file."""
    origin, index = table.origins[-1 - name]
    return origin.base + index


def inputs_ready(state: State, table: PlanTable, index: int, worker: Worker) -> bool:
    """Send word of every input that is not at ``worker``. False when one does not exist and is not made
    there."""
    number = worker.number
    where = table.where
    for name in table.inputs[index]:
        if name >= 0 and where[name] == number:
            continue
        origin, name = (table, name) if name >= 0 else table.origins[-1 - name]
        if origin.state[name] == DONE:
            supply(state, origin, name, worker)
        elif origin.where[name] != number:
            return False
    return True


def look_ahead(state: State, table: PlanTable, index: int, worker: Worker) -> None:
    """Put the tasks into a worker's heap whose last input was just given to it, if the others are there."""
    states = table.state
    for consumer in table.consumers[index]:
        if table.last[consumer] != index or states[consumer] != WAITING:
            continue
        if table.pools and worker.number not in placement.pool_of(table, consumer).members:
            continue
        if table.limited and placement.pool_of(table, consumer).limit:
            continue
        if all_there(table, consumer, worker.number):
            states[consumer] = AHEAD
            heapq.heappush(worker.heap, table.key(consumer))


def all_there(table: PlanTable, index: int, worker: int) -> bool:
    """Whether every input of a task exists, or was given to ``worker``."""
    where = table.where
    for name in table.inputs[index]:
        if name >= 0:
            if where[name] != worker and table.state[name] != DONE:
                return False
        else:
            origin, foreign = table.origins[-1 - name]
            if origin.where[foreign] != worker and origin.state[foreign] != DONE:
                return False
    return True
