"""The packed environments of plans, and the inputs of set-ups: files that no task reads, but that workers ask
for.

- A plan needs its environment's archive, and its set-up's inputs, until it is freed: also what is made again
  is made with them.
- A worker that has no such environment, or no such input, says that the file is missing, as it would of an
  input of a task. Is the file to be made (again) first, then the worker is told when it is there.
"""

from __future__ import annotations

import pickle

from graphvine.manager.files import add_replica, needless, place, source_of
from graphvine.manager.state import State
from graphvine.manager.tasks import DONE, PlanTable
from graphvine.manager.workers import Worker
from graphvine.protocol.outcomes import Failed


def find(table: PlanTable) -> tuple[PlanTable, int] | None:
    """Table and index of the file that is a plan's environment."""
    name = table.plan.code.environment
    if name is None:
        return None
    return (table, name) if name >= 0 else table.origins[-1 - name]


def find_inputs(table: PlanTable) -> list[tuple[PlanTable, int]]:
    """... of the files that a plan's set-up is given."""
    return [(table, name) if name >= 0 else table.origins[-1 - name] for name in table.plan.code.inputs]


def find_all(table: PlanTable) -> list[tuple[PlanTable, int]]:
    """... of all of these, as often as they are needed."""
    found = find(table)
    return [*find_inputs(table), *([found] if found is not None else [])]


def is_there(table: PlanTable) -> bool:
    """Whether all that a plan's executors need exists."""
    return all(origin.state[index] == DONE for origin, index in find_all(table))


def hold(table: PlanTable) -> None:
    """A plan that was taken over needs its environment and its set-up's inputs."""
    for origin, index in find_all(table):
        origin.need[index] += 1


def let_go(state: State, table: PlanTable) -> None:
    """A plan is freed."""
    for origin, index in find_all(table):
        if origin is not table:
            origin.need[index] -= 1
            if not origin.need[index]:
                needless(state, origin, index)


def count_users(state: State, table: PlanTable, index: int) -> int:
    """How often plans need a file as their environment, or for their set-ups."""
    return sum(find_all(plan).count((table, index)) for plan in state.plans.values())


def on_missing(state: State, table: PlanTable, index: int, worker: Worker) -> None:
    """A worker asks for a file that does not exist now: if it is one of these, it is told when it does."""
    number = table.base + index
    if number in state.environments:
        state.awaited.setdefault(number, set()).add(worker.number)


def on_unreadable(state: State, table: PlanTable, index: int, worker: Worker, reason: str) -> None:
    """A file of the manager's machine cannot be had: in its place comes the reason, so that nobody waits."""
    number = table.base + index
    if number in state.environments:
        failed = Failed("missing", reason, b"")
        worker.outbox.also().update_values[number] = pickle.dumps(failed, protocol=5)
        state.mark(worker)


def tell(state: State) -> None:
    """Say where awaited files of that kind are that exist by now."""
    for number in list(state.awaited):
        table = state.table_of(number)
        if table is None:
            del state.awaited[number]
        elif table.state[number - table.base] == DONE:
            for name in state.awaited.pop(number):
                worker = state.workers.get(name)
                if worker is not None:
                    _say_where(state, table, number - table.base, worker)


def _say_where(state: State, table: PlanTable, index: int, worker: Worker) -> None:
    data = table.data[index]
    box = worker.outbox.also()
    if isinstance(data, bytes):
        box.update_values[table.base + index] = data
    else:
        small = table.size_of(index) < state.settings.spread_bytes
        where = source_of if small else place
        box.updates.append(where(state, table, index, worker, ()))
    add_replica(table, index, worker, held=isinstance(data, bytes))
    state.mark(worker)
