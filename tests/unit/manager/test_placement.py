"""Where ready tasks go: locality, shares, stealing, recall."""

from __future__ import annotations

import pytest

from graphvine.manager import placement
from graphvine.manager.core import Core
from graphvine.manager.instructions import Instruction, Say
from graphvine.manager.plan import Plan
from graphvine.manager.pools import Pool, fits
from graphvine.manager.rehearsal import FakeWorker, Rehearsal
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Address, Assign, Hello, Recall, Report, Resources, TaskDone


def plan_of(inputs: list[tuple[int, ...]], wanted: list[int] | None = None) -> Plan:
    size = len(inputs)
    return Plan(
        keys=list(range(size)),
        inputs=inputs,
        blobs=[b"blob"],
        blob_of=[0] * size,
        blob_index=list(range(size)),
        categories=["leaf", "inner"],
        category_of=[1 if names else 0 for names in inputs],
        wanted=[size - 1] if wanted is None else wanted,
    )


def recalls(instructions: list[Instruction]) -> dict[int, list[int]]:
    return {
        said.worker: message.tasks
        for said in instructions
        if isinstance(said, Say)
        for message in said.messages
        if isinstance(message, Recall)
    }


def run_some(cluster: Rehearsal, worker: FakeWorker, count: int) -> None:
    while cluster.to_worker[worker.number]:
        cluster.deliver_to_worker(worker.number)
    for task in worker.can_begin()[:count]:
        worker.begin(task)
        worker.finish(task)
    worker.send()
    while cluster.to_manager[worker.number]:
        cluster.deliver_to_manager(worker.number)


def test_a_task_goes_where_most_bytes_of_its_input_are(cluster: Rehearsal) -> None:
    cluster.join()
    cluster.join()
    # Two pairs of leaves, each on its own worker; the large one is the second pair's.
    base = cluster.run(plan_of([(), (), (), (0, 2), (1, 2)], wanted=[3, 4]), large=[1])
    cluster.settle()
    home = next(worker for worker in cluster.workers.values() if base + 1 in worker.ran)
    assert base + 4 in home.ran


def test_neighbours_go_to_the_same_worker(cluster: Rehearsal) -> None:
    cluster.duration_s = 1e-6
    for _ in range(4):
        cluster.join()
    inputs: list[tuple[int, ...]] = []
    tops = []
    for _ in range(64):
        inputs += [()] * 8
        inputs.append(tuple(range(len(inputs) - 8, len(inputs))))
        tops.append(len(inputs) - 1)
    base = cluster.run(plan_of(inputs, wanted=tops))
    cluster.settle()
    apart = 0
    for top in tops:
        ran_by = {
            worker.number
            for worker in cluster.workers.values()
            for task in (top, *inputs[top])
            if base + task in worker.ran
        }
        apart += len(ran_by) > 1
    assert apart <= 6


def test_leaves_are_shared_among_all_workers(cluster: Rehearsal) -> None:
    for _ in range(5):
        cluster.join()
    cluster.duration_s = 0.01
    cluster.run(plan_of([()] * 500, wanted=list(range(500))))
    cluster.settle()
    assert all(len(worker.ran) > 50 for worker in cluster.workers.values())


def test_a_worker_that_runs_dry_takes_over_leaves_kept_for_another(cluster: Rehearsal) -> None:
    stuck = cluster.join()
    cluster.run(plan_of([()] * 100, wanted=list(range(100))))
    cluster.turn()
    # Nobody else was there, so half of the leaves are kept for it.
    assert len(cluster.core.state.workers[stuck.number].share) == 49
    quick = cluster.join()
    cluster.duration_s = 0.01
    for _ in range(200):
        cluster.turn()
        run_some(cluster, quick, 100)
    assert len(quick.ran) >= 98


def test_a_dry_worker_has_queued_tasks_called_back_from_a_busy_one(cluster: Rehearsal) -> None:
    busy = cluster.join(cores=2)
    cluster.run(plan_of([()] * 4, wanted=[0, 1, 2, 3]))
    cluster.turn()
    assert len(cluster.core.state.workers[busy.number].queue) == 4
    idle = cluster.join(cores=2)
    called = recalls(cluster.turn())
    assert list(called) == [busy.number]
    assert len(called[busy.number]) == 1
    cluster.react()
    cluster.settle()
    assert not cluster.core.state.recalled
    assert idle.number in cluster.workers


