"""Tasks that take their worker down are found out; their neighbours are not blamed."""

from __future__ import annotations

from graphvine.manager.instructions import PlanDone, PlanFailed
from graphvine.manager.plan import Plan
from graphvine.manager.rehearsal import FakeWorker, Rehearsal


def plan_of(size: int) -> Plan:
    return Plan(
        keys=[f"t{task}" for task in range(size)],
        inputs=[()] * size,
        blobs=[b"blob"],
        blob_of=[0] * size,
        blob_index=list(range(size)),
        categories=["work"],
        category_of=[0] * size,
        wanted=list(range(size)),
    )


def work_until_deadly(cluster: Rehearsal, worker: FakeWorker, deadly: int) -> bool:
    """Run what a worker was given, in order. False when it came to the deadly task, and is gone."""
    cluster.deliver_all_to_worker(worker.number)
    for task in worker.can_begin():
        if task == deadly:
            cluster.kill(worker.number)
            return False
        worker.begin(task)
        worker.finish(task)
    worker.send()
    while cluster.to_manager[worker.number]:
        cluster.deliver_to_manager(worker.number)
    return True


def run_with_deadly(cluster: Rehearsal, deadly: int, workers: int, cores: int) -> int:
    """Go on, replacing each lost worker, until nothing moves. Returns how many were lost."""
    lost = 0
    for _ in range(workers):
        cluster.join(cores)
    for _ in range(500):
        cluster.turn()
        if not any(worker.queue for worker in cluster.core.state.workers.values()):
            return lost
        for worker in list(cluster.workers.values()):
            if not work_until_deadly(cluster, worker, deadly):
                lost += 1
                cluster.join(cores)
    raise AssertionError("no end in sight")


def test_a_task_that_takes_every_worker_down_fails_alone(cluster: Rehearsal) -> None:
    other = cluster.run(plan_of(20))
    base = cluster.run(plan_of(8))
    lost = run_with_deadly(cluster, base + 3, workers=2, cores=2)
    failed = cluster.over[base]
    assert isinstance(failed, PlanFailed)
    assert (failed.kind, failed.task) == ("killed", 3)
    assert len(failed.tries) == cluster.core.settings.max_lone_losses
    assert [death.attempt for death in failed.tries] == list(range(len(failed.tries)))
    assert isinstance(cluster.over[other], PlanDone)
    settings = cluster.core.settings
    assert lost <= 2 * settings.max_shared_losses + settings.max_lone_losses


def test_one_worker_after_the_other_is_enough_to_find_it_out(cluster: Rehearsal) -> None:
    base = cluster.run(plan_of(4))
    run_with_deadly(cluster, base, workers=1, cores=4)
    failed = cluster.over[base]
    assert isinstance(failed, PlanFailed)
    assert failed.task == 0


def test_a_deadly_task_among_hundreds_of_short_ones_is_found_out(cluster: Rehearsal) -> None:
    cluster.duration_s = 1e-6
    base = cluster.run(plan_of(300))
    run_with_deadly(cluster, base + 250, workers=1, cores=1)
    failed = cluster.over[base]
    assert isinstance(failed, PlanFailed)
    assert failed.task == 250


def test_neighbours_of_lost_workers_finish_however_many_are_lost(cluster: Rehearsal) -> None:
    base = cluster.run(plan_of(6))
    for _ in range(10):
        worker = cluster.join(cores=3)
        cluster.turn()
        if cluster.core.state.lonely:
            break
        cluster.kill(worker.number)
        cluster.turn()
    assert cluster.core.state.lonely
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert not cluster.core.state.lonely


def test_a_suspect_has_its_worker_for_itself(cluster: Rehearsal) -> None:
    base = cluster.run(plan_of(2))
    for _ in range(2):
        worker = cluster.join(cores=2)
        cluster.turn()
        cluster.kill(worker.number)
    worker = cluster.join(cores=2)
    cluster.turn()
    assert list(cluster.core.state.workers[worker.number].queue) == [base]
    other = cluster.run(plan_of(3))
    cluster.turn()
    assert list(cluster.core.state.workers[worker.number].queue) == [base]
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert cluster.results[other] == cluster.expected(other)
