"""Named limits: at most so many tasks of a name are run at once, on all workers together.

Rules:

- A task with a limit that is ready waits here until it is let through; then it is placed like any other. It
  counts until it is done, has failed, or lost an input: whatever happens to it in between.
- Who counts is looked at when somebody waits, so that nobody else has to know of limits. That costs what the
  limit allows, which is little.
- A name for which no limit is set lets everybody through.
- A task that runs may ask for its *turn* under a limit (see ``worker.turns``): it then counts as well, until
  it says that it is done, or runs no more. Those who ask go first: each keeps cores waiting.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, DISPATCHED, KEY_MASK, READY, PlanTable
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import Turn

#: A worker, and a task that runs there.
Runner = tuple[int, int]


class Limit:
    """One limit. ``running``: numbers of the tasks that were let through; ``waiting``: keys. ``turns``: who
    has its turn; ``asking``: who wants it, and where it is to be answered."""

    __slots__ = ("asking", "count", "running", "turns", "waiting")

    def __init__(self, count: int) -> None:
        self.count = count
        self.running: set[int] = set()
        self.waiting: list[int] = []
        self.turns: set[Runner] = set()
        self.asking: deque[tuple[Runner, str]] = deque()

    def has_room(self) -> bool:
        """Whether one more may be let through."""
        return len(self.running) + len(self.turns) < self.count


def change(state: State, name: str, count: int | None) -> None:
    """Set a limit, or take it away (None)."""
    limit = state.limits.get(name)
    if count is None:
        if limit is not None:
            del state.limits[name]
            for runner, reply in limit.asking:
                _answer(state, runner, reply)
            state.fresh += [key & KEY_MASK for key in limit.waiting]
    elif limit is None:
        limit = state.limits[name] = Limit(count)
        limit.running = set(given_out(state, name))
    else:
        limit.count = count


def given_out(state: State, name: str) -> Iterator[int]:
    """Tasks of a limit that workers have."""
    for table in state.plans.values():
        if table.limited:
            for index in table.in_state(DISPATCHED):
                if table.pools.get(index, table.pool).limit == name:
                    yield table.base + index


def lets_through(state: State, table: PlanTable, index: int, name: str) -> bool:
    """Whether a ready task may be placed; if not, it waits here."""
    limit = state.limits.get(name)
    number = table.base + index
    if limit is None or number in limit.running:
        return True
    heapq.heappush(limit.waiting, table.key(index))
    return False


def on_turn(state: State, worker: Worker, turn: Turn) -> None:
    """A task there asks for its turn, or gives it back."""
    runner = worker.number, turn.task
    limit = state.limits.get(turn.limit)
    if not turn.reply:
        if limit is not None:
            limit.turns.discard(runner)
    elif limit is None:
        _answer(state, runner, turn.reply)
    else:
        limit.asking.append((runner, turn.reply))


def _answer(state: State, runner: Runner, reply: str) -> None:
    worker = state.workers.get(runner[0])
    if worker is not None:
        worker.outbox.also().turns.append(reply)
        state.mark(worker)


def release(state: State) -> None:
    """Let through whoever may be: they are in ``state.fresh`` afterwards."""
    for limit in state.limits.values():
        if not limit.waiting and not limit.asking:
            continue
        limit.running = {number for number in limit.running if counts(state, number)}
        limit.turns = {runner for runner in limit.turns if runs(state, runner)}
        while limit.asking and limit.has_room():
            runner, reply = limit.asking.popleft()
            if runs(state, runner):
                limit.turns.add(runner)
                _answer(state, runner, reply)
        while limit.waiting and limit.has_room():
            number = heapq.heappop(limit.waiting) & KEY_MASK
            if is_ready(state, number):
                limit.running.add(number)
                state.fresh.append(number)


def counts(state: State, number: int) -> bool:
    """Whether a task that was let through is still on its way."""
    table = state.table_of(number)
    return table is not None and table.state[number - table.base] in (READY, AHEAD, DISPATCHED)


def runs(state: State, runner: Runner) -> bool:
    """Whether a worker still has a task that asked."""
    worker, number = runner
    table = state.table_of(number)
    index = number - table.base if table is not None else 0
    if table is None or index >= table.size:
        return False
    return table.state[index] == DISPATCHED and table.where[index] == worker


def is_ready(state: State, number: int) -> bool:
    """Whether a task that waits here still wants to be run."""
    table = state.table_of(number)
    return table is not None and table.state[number - table.base] == READY
