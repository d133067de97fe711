"""Tasks that perhaps take their worker down with them: told from their neighbours by running alone.

Rules:

- When a worker is lost without a word, any task it may have been running could be the cause. Those are, of
  its queue, the first as many as it has cores and could begin, and what may have run since its last report:
  what is expected to take ``suspect_s`` per core in all (short tasks run, and are reported, by the hundred).
  So could be what it made ready for those that are held there: they are suspected beside these.
- A task that was under suspicion ``max_shared_losses`` times is from then on given only to a worker that has
  nothing else, and that worker gets nothing else until the task is answered for. What it was given and has
  not begun is called back: it may wait for what nobody else makes. At most half the workers do so.
- Only the loss of a worker where it was alone counts against a task; at ``max_lone_losses`` (or what its
  options have as ``max_deaths``) it fails. So no neighbour is ever blamed, and no task takes down one worker
  after the other for ever.
- A worker that said goodbye is lost by its own will: nobody is suspected.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from graphvine.manager import environments
from graphvine.manager.instructions import Death
from graphvine.manager.state import State
from graphvine.manager.tasks import KEY_MASK, READY, PlanTable
from graphvine.manager.workers import Worker


def is_suspect(state: State, table: PlanTable, index: int) -> bool:
    """Whether a task is to run alone."""
    return table.losses.get(index, 0) >= state.settings.max_shared_losses


def perhaps_running(state: State, worker: Worker) -> Iterator[int]:
    """Tasks that may have been running when a worker was lost."""
    horizon = worker.cores * state.settings.suspect_s
    expected = 0.0
    running = 0
    for task, seconds in worker.queue.items():
        table = state.table_of(task)
        if table is not None and task in worker.held.get(table.zygote, ()):
            yield task
            continue
        soon = expected < horizon
        if not soon and running >= worker.cores:
            return
        waits = table is not None and table.waits[task - table.base] > 0
        if soon or not waits:
            yield task
        running += not waits
        expected += seconds


def note_loss(state: State, worker: Worker) -> list[tuple[PlanTable, int]]:
    """Remember who may have taken a worker down. Returns the tasks that did so once too often."""
    doomed = []
    for task in perhaps_running(state, worker):
        table = state.table_of(task)
        if table is None:
            continue
        index = task - table.base
        table.losses[index] = table.losses.get(index, 0) + 1
        if worker.alone == task:
            lost = table.lone_losses.get(index, 0)
            table.lone_losses[index] = lost + 1
            tries = table.tries.setdefault(index, [])
            text = "the worker was lost while this task ran there alone"
            tries.append(Death(worker.hello.name, table.attempts.get(index, 0) + lost, "killed", text))
            most = table.options(index).max_deaths or state.settings.max_lone_losses
            if table.lone_losses[index] >= most:
                doomed.append((table, index))
    return doomed


def reserve(state: State) -> Iterator[Worker]:
    """Find workers for the suspects: they get nothing more, and when they have nothing left, one suspect
    each. Yields each that is found; the caller has its queue called back."""
    later: list[int] = []
    while state.suspects and len(state.lonely) < max(1, len(state.workers) // 2):
        key = state.suspects[0]
        table = state.table_of(key & KEY_MASK)
        index = (key & KEY_MASK) - table.base if table is not None else 0
        if table is None or table.state[index] != READY:
            heapq.heappop(state.suspects)
            continue
        if not environments.is_there(table):
            # It is made by others first: alone, this one would wait for it for ever.
            later.append(heapq.heappop(state.suspects))
            continue
        pool = table.pools.get(index, table.pool)
        worker = next((w for n, w in pool.hungry.items() if n not in state.lonely and not w.queue), None)
        worker = worker or next((w for n, w in pool.members.items() if n not in state.lonely), None)
        if worker is None:
            if not pool.members:
                heapq.heappop(state.suspects)
                heapq.heappush(pool.loose, key)
                continue
            break
        heapq.heappop(state.suspects)
        worker.draining = key
        state.lonely.add(worker.number)
        state.mark(worker)
        yield worker
    for key in later:
        heapq.heappush(state.suspects, key)


def answered(state: State, worker: Worker, number: int) -> None:
    """A lone task was answered for: its worker is like any other again."""
    if worker.alone == number:
        worker.alone = 0
        state.lonely.discard(worker.number)
        state.mark(worker)
