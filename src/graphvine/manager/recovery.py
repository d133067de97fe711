"""What is done about losses: of files, of orders, of workers, and about tasks that fail.

Rules:

- A file that lost its last holder, and is not small, is made again if somebody needs it, else released: its
  task goes back to waiting, and so, through files that were released, does everything it needs. Once each.
- An order that relied on a file which is not where the order said is called back: it returns unless it has
  begun (and then it had its inputs), and is given out again when the file exists. So is an order that was
  given ahead of an input which went elsewhere.
- An order whose worker was lost goes back to where it came from. Nobody is blamed for that but a suspect
  (below).
- A task that killed its executor ``max_deaths`` times fails, unless its options say how often it may. One
  that raised is tried again as its options say.
- One that was lost with its workers more often than its options allow fails. (Without them, never.)
- Who is suspected of taking workers down, and what is done about it: see ``suspects``.
"""

from __future__ import annotations

import heapq

from graphvine.manager import demand, results, separate, suspects
from graphvine.manager.files import (
    drop,
    drop_everywhere,
    exists,
    forget_extra,
    forget_replica,
    holders,
    ready,
    restore,
    unstage,
)
from graphvine.manager.instructions import Death
from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, DISPATCHED, DONE, KEY_MASK, READY, RELEASED, WAITING, PlanTable
from graphvine.manager.withdrawal import forget_order
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import TaskFailed

# -- files ----------------------------------------------------------------------------------------------


def lose_replica(state: State, table: PlanTable, index: int, worker: int) -> None:
    """``worker`` does not have a file (any more)."""
    if table.state[index] != DONE:
        if index in table.extra:
            forget_extra(table, index, worker)
        return
    forget_replica(table, index, worker)
    if not exists(table, index):
        lose(state, table, index)
    elif index in table.wanted_by and not isinstance(table.data[index], bytes):
        results.offer_again(state, table, index)


def lose(state: State, table: PlanTable, index: int) -> None:
    """A file has no holder left. Make it again if it is needed."""
    if not table.need[index]:
        table.state[index] = RELEASED
        drop_everywhere(state, table, index)
        return
    results.unavailable(table, index)
    remake(state, table, index)
    # Whoever was told to fetch it can't; when it exists again they are told anew.
    table.copies.pop(index, None)
    table.spread.pop(index, None)
    state.relayed.pop(table.base + index, None)
    for other in table.extra.pop(index, ()):
        drop(state, other, table.base + index)
    for plan, task in table.consumer_tasks(index):
        current = plan.state[task]
        if current >= DONE:
            continue
        plan.waits[task] += 1
        state.touch(plan)
        if current == READY:
            plan.state[task] = WAITING
        elif current == DISPATCHED:
            call_back(state, plan, task)


def lose_staged(state: State, table: PlanTable, index: int) -> None:
    """What the manager kept for a worker that left can't be read."""
    unstage(state, table, index)
    if not exists(table, index):
        lose(state, table, index)


def lose_everywhere(state: State, table: PlanTable, index: int) -> None:
    """A file is said to lie on workers from which it can't be had: it is as good as lost."""
    for worker in holders(table, index):
        drop(state, worker, table.base + index)
        forget_replica(table, index, worker)
    lose(state, table, index)


def remake(state: State, table: PlanTable, index: int) -> None:
    """Send a task that is done back to waiting, with all that it needs and that is not there any more."""
    stack = [(table, index)]
    while stack:
        table, index = stack.pop()
        if table.state[index] < DONE or restore(table, index):
            continue
        table.state[index] = WAITING
        table.where[index] = 0
        table.data[index] = None
        table.recomputed += 1
        table.remade.add(index)
        table.done_of[table.category_of[index]] -= 1
        state.touch(table)
        missing = 0
        for origin, name in table.input_files(index):
            origin.need[name] += 1
            if origin.state[name] != DONE and not restore(origin, name):
                missing += 1
                if origin.state[name] == RELEASED:
                    stack.append((origin, name))
        table.waits[index] = missing
        if not missing:
            ready(state, table, index)


# -- orders ---------------------------------------------------------------------------------------------


def call_back(state: State, table: PlanTable, index: int) -> None:
    """Have an order called back whose input is not where it was said to be."""
    number = table.base + index
    if number in state.recalled:
        return
    worker = state.workers[table.where[index]]
    state.recalled[number] = 0
    worker.outbox.also().recalls.append(number)
    state.mark(worker)


def call_back_queue(state: State, worker: Worker) -> None:
    """Have everything called back that a worker has not begun, but what is to run there alone."""
    for task in worker.queue:
        table = state.table_of(task)
        if table is not None and task != worker.alone:
            call_back(state, table, task - table.base)


def call_back_lone(state: State, worker: Worker) -> None:
    """Have the task called back that was to run on a worker alone, if it has not begun."""
    table = state.table_of(worker.alone)
    if table is not None and worker.alone in worker.queue:
        call_back(state, table, worker.alone - table.base)


def refuse_followers(state: State, table: PlanTable, index: int, worker: Worker, reason: str) -> None:
    """``worker`` can't take a file in that can't be made anew: what was to run there with it is for others,
    or fails when that was tried too often."""
    for plan, task in list(table.consumer_tasks(index)):
        if plan.state[task] == DISPATCHED and plan.where[task] == worker.number:
            number = plan.base + task
            worker.outbox.also().cancels.append(number)
            on_failed(state, worker, TaskFailed(number, plan.attempts.get(task, 0), "storage", reason))
    forget_replica(table, index, worker.number)
    drop(state, worker.number, table.base + index)


