"""Who waits for a library that is set up, or an environment that is unpacked, takes no place meanwhile."""

from __future__ import annotations

import pytest

from graphvine.manager.plan import Code, Plan
from graphvine.manager.rehearsal import FakeWorker, Rehearsal, plan_of
from graphvine.protocol.messages import ContextNews, Report

FITS = Code(setup=b"fits", setup_name="fits")


def calls(count: int, code: Code = FITS) -> Plan:
    return plan_of([()] * count, wanted=list(range(count)), code=code)


def hear(cluster: Rehearsal, worker: FakeWorker) -> list[int]:
    """A turn, and what the worker was given until then and has not begun."""
    cluster.turn()
    cluster.deliver_all_to_worker(worker.number)
    return sorted(worker.orders)


def say(cluster: Rehearsal, worker: FakeWorker) -> None:
    worker.send()
    while cluster.to_manager[worker.number]:
        cluster.deliver_to_manager(worker.number)


def work(cluster: Rehearsal, worker: FakeWorker) -> list[int]:
    """The worker runs what it can, and says so."""
    ran = worker.can_begin()
    for task in ran:
        worker.begin(task)
        worker.finish(task)
    say(cluster, worker)
    return ran


def set_up(cluster: Rehearsal, worker: FakeWorker) -> None:
    worker.set_up(next(iter(worker.orders.values())))
    say(cluster, worker)


def test_other_tasks_go_on_while_a_library_starts(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=2)
    first = cluster.run(calls(100))
    assert hear(cluster, worker) == [first, first + 1, first + 2, first + 3]
    others = cluster.run(calls(20, Code()))
    ran: list[int] = []
    while len(ran) < 20:
        hear(cluster, worker)
        some = work(cluster, worker)
        assert some, "there is work, and the cores are idle"
        ran += some
    assert ran == list(range(others, others + 20))
    assert sorted(worker.orders) == [first, first + 1, first + 2, first + 3]
    cluster.settle()
    assert cluster.results[first] == cluster.expected(first)


def test_what_stood_in_the_pool_before_does_not_stand_in_the_way(cluster: Rehearsal) -> None:
    """Both plans are there before the worker is."""
    first, others = cluster.run(calls(100)), cluster.run(calls(4, Code()))
    worker = cluster.join(cores=1)
    given = hear(cluster, worker)
    assert given == [first, first + 1, others, others + 1]


def test_two_libraries_wait_side_by_side(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=1)
    plans = [cluster.run(calls(10, Code(setup=name))) for name in (b"fits", b"cuts")]
    assert hear(cluster, worker) == [plans[0], plans[0] + 1, plans[1], plans[1] + 1]
    set_up(cluster, worker)
    assert work(cluster, worker) == [plans[0], plans[0] + 1]
    assert len(hear(cluster, worker)) > 4, "of what is ready, more is given"


def test_what_is_ready_counts_again(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=1)
    cluster.run(calls(10))
    assert len(hear(cluster, worker)) == 2
    set_up(cluster, worker)
    assert len(hear(cluster, worker)) == 2, "its place is taken by them now"
    others = cluster.run(calls(10, Code()))
    assert not [task for task in hear(cluster, worker) if task >= others]


def test_a_library_that_is_gone_is_waited_for_again(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=1)
    first = cluster.run(calls(10))
    hear(cluster, worker)
    set_up(cluster, worker)
    worker.tear_down(max(worker.ready))
    say(cluster, worker)
    others = cluster.run(calls(10, Code()))
    assert [task for task in hear(cluster, worker) if task >= others] == [others, others + 1]
    cluster.settle()
    assert cluster.results[first] == cluster.expected(first)


def test_plans_that_share_a_zygote_wait_for_it_together(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=1)
    cluster.run(calls(10))
    cluster.run(calls(10, Code(setup=b"fits", setup_name="fits", imports=("json",), name="other")))
    assert len(hear(cluster, worker)) == 2
    set_up(cluster, worker)
    assert work(cluster, worker)
    second = cluster.run(calls(10, Code(setup=b"fits", imports=("csv",), name="third", setup_name="fits")))
    cluster.settle()
    assert cluster.results[second] == cluster.expected(second)


@pytest.mark.parametrize("duration_s", [0.001, 10.0])
def test_who_is_ready_gets_what_waits_elsewhere(cluster: Rehearsal, duration_s: float) -> None:
    """However short its tasks are: nobody knows how long they would wait there."""
    cluster.duration_s = duration_s
    slow, quick = cluster.join(cores=2), cluster.join(cores=2)
    base = cluster.run(calls(8))
    hear(cluster, slow)
    hear(cluster, quick)
    assert len(slow.orders) == len(quick.orders) == 4
    set_up(cluster, quick)
    for _ in range(20):
        hear(cluster, quick)
        work(cluster, quick)
        hear(cluster, slow)
        say(cluster, slow)
    assert not slow.orders, "the one that is not ready was called upon to give back all it had"
    assert len(quick.ran) == 8
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_who_is_not_ready_takes_nothing_from_another(cluster: Rehearsal) -> None:
    slow = cluster.join(cores=1)
    cluster.run(calls(2))
    hear(cluster, slow)
    later = cluster.join(cores=1)
    for _ in range(5):
        hear(cluster, later)
        hear(cluster, slow)
        say(cluster, slow)
    assert len(slow.orders) == 2


def test_what_follows_a_call_finds_its_place(cluster: Rehearsal) -> None:
    """Chains in a library, more of them than are given ahead."""
    workers = [cluster.join(cores=1), cluster.join(cores=1)]
    inputs: list[tuple[int, ...]] = [() for _ in range(20)] + [(task,) for task in range(40)]
    base = cluster.run(plan_of(inputs, wanted=list(range(40, 60)), code=FITS), large=True)
    for worker in workers:
        hear(cluster, worker)
        assert len(worker.orders) <= 2 * 3
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_context_that_was_never_given_out_is_noted(cluster: Rehearsal) -> None:
    worker = cluster.join()
    cluster.turn()
    cluster.core.on_message(worker.number, Report(contexts=[ContextNews(99, True)]), 0.0)
    cluster.turn()
    assert "context 99" in cluster.notes[-1].text
