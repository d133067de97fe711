"""Named limits: at most so many tasks of a name are run at once, on all workers together.

Rules:

- A task with a limit that is ready waits here until it is let through; then it is placed like any other. It
  counts until it is done, has failed, or lost an input: whatever happens to it in between.
- Who counts is looked at when somebody waits, so that nobody else has to know of limits. That costs what the
  limit allows, which is little.
- A name for which no limit is set lets everybody through.
"""

from __future__ import annotations

import heapq

from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, DISPATCHED, KEY_MASK, READY, PlanTable


class Limit:
    """One limit. ``running``: numbers of the tasks that were let through; ``waiting``: keys."""

    __slots__ = ("count", "running", "waiting")

    def __init__(self, count: int) -> None:
        self.count = count
        self.running: set[int] = set()
        self.waiting: list[int] = []


def change(state: State, name: str, count: int | None) -> None:
    """Set a limit, or take it away (None)."""
    limit = state.limits.get(name)
    if count is None:
        if limit is not None:
            del state.limits[name]
            state.fresh += [key & KEY_MASK for key in limit.waiting]
    elif limit is None:
        state.limits[name] = Limit(count)
    else:
        limit.count = count


def lets_through(state: State, table: PlanTable, index: int, name: str) -> bool:
    """Whether a ready task may be placed; if not, it waits here."""
    limit = state.limits.get(name)
    number = table.base + index
    if limit is None or number in limit.running:
        return True
    heapq.heappush(limit.waiting, table.key(index))
    return False


def release(state: State) -> None:
    """Let through whoever may be: they are in ``state.fresh`` afterwards."""
    for limit in state.limits.values():
        if not limit.waiting:
            continue
        limit.running = {number for number in limit.running if counts(state, number)}
        while limit.waiting and len(limit.running) < limit.count:
            number = heapq.heappop(limit.waiting) & KEY_MASK
            if is_ready(state, number):
                limit.running.add(number)
                state.fresh.append(number)


def counts(state: State, number: int) -> bool:
    """Whether a task that was let through is still on its way."""
    table = state.table_of(number)
    return table is not None and table.state[number - table.base] in (READY, AHEAD, DISPATCHED)


def is_ready(state: State, number: int) -> bool:
    """Whether a task that waits here still wants to be run."""
    table = state.table_of(number)
    return table is not None and table.state[number - table.base] == READY
