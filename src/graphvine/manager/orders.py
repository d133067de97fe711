"""What the user orders about single tasks, files and hosts, beside plans."""

from __future__ import annotations

from collections.abc import Sequence

from graphvine.manager import recovery, results, separate
from graphvine.manager.engine import Stats
from graphvine.manager.files import drop_everywhere
from graphvine.manager.state import State
from graphvine.manager.tasks import DISPATCHED, DONE, RELEASED, PlanTable


def cancel_tasks(state: State, files: Sequence[int]) -> None:
    """Tasks of separate plans are not wanted: their result is that they were cancelled."""
    for number in files:
        table = state.table_of(number)
        index = number - table.base if table is not None else 0
        if table is None or index >= table.size or not table.plan.separate:
            continue
        if table.state[index] >= DONE or index in table.remade:
            continue
        if table.state[index] == DISPATCHED:
            take_away(state, table, index)
        separate.fail(state, table, index, "cancelled", "it was cancelled")


def take_away(state: State, table: PlanTable, index: int) -> None:
    """Stop a task on its worker; it has none afterwards."""
    number = table.base + index
    worker = state.workers[table.where[index]]
    worker.load -= worker.queue.pop(number)
    worker.answered(number)
    worker.outbox.also().cancels.append(number)
    state.mark(worker)
    recovery.give_back(state, table, index)
    # Whatever was given to that worker in the belief that this would be made there is called back.
    recovery.call_back_followers(state, table, index, worker.number)


def prune(state: State, files: Sequence[int]) -> None:
    """Drop every copy of kept files which nobody waits for. They are made again when they are needed."""
    for number in files:
        table = state.table_of(number)
        index = number - table.base if table is not None else 0
        if table is None or index not in table.kept or table.state[index] != DONE or table.need[index] > 1:
            continue
        for watcher, position in list(table.wanted_by.get(index, ())):
            # It was counted when it was made; it is not to be counted again.
            if watcher is table:
                results.unwatch(table, index, table, position)
        table.state[index] = RELEASED
        drop_everywhere(state, table, index)


def stats(state: State) -> Stats:
    """What there is now."""
    counts = [0] * (RELEASED + 1)
    for table in state.plans.values():
        for current in range(RELEASED + 1):
            counts[current] += table.state.count(current)
    return Stats(
        workers=len(state.workers),
        cores=state.cores,
        waiting=sum(counts[:DISPATCHED]),
        running=counts[DISPATCHED],
        done=counts[DONE] + counts[RELEASED],
        plans=sum(not table.over for table in state.plans.values()),
        joined=state.joined,
        released=state.released,
        lost=state.lost,
        blocked=sum(worker.blocked for worker in state.workers.values()),
    )
