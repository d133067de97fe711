"""What the work asks for: counted right, told when it changes, not more often than agreed."""

from __future__ import annotations

import pytest

from graphvine.manager import demand
from graphvine.manager.check import check
from graphvine.manager.core import Core
from graphvine.manager.plan import TaskOptions
from graphvine.manager.rehearsal import Rehearsal, plan_of
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Demand, Resources, Wanted

LARGE = TaskOptions(request=Resources(2.0, 500.0))


@pytest.fixture
def told(cluster: Rehearsal) -> Demand:
    """What a listener is told at first."""
    return cluster.core.on_watch(0.0)


def only(told: Demand) -> Wanted:
    (wanted,) = told.wanted
    return wanted


def later(cluster: Rehearsal) -> None:
    cluster.now += 1.0
    cluster.turn()


def test_nothing_is_counted_while_nobody_listens(cluster: Rehearsal):
    cluster.run(plan_of([()] * 3))
    cluster.turn()
    assert cluster.core.state.watch is None
    assert cluster.core.state.touched is None
    assert cluster.asked == []


def test_who_comes_late_is_told_all(cluster: Rehearsal):
    cluster.run(plan_of([(), (), (0, 1)]))
    cluster.join(2)
    cluster.turn()
    told = cluster.core.on_watch(0.0)
    wanted = only(told)
    assert (wanted.able, wanted.left, wanted.unmeasured, wanted.seconds) == (2, 3, 3, 0.0)
    (worker,) = told.workers
    assert (worker.worker, worker.cores, worker.idle_s, worker.gone) == (1, 2.0, -1.0, False)


def test_work_is_told_at_once_after_a_pause(cluster: Rehearsal, told: Demand):
    assert told == Demand([], [])
    cluster.now = 5.0
    cluster.run(plan_of([()] * 4))
    cluster.turn()
    assert only(cluster.asked[-1]).able == 4


def test_what_changes_soon_after_is_told_when_it_is_time(cluster: Rehearsal, told: Demand):
    cluster.run(plan_of([()] * 4))
    cluster.turn()
    cluster.now = 0.1
    cluster.run(plan_of([()] * 3))
    cluster.turn()
    assert len(cluster.asked) == 1
    assert cluster.core.deadline() == pytest.approx(0.5)
    cluster.now = 0.5
    cluster.turn()
    assert only(cluster.asked[-1]).able == 7
    assert cluster.core.deadline() == pytest.approx(5.0), "nothing is left to tell: only patience ends"


def test_nothing_new_is_not_told(cluster: Rehearsal, told: Demand):
    cluster.run(plan_of([()] * 4))
    cluster.turn()
    for _ in range(3):
        later(cluster)
    assert len(cluster.asked) == 1


def test_durations_come_from_what_was_measured(cluster: Rehearsal, told: Demand):
    cluster.duration_s = 2.0
    cluster.run(plan_of([()] * 10, range(10)))
    cluster.join(1)
    cluster.step()
    later(cluster)
    wanted = only(cluster.asked[-1])
    assert 0 < wanted.left < 10
    assert (wanted.unmeasured, wanted.seconds) == (0, 2.0 * wanted.left)


def test_what_waits_is_left_and_not_able(cluster: Rehearsal, told: Demand):
    cluster.run(plan_of([(), (0,), (1,), (2,)]))
    cluster.turn()
    assert (only(cluster.asked[-1]).able, only(cluster.asked[-1]).left) == (1, 4)
    # Given ahead to a worker, they wait there: one at a time can run all the same.
    cluster.join(4)
    cluster.turn()
    later(cluster)
    assert len(cluster.workers[1].hello.addresses) == 1
    assert len(cluster.core.state.workers[1].queue) == 4
    assert only(cluster.core.on_watch(cluster.now)).able == 1


def test_kinds_of_requests_are_told_apart(cluster: Rehearsal, told: Demand):
    plan = plan_of([()] * 5 + [(0,)], options={1: LARGE, 2: LARGE, 5: LARGE})
    cluster.run(plan)
    cluster.turn()
    kinds = {wanted.request: (wanted.able, wanted.left) for wanted in cluster.asked[-1].wanted}
    assert kinds == {Resources(): (3, 3), LARGE.request: (2, 3)}


def test_a_limit_bounds_what_can_run(cluster: Rehearsal, told: Demand):
    cluster.core.on_limit("few", 2, 0.0)
    cluster.run(plan_of([()] * 5, default_options=TaskOptions(limit="few")))
    cluster.turn()
    assert (only(cluster.asked[-1]).able, only(cluster.asked[-1]).left) == (2, 5)


def test_the_end_of_all_work_is_told(cluster: Rehearsal, told: Demand):
    cluster.run(plan_of([()] * 3))
    cluster.join(1)
    cluster.turn()
    cluster.settle()
    later(cluster)
    assert cluster.asked[-1].wanted == []
    (worker,) = cluster.asked[-1].workers
    assert worker.idle_s == pytest.approx(1.0)


def test_workers_are_news_when_they_come_work_rest_and_go(cluster: Rehearsal, told: Demand):
    cluster.join(1)
    cluster.turn()
    assert [(news.worker, news.idle_s) for news in cluster.asked[-1].workers] == [(1, 0.0)]
    cluster.run(plan_of([()]))
    later(cluster)
    assert [(news.worker, news.idle_s) for news in cluster.asked[-1].workers] == [(1, -1.0)]
    cluster.kill(1)
    later(cluster)
    assert [(news.worker, news.gone) for news in cluster.asked[-1].workers] == [(1, True)]
    assert only(cluster.asked[-1]).able == 1


def test_a_worker_that_came_and_went_between_is_told_gone(cluster: Rehearsal, told: Demand):
    cluster.run(plan_of([()]))
    cluster.turn()
    cluster.now = 0.1
    cluster.join(1)
    cluster.turn()
    cluster.kill(1)
    later(cluster)
    assert [(news.worker, news.gone) for news in cluster.asked[-1].workers] == [(1, True)]


def test_nobody_listens_any_more(cluster: Rehearsal, told: Demand):
    cluster.core.on_unwatch()
    cluster.run(plan_of([()]))
    later(cluster)
    assert cluster.asked == []


def test_only_plans_that_changed_are_counted(monkeypatch: pytest.MonkeyPatch):
    core = Core(Settings(checked=True))
    cluster = Rehearsal(core)
    core.on_watch(0.0)
    for _ in range(20):
        cluster.run(plan_of([()] * 3))
    cluster.turn()
    counted = []
    real = demand.count
    monkeypatch.setattr(demand, "count", lambda table: counted.append(table.base) or real(table))
    base = cluster.run(plan_of([()] * 2))
    later(cluster)
    assert counted == [base]
    check(core)