def test_what_was_called_back_goes_to_the_one_that_asked(cluster: Rehearsal) -> None:
    busy = cluster.join(cores=1)
    base = cluster.run(plan_of([()] * 2, wanted=[0, 1]))
    cluster.turn()
    while cluster.to_worker[busy.number]:
        cluster.deliver_to_worker(busy.number)
    busy.begin(base)
    idle = cluster.join(cores=1)
    cluster.turn()
    cluster.deliver_to_worker(busy.number)
    busy.send()
    cluster.deliver_to_manager(busy.number)
    cluster.turn()
    run_some(cluster, idle, 1)
    assert idle.ran == [base + 1]


def test_a_recalled_task_that_had_begun_counts_where_it_ran(cluster: Rehearsal) -> None:
    busy = cluster.join(cores=1)
    base = cluster.run(plan_of([()] * 2, wanted=[0, 1]))
    cluster.turn()
    while cluster.to_worker[busy.number]:
        cluster.deliver_to_worker(busy.number)
    busy.begin(base)
    busy.begin(base + 1)
    idle = cluster.join(cores=1)
    assert recalls(cluster.turn()) == {busy.number: [base + 1]}
    cluster.settle()
    assert idle.ran == []
    assert cluster.results[base] == cluster.expected(base)


def test_a_widely_shared_input_draws_nobody() -> None:
    cluster = Rehearsal(Core(Settings(checked=True, wide=4)))
    for _ in range(4):
        cluster.join()
    cluster.duration_s = 0.01
    base = cluster.run(plan_of([(), *[(0,)] * 100], wanted=list(range(1, 101))), large=[0])
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert all(len(worker.ran) > 10 for worker in cluster.workers.values())


@pytest.mark.parametrize(
    ("request_", "capacity", "verdict"),
    [
        (Resources(), Resources(1), True),
        (Resources(2), Resources(1), False),
        (Resources(1, 100), Resources(8, 99), False),
        (Resources(1, 0, 5), Resources(1, 0, 5), True),
        (Resources(1, gpus=1), Resources(8, 9, 9), False),
    ],
)
def test_a_request_fits_or_not(request_: Resources, capacity: Resources, verdict: bool) -> None:
    assert fits(request_, capacity) is verdict


def test_shares_shrink_as_the_pool_does(cluster: Rehearsal) -> None:
    for _ in range(2):
        cluster.join()
    cluster.run(plan_of([()] * 64, wanted=list(range(64))))
    pool: Pool = next(iter(cluster.core.state.pools.values()))
    worker = cluster.core.state.workers[1]
    sizes = []
    while pool:
        sizes.append(len(pool.cut(worker, 64)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 17
    assert sum(sizes) == 64


def test_a_loose_task_of_higher_priority_is_urgent_and_one_of_the_same_is_not() -> None:
    pool = Pool(Resources(), ())
    pool.loose = [5 - (1 << 48)]
    assert pool.urgent(3)
    assert not pool.urgent(3 - (1 << 48))
    pool.loose = [1]
    assert not pool.urgent(3)


def test_when_many_run_dry_at_once_few_look_for_what_to_steal(monkeypatch: pytest.MonkeyPatch) -> None:
    count, busy = 400, 2
    core = Core(Settings())
    for number in range(1, count + 1):
        address = Address("10.0.0.1", number)
        core.on_worker_joined(
            number,
            Hello(1, "0", "3.11", f"w{number}", "h", f"n{number}", "", number, Resources(1, 8000), [address]),
            0.0,
        )
    core.turn(0.0)
    core.on_plan(plan_of([()] * (2 * count), wanted=list(range(2 * count))), False, 0.0)
    given = {
        said.worker: [
            order.task for message in said.messages if isinstance(message, Assign) for order in message.orders
        ]
        for said in core.turn(0.0)
        if isinstance(said, Say)
    }
    assert sorted(map(len, given.values())) == [2] * count
    for number, tasks in given.items():
        if number > busy:
            core.on_message(number, Report(done=[TaskDone(task, 1, b"v", 0.0, 1.0) for task in tasks]), 1.0)
    looked: list[int] = []
    pop_victim = placement.pop_victim
    monkeypatch.setattr(placement, "pop_victim", lambda state: (looked.append(1), pop_victim(state))[1])
    asked = recalls(core.turn(1.0))
    assert set(asked) == set(range(1, busy + 1)), "what is queued at the busy ones is called back"
    assert 0 < len(looked) < count / 2, "the others wait for what comes of it"
