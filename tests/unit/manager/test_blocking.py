"""Hosts that get no tasks, and workers with features."""

from __future__ import annotations

from graphvine.manager import rehearsal
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.manager.rehearsal import Rehearsal
from graphvine.protocol.messages import Resources


def plan_of(inputs: list[tuple[int, ...]], **more: object) -> Plan:
    """All of it is wanted."""
    return rehearsal.plan_of(inputs, range(len(inputs)), **more)


def test_what_has_not_begun_goes_elsewhere_and_what_runs_goes_on(cluster: Rehearsal) -> None:
    bad = cluster.join()
    base = cluster.run(plan_of([()] * 10 + [(0,), (1,)]))
    cluster.turn()
    cluster.deliver_to_worker(bad.number)
    bad.begin(base)
    good = cluster.join()
    cluster.core.on_block_host(bad.hello.host, None, 0.0)
    cluster.settle()
    assert bad.ran == [base]
    assert len(good.ran) == 11
    assert cluster.results[base] == cluster.expected(base)


def test_what_a_blocked_worker_holds_is_used(cluster: Rehearsal) -> None:
    bad = cluster.join()
    base = cluster.run(plan_of([()]), keep=True, large=[0])
    cluster.settle()
    cluster.core.on_block_host("host1", None, 0.0)
    good = cluster.join()
    later = cluster.run(plan_of([(-1,)], externals=[base]))
    cluster.settle()
    assert (bad.ran, good.ran) == ([base], [later])


def test_a_worker_that_joins_from_a_blocked_host_gets_nothing_until_it_is_unblocked(
    cluster: Rehearsal,
) -> None:
    cluster.core.on_block_host("host1", None, 0.0)
    bad = cluster.join()
    base = cluster.run(plan_of([()] * 3))
    cluster.settle()
    assert bad.ran == []
    cluster.wait(10.0)
    assert "every worker that is there is blocked" in cluster.notes[-1].text
    cluster.core.on_unblock_host("host1", 10.0)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_block_ends_when_its_time_is_over(cluster: Rehearsal) -> None:
    bad = cluster.join()
    cluster.core.on_block_host("host1", 30.0, 0.0)
    base = cluster.run(plan_of([()] * 3))
    cluster.wait(29.0)
    cluster.settle()
    assert bad.ran == []
    cluster.wait(31.0)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_unblocking_all_leaves_no_host_blocked(cluster: Rehearsal) -> None:
    first, second = cluster.join(), cluster.join()
    cluster.core.on_block_host("host1", None, 0.0)
    cluster.core.on_block_host("w2", 9.0, 0.0)
    cluster.core.on_unblock_host(None, 0.0)
    cluster.run(plan_of([()] * 20))
    cluster.settle()
    assert first.ran
    assert second.ran


def test_nothing_begins_before_the_workers_are_there_that_were_asked_for(cluster: Rehearsal) -> None:
    cluster.core.on_await_workers(3, 0.0)
    workers = [cluster.join(), cluster.join()]
    base = cluster.run(plan_of([()] * 40))
    cluster.wait(1000.0)
    cluster.settle()
    assert [worker.ran for worker in workers] == [[], []]
    assert "2 of the 3 workers that were asked for are there" in cluster.notes[-1].text
    workers.append(cluster.join())
    cluster.settle()
    assert all(worker.ran for worker in workers)
    assert cluster.results[base] == cluster.expected(base)


def test_workers_that_were_waited_for_may_go_again(cluster: Rehearsal) -> None:
    cluster.core.on_await_workers(2, 0.0)
    first, second = cluster.join(), cluster.join()
    cluster.kill(first.number)
    base = cluster.run(plan_of([()] * 3))
    cluster.settle()
    assert second.ran
    assert cluster.results[base] == cluster.expected(base)


def test_waiting_for_no_more_workers_than_there_are_ends_the_wait(cluster: Rehearsal) -> None:
    cluster.core.on_await_workers(5, 0.0)
    cluster.join()
    blocked = cluster.join()
    cluster.core.on_block_host(blocked.hello.name, None, 0.0)
    base = cluster.run(plan_of([()] * 3))
    cluster.core.on_await_workers(0, 0.0)
    cluster.settle()
    assert blocked.ran == []
    assert cluster.results[base] == cluster.expected(base)


def test_who_is_waited_for_may_be_of_a_blocked_host(cluster: Rehearsal) -> None:
    cluster.core.on_block_host("host1", None, 0.0)
    cluster.core.on_await_workers(1, 0.0)
    base = cluster.run(plan_of([()] * 3))
    bad = cluster.join()
    cluster.settle()
    assert bad.ran == []
    good = cluster.join()
    cluster.settle()
    assert good.ran
    assert cluster.results[base] == cluster.expected(base)


def test_a_task_runs_only_where_its_features_are(cluster: Rehearsal) -> None:
    plain, able = cluster.join(), cluster.join(features=["gcc", "root"])
    options = {task: TaskOptions(features=("root",)) for task in range(5)}
    base = cluster.run(plan_of([()] * 10, options=options))
    cluster.settle()
    assert set(able.ran) >= {base + task for task in range(5)}
    assert plain.ran
    lacking = cluster.run(
        plan_of([()], separate=True, default_options=TaskOptions(features=("root", "cuda")))
    )
    cluster.wait(200.0)
    cluster.settle()
    outcome = cluster.outcomes[lacking][0]
    assert outcome.kind == "unrunnable"
    assert "feature root and cuda" in outcome.text


def test_a_task_that_states_nothing_fits_anywhere(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=4)
    base = cluster.run(plan_of([()] * 3, default_options=TaskOptions(request=Resources(0))))
    cluster.turn()
    assert worker.number in cluster.core.state.workers
    assert cluster.core.state.workers[worker.number].cores_for(Resources(0)) == 4.0
    assert cluster.core.state.workers[worker.number].cores_for(Resources(0, memory_mb=250.0)) == 1.0
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
