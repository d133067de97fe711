"""What workers have yet to make ready: environments that are unpacked, libraries that are set up.

Tasks whose context needs a zygote of its own (see ``protocol.zygotes``) can't begin on a worker before that
is ready there, which may take a minute. Rules:

- A worker says what is ready there, and what is not any more; until it does, it is not.
- What a worker was given and waits there for that is *held*. It takes no place: the worker is given other
  work, as if it had none of these tasks.
- Of the tasks of one zygote that is not ready there, a worker is given no more than of unmeasured ones. The
  others stay where whoever is ready sooner finds them.
- A worker that is ready may have held ones called back from others, however few there are.
"""

from __future__ import annotations

import heapq
import math

from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, READY, WAITING, PlanTable
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import ContextNews

#: Room where there is no bound.
MANY = 2**40


def room(state: State, worker: Worker, zygote: int) -> int:
    """How many more tasks that need a zygote a worker may be given, as far as that decides."""
    if not zygote or zygote in worker.ready:
        return MANY
    # However many are given ahead elsewhere: that changes with every plan, and nobody would look again at
    # workers that had no room.
    most = math.ceil(state.settings.ahead_per_core * worker.cores)
    return max(0, most - len(worker.held.get(zygote, ())))


def hold(worker: Worker, zygote: int, number: int, expected: float) -> None:
    """A worker was given a task whose zygote is not ready there."""
    worker.held.setdefault(zygote, {})[number] = expected
    worker.held_count += 1
    worker.held_s += expected


def on_news(state: State, worker: Worker, news: ContextNews) -> bool:
    """A worker says whether what a context needs is ready there. False when there is no such context."""
    zygote = state.zygote_of.get(news.context)
    if zygote is None:
        return False
    if news.ready:
        worker.ready.add(zygote)
        for number in list(worker.held.get(zygote, ())):
            worker.answered(number)
    elif zygote in worker.ready:
        worker.ready.discard(zygote)
        for number, expected in worker.queue.items():
            table = state.table_of(number)
            if table is not None and table.zygote == zygote:
                hold(worker, zygote, number, expected)
    return True


def send_on(state: State, table: PlanTable, index: int) -> None:
    """There is no room for a task on the worker it was kept for: it is for whoever has."""
    if table.state[index] == AHEAD:
        # What it waits for is being made there; then a place is found for it.
        table.state[index] = WAITING
    elif table.state[index] == READY:
        pool = table.pools.get(index, table.pool)
        heapq.heappush(pool.loose, table.key(index))
        if pool.hungry:
            state.mark(pool.hungry.popitem(last=False)[1])
