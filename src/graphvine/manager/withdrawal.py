"""Orders that are void: of tasks that were given to a worker and are not to be done there any more."""

from __future__ import annotations

from graphvine.manager import suspects
from graphvine.manager.state import State
from graphvine.manager.tasks import PlanTable


def forget_order(state: State, worker: int, number: int) -> None:
    """A task that was perhaps called back, or ran alone, is answered for."""
    if worker in state.lonely and worker in state.workers:
        suspects.answered(state, state.workers[worker], number)
    thief = state.recalled.pop(number, None)
    if thief and thief in state.workers:
        state.workers[thief].asked -= 1


def cancel_order(state: State, table: PlanTable, index: int) -> None:
    """Have a dispatched task forgotten by its worker, or stopped; the caller says what it is from now on."""
    number = table.base + index
    worker = state.workers[table.where[index]]
    forget_order(state, worker.number, number)
    worker.load -= worker.queue.pop(number)
    worker.answered(number)
    worker.outbox.also().cancels.append(number)
    state.mark(worker)
    table.where[index] = 0
    table.running_of[table.category_of[index]] -= 1
    state.touch(table)
