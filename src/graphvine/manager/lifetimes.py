"""Workers that stay for a known time (the wall time of their batch jobs), and what still ends before.

Rules:

- A task is begun where it is expected to end before its worker begins to leave: after what the worker was
  given before, and within its category's mean times ``duration_margin``. (The worker's own grace comes on
  top: what takes even longer has that.)
- Of a category that was not measured nothing is known, and its tasks are begun anywhere, but where they say
  how long they may run (``max_s``, ``lasts_s``): then they are expected to. ``min_s`` is asked for always.
- A task that its worker has no time left for, idle or not, is kept for the one that stays longest. If not
  even that one has the time, it is *parked*, with a warning, until one comes that has. It never fails: the
  next batch job has its whole wall time.
"""

from __future__ import annotations

import heapq

from graphvine.manager.pools import Pool
from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, KEY_MASK, READY, WAITING, PlanTable
from graphvine.manager.workers import Worker


def needed_s(state: State, table: PlanTable, index: int) -> float:
    """How many seconds a task is expected to take, at most; 0 when nothing is known."""
    category = table.categories[table.category_of[index]]
    expected = 0.0
    if state.category_count[category]:
        expected = state.category_mean[category] * state.settings.duration_margin
    if not table.timed:
        return expected
    options = table.options(index)
    bound = options.max_s or options.lasts_s
    if bound:
        expected = min(expected, bound) if expected else bound
    return max(expected, options.min_s)


def has_time(state: State, worker: Worker, table: PlanTable, index: int) -> bool:
    """Whether a task could end on a worker if it had nothing else."""
    return not worker.until or state.now + needed_s(state, table, index) <= worker.until


def has_time_now(state: State, worker: Worker, table: PlanTable, index: int) -> bool:
    """Whether a task will end there, after what the worker was given."""
    wait_s = 0.0
    if table.state[index] == AHEAD:
        # What it waits for may all be one chain.
        wait_s = worker.load
    elif len(worker.queue) - worker.held_count >= worker.cores:
        wait_s = (worker.load - worker.held_s) / worker.cores
    needed = wait_s * state.settings.duration_margin + needed_s(state, table, index)
    return state.now + needed <= worker.until


def send_on(state: State, worker: Worker, table: PlanTable, index: int) -> None:
    """There is no time left for a task on ``worker``: it is for the one that stays longest, or is parked."""
    if table.state[index] == AHEAD:
        # What it waits for is being made there; then a place is found for it.
        table.state[index] = WAITING
    elif table.state[index] == READY:
        pool = table.pools.get(index, table.pool)
        other = pool.longest()
        if other is not None and other is not worker and has_time(state, other, table, index):
            heapq.heappush(other.heap, table.key(index))
            state.mark(other)
        else:
            pool.parked.append(table.key(index))


def unpark(state: State, worker: Worker) -> None:
    """A worker is new in its pools: perhaps it has the time."""
    for pool in worker.pools:
        if pool.parked and pool.longest() is worker:
            reconsider(state, pool)


def reconsider(state: State, pool: Pool) -> None:
    """Find places for parked tasks, or park them again."""
    state.fresh += [key & KEY_MASK for key in pool.parked]
    pool.parked = []


def describe(state: State, pool: Pool, table: PlanTable, index: int) -> str:
    """What a parked task needs and what there is."""
    longest = pool.longest()
    left_s = longest.until - state.now if longest is not None else 0.0
    return (
        f"task {table.plan.keys[index]!r} is expected to take up to {needed_s(state, table, index):.0f} s; "
        f"no worker present can run it: none stays for more than {max(0.0, left_s):.0f} s. It waits for one "
        "that does"
    )
