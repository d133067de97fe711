"""Plans whose tasks stand alone: failures that are results, and the outcomes that are told.

Rules:

- A task of a separate plan that fails for good is done: its result is an inline ``Failed``, which cannot be
  lost, and what builds on it runs with that. Everything else of the plan goes on.
- Of each wanted task the outcome is told once: when it is first done, well or not.
- The result of a failed task is put into ``table.given``: it is never run again.
"""

from __future__ import annotations

import pickle

from graphvine.manager import results
from graphvine.manager.engine import Outcome
from graphvine.manager.failure import indented
from graphvine.manager.files import needless, one_less
from graphvine.manager.instructions import Death, Settled
from graphvine.manager.state import State
from graphvine.manager.tasks import DISPATCHED, DONE, RELEASED, PlanTable
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import TaskDone, TaskFailed
from graphvine.protocol.outcomes import Failed, OutcomeKind


def fail(
    state: State,
    table: PlanTable,
    index: int,
    kind: OutcomeKind,
    text: str,
    failure: TaskFailed | None = None,
    worker: Worker | None = None,
) -> None:
    """A task that is with no worker failed for good: the task alone, or its plan. ``failure``: what
    ``worker`` said of its last run, if that was it."""
    error = failure.error if failure is not None else b""
    if not table.plan.separate:
        results.fail(state, table, index, kind, text, error)
        return
    if table.state[index] == RELEASED:
        return
    text = told(text, table.tries.get(index, []))
    table.failures[index] = kind
    if index in table.wanted_by:
        tell_failed(state, table, index, text, failure, worker)
    conclude(state, table, index, pickle.dumps(Failed(kind, text, error), protocol=5))


def told(text: str, tries: list[Death]) -> str:
    """The reason of a failure, with every death when there were several."""
    deaths = [death for death in tries if death.kind == "killed"]
    if len(deaths) < 2:
        return text
    lines = [
        f"attempt {death.attempt + 1} on worker {death.worker}: {indented(death.text, 2)}" for death in deaths
    ]
    return "\n".join(lines)


def conclude(state: State, table: PlanTable, index: int, data: bytes) -> None:
    """Make ``data`` the result of a task that no worker has."""
    assert table.state[index] != DISPATCHED
    table.given[index] = data
    if table.state[index] == DONE:
        # A file of the manager's that can't be had. Whoever was told to fetch it will ask again.
        table.data[index] = data
        state.relayed.pop(table.base + index, None)
        results.offer_again(state, table, index)
        return
    table.state[index] = DONE
    table.data[index] = data
    table.done_of[table.category_of[index]] += 1
    state.touch(table)
    for plan, consumer in list(table.consumer_tasks(index)):
        one_less(state, plan, consumer)
    for origin, name in table.input_files(index):
        origin.need[name] -= 1
        if not origin.need[name]:
            needless(state, origin, name)
    if index in table.wanted_by:
        results.announce(state, table, index)
    if not table.need[index]:
        needless(state, table, index)


# -- outcomes -------------------------------------------------------------------------------------------


def tell_done(
    state: State, table: PlanTable, index: int, row: TaskDone | None, worker: Worker | None
) -> None:
    """A wanted task of a separate plan is done. ``row``: what ``worker`` said of its run, if it just did."""
    position = untold(table, index)
    if position < 0:
        return
    data = table.data[index]
    outcome = Outcome(
        position, table.base + index, True, "", "", b"", table.size_of(index),
        data if isinstance(data, bytes) else None, "", "", 0.0, 0.0, 0.0, len(table.tries.get(index, ())),
    )  # fmt: skip
    if worker is not None:
        hello = worker.hello
        outcome.worker, outcome.host, outcome.capacity = hello.name, hello.host, hello.capacity
        outcome.request = table.request(index)
    if row is not None:
        outcome.tries += 1
        outcome.began_s, outcome.duration_s = row.began_s, row.duration_s
        outcome.memory_mb, outcome.note = row.memory_mb, row.note
    state.tell(Settled(table.base, outcome))


def tell_failed(
    state: State, table: PlanTable, index: int, text: str, failure: TaskFailed | None, worker: Worker | None
) -> None:
    """A wanted task of a separate plan has failed for good."""
    position = untold(table, index)
    if position < 0:
        return
    tries = table.tries.get(index, [])
    outcome = Outcome(
        position, table.base + index, False, table.failures[index], text, b"", 0, None,
        tries[-1].worker if tries else "", "", 0.0, 0.0, 0.0, len(tries),
    )  # fmt: skip
    if worker is not None:
        hello = worker.hello
        outcome.worker, outcome.host, outcome.capacity = hello.name, hello.host, hello.capacity
        outcome.request = table.request(index)
    if failure is not None:
        outcome.began_s, outcome.duration_s = failure.began_s, failure.duration_s
        outcome.memory_mb, outcome.note, outcome.error = failure.memory_mb, failure.note, failure.error
    state.tell(Settled(table.base, outcome))


def untold(table: PlanTable, index: int) -> int:
    """The position of a wanted task whose outcome was not told, which counts as told now; -1: it was."""
    return table.untold.pop(index, -1)
