"""What a worker still holds that was here before: its results count again.

- A result that exists gets one more holder.
- One that is to be made, or made again, and was not given to anybody is done with that: it was lost with its
  worker, or the news of it was.
- Whatever else a worker brings along is dropped there.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphvine.manager import reports
from graphvine.manager.files import needless, one_less
from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, DONE, READY, WAITING, PlanTable
from graphvine.manager.workers import Worker


def on_held(state: State, worker: Worker, held: Sequence[tuple[int, int]]) -> None:
    """A worker that joins holds these files: number and size."""
    if reports.is_too_much(state, worker, len(held)):
        return
    for number, size in held:
        if not reports.known(state, worker, number):
            worker.outbox.drops.append(number)
            continue
        table = state.table_of(number)
        index = number - table.base if table is not None else 0
        if table is None or index >= table.size:
            worker.outbox.drops.append(number)
        elif table.state[index] in (WAITING, READY, AHEAD):
            on_found(state, table, index, worker, size)
        elif table.state[index] == DONE and table.size_of(index) == size:
            reports.on_fetched(state, worker, number)
        else:
            worker.outbox.drops.append(number)


def on_found(state: State, table: PlanTable, index: int, worker: Worker, size: int) -> None:
    """A result that was to be made is there already."""
    number = table.base + index
    table.state[index] = DONE
    table.data[index] = size
    table.where[index] = worker.number
    worker.log.append(number)
    table.done_of[table.category_of[index]] += 1
    state.touch(table)
    for consumer in table.consumers[index]:
        one_less(state, table, consumer)
    for origin, name in table.input_files(index):
        origin.need[name] -= 1
        if not origin.need[name]:
            needless(state, origin, name)
    reports.settle(state, table, index, number, None, worker)
