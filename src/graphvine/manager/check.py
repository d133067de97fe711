"""Invariants of the core, checked by looking at everything. For tests: called after every step of a simulated
one."""

from __future__ import annotations

from graphvine.manager import demand, environments, limits, readiness
from graphvine.manager.core import Core
from graphvine.manager.files import exists, holders
from graphvine.manager.placement import pool_of
from graphvine.manager.pools import PoolKey
from graphvine.manager.state import State
from graphvine.manager.tasks import AHEAD, DISPATCHED, DONE, KEY_MASK, READY, RELEASED, WAITING, PlanTable
from graphvine.manager.workers import Worker


def check(core: Core) -> None:
    """Raise AssertionError when the core's tables contradict each other. To be called after ``turn``."""
    state = core.state
    assert not state.fresh, "tasks were left without a place"
    for table in state.plans.values():
        check_counts(state, table)
        check_tasks(state, table)
        check_results(state, table)
        check_spread(table)
    check_places(state)
    check_limits(state)
    check_workers(state)
    check_demand(state)


def check_counts(state: State, table: PlanTable) -> None:
    """``waits`` and ``need`` are what they say they are."""
    for index in range(table.size):
        what = f"task {table.base + index}"
        if table.state[index] < DONE:
            missing = sum(1 for origin, name in table.input_files(index) if origin.state[name] != DONE)
            assert table.waits[index] == missing, f"{what} waits for {table.waits[index]}, not {missing}"
        users = sum(1 for plan, task in table.consumer_tasks(index) if plan.state[task] < DONE)
        holds = int(index in table.kept)
        holds += sum(1 for plan, _ in table.wanted_by.get(index, ()) if not plan.keep)
        holds += environments.count_users(state, table, index)
        assert table.need[index] == users + holds, f"{what}: need {table.need[index]}, not {users} + {holds}"


def check_tasks(state: State, table: PlanTable) -> None:
    """Each state means what it says."""
    for index in range(table.size):
        number = table.base + index
        current = table.state[index]
        what = f"task {number}"
        if current == WAITING:
            assert table.waits[index], f"{what} waits for nothing"
        elif current == READY:
            assert not table.waits[index], f"{what} is ready and lacks inputs"
        elif current == DISPATCHED:
            assert number in state.workers[table.where[index]].queue, f"{what} is in nobody's queue"
        elif current == DONE:
            assert table.need[index], f"{what} is done and not needed"
            assert exists(table, index), f"the result of {what} is nowhere"
            for holder in holders(table, index):
                assert number in state.workers[holder].log, f"{what} is not in the log of worker {holder}"
        elif current == RELEASED:
            assert table.data[index] is None, f"{what} is released and has data"
        if current not in (DISPATCHED, DONE):
            assert not table.where[index], f"{what} is somewhere"
            assert index not in table.extra, f"{what} has replicas"
        if current != RELEASED and not table.over and table.need[index]:
            for origin, name in table.input_files(index) if current < DONE else ():
                assert origin.state[name] != RELEASED, f"an input of {what} was released"


def check_spread(table: PlanTable) -> None:
    """Large files are passed on by those that have them or will have them, and never in a ring."""
    for index, spread in table.spread.items():
        what = f"file {table.base + index}"
        assert table.state[index] == DONE, f"{what} is spread and does not exist"
        assert index in table.extra, f"{what} is spread to nobody"
        children: dict[int, int] = {}
        for node in spread.nodes.values():
            known = table.where[index] == node.worker or node.worker in table.extra.get(index, ())
            assert known, f"{what} is spread by worker {node.worker}, which was not told of it"
            if node.parent is not None:
                children[id(node.parent)] = children.get(id(node.parent), 0) + 1
            above, steps = node.parent, 0
            while above is not None:
                steps += 1
                assert steps <= 2 * len(spread.nodes) + 1, f"{what} goes round in a ring"
                above = above.parent
        for node in spread.nodes.values():
            count = children.get(id(node), 0)
            assert node.children == count, f"{what}: {node.children} children of {node.worker}, not {count}"


def check_results(state: State, table: PlanTable) -> None:
    """What is wanted is counted, and a plan that is over is there for a reason."""
    if table.over:
        assert table.kept or table.refs, f"plan {table.base} is over and was not freed"
        return
    assert table.left > 0, f"plan {table.base} lacks nothing and is not over"
    refs = sum(1 for plan in state.plans.values() if any(origin is table for origin, _ in plan.origins))
    assert refs == table.refs, f"plan {table.base} is named by {refs}, not {table.refs}"
    counts = [0] * len(table.done_of)
    for index in range(table.size):
        counts[table.category_of[index]] += table.state[index] >= DONE
    assert counts == table.done_of, f"plan {table.base}: done {table.done_of}, not {counts}"
    running = [0] * len(table.done_of)
    for index in range(table.size):
        running[table.category_of[index]] += table.state[index] == DISPATCHED
    assert running == table.running_of, f"plan {table.base}: running {table.running_of}, not {running}"


