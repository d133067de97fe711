"""The packed environments of plans: files that no task reads, but that workers ask for.

- A plan needs its environment's archive until it is freed: also what is made again is made in it.
- A worker that has no such environment says that the archive is missing, as it would of an input. Is the
  archive to be made (again) first, then the worker is told when it is there.
"""

from __future__ import annotations

from graphvine.manager.files import add_replica, needless, place, source_of
from graphvine.manager.state import State
from graphvine.manager.tasks import DONE, PlanTable
from graphvine.manager.workers import Worker


def find(table: PlanTable) -> tuple[PlanTable, int] | None:
    """Table and index of the file that is a plan's environment."""
    name = table.plan.code.environment
    if name is None:
        return None
    return (table, name) if name >= 0 else table.origins[-1 - name]


def hold(table: PlanTable) -> None:
    """A plan that was taken over needs its environment."""
    found = find(table)
    if found is not None:
        origin, index = found
        origin.need[index] += 1


def let_go(state: State, table: PlanTable) -> None:
    """A plan is freed."""
    found = find(table)
    if found is not None and found[0] is not table:
        origin, index = found
        origin.need[index] -= 1
        if not origin.need[index]:
            needless(state, origin, index)


def count_users(state: State, table: PlanTable, index: int) -> int:
    """How many plans need a file as their environment."""
    return sum(1 for plan in state.plans.values() if find(plan) == (table, index))


def on_missing(state: State, table: PlanTable, index: int, worker: Worker) -> None:
    """A worker asks for a file that does not exist now: if it is an environment, it is told when it does."""
    number = table.base + index
    if number in state.environments:
        state.awaited.setdefault(number, set()).add(worker.number)


def tell(state: State) -> None:
    """Say where awaited environments are that exist by now."""
    for number in list(state.awaited):
        table = state.table_of(number)
        if table is None:
            del state.awaited[number]
        elif table.state[number - table.base] == DONE:
            for name in state.awaited.pop(number):
                worker = state.workers.get(name)
                if worker is not None:
                    small = table.size_of(number - table.base) < state.settings.spread_bytes
                    where = source_of if small else place
                    worker.outbox.also().updates.append(where(state, table, number - table.base, worker, ()))
                    add_replica(table, number - table.base, worker, held=False)
                    state.mark(worker)