def call_back_followers(state: State, table: PlanTable, index: int, worker: int) -> None:
    """Call back what ``worker`` was given in the belief that the input ``index`` would come to be there."""
    for plan, task in table.consumer_tasks(index):
        if plan.state[task] == DISPATCHED and plan.where[task] == worker:
            call_back(state, plan, task)


def give_back(state: State, table: PlanTable, index: int) -> bool:
    """An order is void: its task waits again. True when it has all its inputs: the caller finds it a
    place."""
    forget_order(state, table.where[index], table.base + index)
    table.where[index] = 0
    table.running_of[table.category_of[index]] -= 1
    table.state[index] = WAITING if table.waits[index] else READY
    state.touch(table)
    return not table.waits[index]


def on_returned(state: State, worker: Worker, tasks: list[int]) -> None:
    """Tasks that were called back and had not begun."""
    for number in tasks:
        expected = worker.queue.pop(number, None)
        table = state.table_of(number)
        if expected is None or table is None:
            continue
        worker.load -= expected
        worker.answered(number)
        index = number - table.base
        thief = state.workers.get(state.recalled.get(number, 0))
        if give_back(state, table, index):
            if thief is not None:
                heapq.heappush(thief.heap, table.key(index))
                state.mark(thief)
            else:
                state.fresh.append(number)
        call_back_followers(state, table, index, worker.number)


# -- workers --------------------------------------------------------------------------------------------


def lose_worker(state: State, worker: Worker, blame: bool) -> None:
    """A worker is gone, with all it had. With ``blame`` nobody knows why."""
    number = worker.number
    demand.note_lost(state, worker)
    leaves = state.departures.pop(number, None) is not None
    state.lost += blame and not leaves
    worker.give_up_taking()
    del state.workers[number]
    del state.heard[number]
    state.cores = sum(other.cores for other in state.workers.values()) if state.workers else 0.0
    state.marked.pop(number, None)
    for name in {worker.hello.name, worker.hello.host}:
        del state.named[name][number]
        if not state.named[name]:
            del state.named[name]
    for pool in worker.pools:
        pool.part(worker)
    doomed = suspects.note_loss(state, worker) if blame and not leaves else []
    state.lonely.discard(number)
    if worker.draining:
        heapq.heappush(state.suspects, worker.draining)
    forsaken = []
    for task in worker.queue:
        table = state.table_of(task)
        if table is None:
            continue
        if give_back(state, table, task - table.base):
            state.fresh.append(task)
        if table.counted and was_lost_too_often(table, task - table.base):
            forsaken.append((table, task - table.base))
    replace(state, worker.heap)
    replace(state, worker.share)
    for blob in worker.blobs:
        table = state.table_of(blob)
        if table is not None:
            table.blob_at[blob - table.blob_base].pop(number, None)
    for file in dict.fromkeys(worker.log):
        table = state.table_of(file)
        if table is not None:
            index = file - table.base
            if table.where[index] == number or number in table.extra.get(index, ()):
                lose_replica(state, table, index, number)
    for table, index in doomed:
        if table.base in state.plans:
            text = "every worker that ran it alone was lost"
            separate.fail(state, table, index, "killed", text)
    for table, index in forsaken:
        if table.base in state.plans and table.state[index] < DISPATCHED:
            text = f"its worker was lost before it was done, {table.lost_orders[index]} times"
            separate.fail(state, table, index, "unrunnable", text)


def was_lost_too_often(table: PlanTable, index: int) -> bool:
    """Count that a task was lost with its worker. Whether that is more often than its options allow."""
    table.lost_orders[index] = times = table.lost_orders.get(index, 0) + 1
    return 0 <= table.options(index).max_losses < times


def replace(state: State, keys: list[int]) -> None:
    """Find another place for ready tasks that were kept for a worker."""
    for key in keys:
        task = key & KEY_MASK
        table = state.table_of(task)
        if table is None:
            continue
        if table.state[task - table.base] == AHEAD:
            table.state[task - table.base] = WAITING
        state.fresh.append(task)


# -- failures -------------------------------------------------------------------------------------------


def on_failed(state: State, worker: Worker, failure: TaskFailed) -> None:
    """A task did not succeed: try again, or give its plan up."""
    expected = worker.queue.pop(failure.task, None)
    table = state.table_of(failure.task)
    if expected is None or table is None:
        return
    worker.load -= expected
    worker.answered(failure.task)
    index = failure.task - table.base
    tries = table.tries.setdefault(index, [])
    tries.append(Death(worker.hello.name, failure.attempt, failure.kind, failure.text))
    if failure.kind == "storage":
        table.avoid.setdefault(index, set()).add(worker.number)
    table.attempts[index] = table.attempts.get(index, 0) + 1
    table.failed_of[table.category_of[index]] += 1
    again = sum(1 for death in tries if death.kind == failure.kind) < tries_allowed(
        state, table, index, failure.kind
    )
    if give_back(state, table, index):
        state.fresh.append(failure.task)
    if again or table.plan.separate:
        call_back_followers(state, table, index, worker.number)
    if not again:
        separate.fail(state, table, index, failure.kind, failure.text, failure, worker)


def tries_allowed(state: State, table: PlanTable, index: int, kind: str) -> int:
    """How often a task may fail in this way before that is the end."""
    if kind == "raised":
        return table.options(index).retries + 1
    if kind == "killed":
        return table.options(index).max_deaths or state.settings.max_deaths
    return state.settings.max_storage_tries if kind == "storage" else 1