def check_places(state: State) -> None:
    """Every ready task lies where a worker that may run it will find it; every task ahead in a heap."""
    heaps: dict[int, set[int]] = {}
    for worker in state.workers.values():
        for key in worker.heap + worker.share:
            heaps.setdefault(key & KEY_MASK, set()).add(worker.number)
    pooled: dict[int, set[int]] = {}
    for number, pool in enumerate(state.pools.values()):
        keys = [key for _, _, segment in pool.segments for key in segment.keys] + pool.loose + pool.parked
        for key in keys:
            pooled.setdefault(key & KEY_MASK, set()).add(number)
    suspects = {key & KEY_MASK for key in state.suspects}
    suspects |= {key & KEY_MASK for limit in state.limits.values() for key in limit.waiting}
    suspects |= {worker.draining & KEY_MASK for worker in state.workers.values() if worker.draining}
    pools = list(state.pools.values())
    for table in state.plans.values():
        for index in range(table.size):
            number = table.base + index
            if table.state[index] not in (READY, AHEAD):
                continue
            pool = pool_of(table, index)
            kept = any(worker in pool.members for worker in heaps.get(number, ()))
            if table.state[index] == READY:
                kept = kept or pools.index(pool) in pooled.get(number, ()) or number in suspects
            assert kept, f"task {number} is ready and lies nowhere"


def check_limits(state: State) -> None:
    """No more tasks of a limit are on their way than it allowed, and nobody waits without need."""
    for name, limit in state.limits.items():
        waiting = {key & KEY_MASK for key in limit.waiting}
        ready = {number for number in waiting if limits.is_ready(state, number)} - limit.running
        wanted = ready or any(limits.runs(state, runner) for runner, _ in limit.asking)
        assert not wanted or not limit.has_room(), f"tasks wait for {name!r} in vain"
        for table in state.plans.values():
            for index in table.in_state(DISPATCHED):
                if pool_of(table, index).limit == name:
                    assert table.base + index in limit.running, f"task {table.base + index} passed {name!r}"


def check_workers(state: State) -> None:
    """Queues hold dispatched tasks, and nobody who could work is idle while there is work for everybody."""
    assert set(state.workers) == set(state.heard)
    asked: dict[int, int] = {}
    for task, thief in state.recalled.items():
        assert any(task in worker.queue for worker in state.workers.values()), (
            f"{task} was called back from nobody"
        )
        asked[thief] = asked.get(thief, 0) + 1
    for worker in state.workers.values():
        for task in worker.queue:
            table = state.table_of(task)
            assert table is not None, f"task {task} is in a queue and of no plan"
            assert table.state[task - table.base] == DISPATCHED
            assert table.where[task - table.base] == worker.number
        assert abs(worker.load - sum(worker.queue.values())) < 1e-6
        check_held(state, worker)
        assert worker.asked == asked.get(worker.number, 0)
        assert not worker.alone or list(worker.queue) == [worker.alone]
        assert not worker.blocked or not worker.pools, f"worker {worker.number} is blocked and in a pool"
        assert (worker.number in state.lonely) == bool(worker.alone or worker.draining)
        begun = len(worker.queue) - worker.held_count
        if begun < worker.cores and not worker.draining and not worker.alone:
            for pool in worker.pools:
                idle = pool and readiness.room(state, worker, pool.zygote)
                assert not idle, f"worker {worker.number} is idle and there is work in its pool"


def check_held(state: State, worker: Worker) -> None:
    """What is held of a worker's queue is what needs a zygote that is not ready there."""
    held: dict[int, dict[int, float]] = {}
    for task, expected in worker.queue.items():
        table = state.table_of(task)
        if table is not None and table.zygote and table.zygote not in worker.ready:
            held.setdefault(table.zygote, {})[task] = expected
    assert worker.held == held, f"worker {worker.number} holds {worker.held}, not {held}"
    assert worker.held_count == sum(map(len, held.values()))
    assert abs(worker.held_s - sum(sum(tasks.values()) for tasks in held.values())) < 1e-6


def check_demand(state: State) -> None:
    """What is told to those who start workers is what there is."""
    if state.watch is None:
        return
    demand.look(state)
    counted = {base: found for base, table in state.plans.items() if (found := demand.count(table))}
    assert state.watch.counts == counted, "a plan changed, and nobody said so"
    totals: dict[PoolKey, demand.Count] = {}
    for rows in counted.values():
        for key, row in rows.items():
            totals.setdefault(key, demand.Count()).add(row, 1)
    assert state.watch.totals == totals
    idle = {number for number, worker in state.workers.items() if not worker.queue}
    assert set(state.watch.idle) == idle, f"idle are {idle}, not {set(state.watch.idle)}"
