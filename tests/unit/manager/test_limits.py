"""Named limits."""

from __future__ import annotations

from graphvine.manager import rehearsal
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.manager.rehearsal import Rehearsal

SLOW = TaskOptions(limit="server")


def plan_of(inputs: list[tuple[int, ...]], options: dict[int, TaskOptions], **more: object) -> Plan:
    """All of it is wanted."""
    return rehearsal.plan_of(inputs, range(len(inputs)), options=options, **more)


def given_out(cluster: Rehearsal) -> dict[int, int]:
    """Tasks that workers were given, and to whom."""
    cluster.turn()
    for number in cluster.workers:
        cluster.deliver_all_to_worker(number)
    return {
        task: worker.number for worker in cluster.workers.values() for task in [*worker.orders, *worker.begun]
    }


def end(cluster: Rehearsal, task: int, kind: str = "") -> None:
    worker = cluster.workers[given_out(cluster)[task]]
    worker.begin(task)
    if kind:
        worker.fail(task, kind)
    else:
        worker.finish(task)
    worker.send()
    cluster.deliver_to_manager(worker.number)


def test_only_so_many_run_at_once_on_all_workers_together(cluster: Rehearsal) -> None:
    for _ in range(3):
        cluster.join(cores=4)
    cluster.core.on_limit("server", 2, 0.0)
    base = cluster.run(plan_of([()] * 6, dict.fromkeys(range(5), SLOW)))
    assert sorted(given_out(cluster)) == [base, base + 1, base + 5]
    end(cluster, base)
    assert sorted(given_out(cluster)) == [base + 1, base + 2, base + 5]
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_task_counts_while_it_is_tried_again_and_no_longer_than_its_plan(cluster: Rehearsal) -> None:
    cluster.join(cores=4)
    cluster.core.on_limit("server", 1, 0.0)
    again = TaskOptions(limit="server", retries=1)
    base = cluster.run(plan_of([()] * 3, {}, default_options=again, separate=True))
    end(cluster, base, "raised")
    assert sorted(given_out(cluster)) == [base]
    end(cluster, base, "raised")
    assert sorted(given_out(cluster)) == [base + 1]
    other = cluster.run(plan_of([()], {0: SLOW}))
    cluster.core.on_cancel_plan(base, 0.0)
    assert sorted(given_out(cluster)) == [other]


def test_a_lost_worker_and_a_changed_limit(cluster: Rehearsal) -> None:
    first = cluster.join(cores=4)
    cluster.core.on_limit("server", 2, 0.0)
    base = cluster.run(plan_of([()] * 6, {}, default_options=SLOW))
    assert len(given_out(cluster)) == 2
    second = cluster.join(cores=4)
    cluster.kill(first.number)
    assert given_out(cluster) == {base: second.number, base + 1: second.number}
    cluster.core.on_limit("server", 1, 0.0)
    end(cluster, base)
    assert sorted(given_out(cluster)) == [base + 1]
    cluster.core.on_limit("server", 3, 0.0)
    assert len(given_out(cluster)) == 3
    cluster.core.on_limit("server", None, 0.0)
    assert len(given_out(cluster)) == 5
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_what_waits_for_inputs_is_not_given_ahead_of_its_limit(cluster: Rehearsal) -> None:
    cluster.join(cores=4)
    cluster.core.on_limit("server", 1, 0.0)
    base = cluster.run(plan_of([(), (), (0,), (1,)], {2: SLOW, 3: SLOW}))
    assert sorted(given_out(cluster)) == [base, base + 1]
    end(cluster, base)
    end(cluster, base + 1)
    assert sorted(given_out(cluster)) == [base + 2]
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_name_without_a_limit_lets_everybody_through(cluster: Rehearsal) -> None:
    cluster.join(cores=4)
    cluster.run(plan_of([()] * 3, dict.fromkeys(range(3), SLOW)))
    assert len(given_out(cluster)) == 3
