"""Workers that stay for a known time are given what ends before, and nothing else."""

from __future__ import annotations

from graphvine.manager import rehearsal
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.manager.rehearsal import Rehearsal


def plan_of(inputs: list[tuple[int, ...]], **more: object) -> Plan:
    """All of it is wanted."""
    return rehearsal.plan_of(inputs, range(len(inputs)), **more)


def learn(cluster: Rehearsal, seconds: float) -> None:
    """One task of the category "work" takes so long, on a worker that then leaves."""
    teacher = cluster.join()
    cluster.duration_s = seconds
    cluster.run(plan_of([()]))
    cluster.settle()
    cluster.leave(teacher.number)
    cluster.turn()


def test_what_does_not_end_in_time_is_not_begun(cluster: Rehearsal) -> None:
    learn(cluster, 10.0)
    short, long = cluster.join(left_s=12.0), cluster.join(left_s=100.0)
    base = cluster.run(plan_of([()] * 4))
    cluster.settle()
    assert short.ran == [], "10 s and half as much again are more than 12 s"
    assert long.ran == list(range(base, base + 4))


def test_what_is_short_enough_is_begun(cluster: Rehearsal) -> None:
    learn(cluster, 1.0)
    only = cluster.join(left_s=12.0)
    base = cluster.run(plan_of([()] * 4))
    cluster.settle()
    assert only.ran == list(range(base, base + 4))


def test_what_was_given_before_counts(cluster: Rehearsal) -> None:
    learn(cluster, 10.0)
    only = cluster.join(left_s=18.0)
    cluster.run(plan_of([()] * 2))
    cluster.turn()
    cluster.deliver_to_worker(only.number)
    assert len(only.orders) == 1, "the second would begin when the first is done"


def test_nothing_is_known_of_what_was_not_measured(cluster: Rehearsal) -> None:
    only = cluster.join(left_s=1.0)
    base = cluster.run(plan_of([()]))
    cluster.settle()
    assert only.ran == [base]


def test_what_states_how_long_it_lasts_is_believed_until_it_was_measured(cluster: Rehearsal) -> None:
    for options in (TaskOptions(max_s=50.0), TaskOptions(lasts_s=50.0), TaskOptions(min_s=50.0)):
        short = cluster.join(left_s=20.0)
        base = cluster.run(plan_of([()], default_options=options))
        cluster.turn()
        assert not cluster.to_worker[short.number] or short.orders == {}
        cluster.settle()
        assert short.ran == []
        long = cluster.join(left_s=100.0)
        cluster.settle()
        assert long.ran == [base]
        for worker in (short, long):
            cluster.kill(worker.number)
        cluster.core.state.category_count[:] = [0]
    learn(cluster, 1.0)
    short = cluster.join(left_s=20.0)
    cluster.run(plan_of([()], default_options=TaskOptions(max_s=50.0)))
    cluster.settle()
    assert len(short.ran) == 1, "it takes a second, as was seen"


def test_where_nobody_stays_long_enough_there_is_a_warning_and_no_failure(cluster: Rehearsal) -> None:
    learn(cluster, 10.0)
    first, second = cluster.join(left_s=5.0, cores=2), cluster.join(left_s=8.0)
    base = cluster.run(plan_of([()] * 4 + [(0, 1, 2, 3)]))
    cluster.settle()
    cluster.wait(500.0)
    warnings = [note.text for note in cluster.notes if note.level == "warning"]
    assert len(warnings) == 1
    assert "no worker present can run it" in warnings[0]
    assert (first.ran, second.ran) == ([], [])
    assert base not in cluster.over
    fresh = cluster.join(left_s=1000.0)
    cluster.settle()
    assert fresh.ran == list(range(base, base + 5))
    assert cluster.results[base] == cluster.expected(base)


def test_parked_tasks_may_be_cancelled(cluster: Rehearsal) -> None:
    learn(cluster, 10.0)
    cluster.join(left_s=5.0)
    base = cluster.run(plan_of([()] * 4))
    cluster.settle()
    cluster.core.on_cancel_plan(base, cluster.now)
    cluster.wait(100.0)
    assert [note for note in cluster.notes if note.level == "warning"] == []
    fresh = cluster.join()
    cluster.settle()
    assert fresh.ran == []


def test_who_has_no_time_does_not_steal(cluster: Rehearsal) -> None:
    learn(cluster, 10.0)
    long = cluster.join(left_s=1000.0)
    base = cluster.run(plan_of([()] * 10))
    cluster.turn()
    cluster.deliver_all_to_worker(long.number)
    short = cluster.join(left_s=5.0)
    cluster.settle()
    assert short.ran == []
    assert len(long.ran) == 10
    assert cluster.results[base] == cluster.expected(base)


def test_what_waits_for_a_file_that_is_being_made_goes_elsewhere(cluster: Rehearsal) -> None:
    learn(cluster, 1.0)
    categories = {"categories": ["work", "slow"], "category_of": [0, 1]}
    teacher = cluster.join()
    cluster.duration_s = 10.0
    cluster.run(plan_of([()], categories=["slow"]))
    cluster.settle()
    cluster.leave(teacher.number)
    cluster.duration_s = 1.0
    short = cluster.join(left_s=5.0)
    base = cluster.run(plan_of([(), (0,)], **categories))
    cluster.settle()
    assert short.ran == [base]
    long = cluster.join()
    cluster.settle()
    assert long.ran == [base + 1]
    assert cluster.results[base] == cluster.expected(base)
