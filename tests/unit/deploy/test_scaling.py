"""How many workers the work asks for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphvine.deploy.scaling import Policy, Scaler, Size, misfit, need_of, slots
from graphvine.protocol.messages import Resources, Wanted, WorkerNews

ONE = Resources()
POLICY = Policy(minimum=0, maximum=100, finish_s=60.0, hold_s=60.0, lull_s=600.0)
ONE_CORE = Size(1.0, 1000.0, 1000.0)
FOUR_CORES = Size(4.0, 8000.0, 8000.0)


def tasks(
    able: int,
    left: int | None = None,
    each_s: float | None = 60.0,
    request: Resources = ONE,
    features: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
) -> Wanted:
    """``each_s`` None: nobody knows how long they take."""
    left = able if left is None else left
    seconds, unmeasured = (0.0, left) if each_s is None else (left * each_s, 0)
    return Wanted(request, features, names, able, left, seconds, unmeasured)


def scaler(policy: Policy = POLICY, size: Size = ONE_CORE) -> Scaler:
    return Scaler(policy, size)


def target(demand: list[Wanted], have: int = 0, now: float = 0.0, size: Size = ONE_CORE) -> int:
    """What a fresh scaler says."""
    fresh = scaler(size=size)
    fresh.on_demand(demand)
    return fresh.target(have, now)


# -- one worker -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Resources(), 4),
        (Resources(2.0), 2),
        (Resources(3.0), 1),
        (Resources(5.0), 0),
        (Resources(1.0, 4000.0), 2),
        (Resources(1.0, 9000.0), 0),
        (Resources(0.0, 4000.0), 2),
        (Resources(0.0), 1),
        (Resources(1.0, 0.0, 0.0, 1.0), 0),
        (Resources(0.01), 4),
        (Resources(0.5), 8),
    ],
)
def test_how_many_tasks_run_at_once_on_a_worker(request_, expected):
    assert slots(request_, FOUR_CORES) == expected


def test_what_is_not_known_of_a_worker_limits_nothing():
    assert slots(Resources(1.0, 1e9, 1e9), Size(4.0)) == 4


def test_a_task_that_no_worker_can_run_is_a_misfit_and_asks_for_none():
    large = tasks(5, request=Resources(1.0, 5000.0))
    assert misfit(large, ONE_CORE)
    assert misfit(tasks(5, features=("gpu",)), ONE_CORE)
    assert not misfit(tasks(5, features=("gpu",)), Size(1.0, features=("gpu", "fast")))
    assert target([large]) == 0
    both = scaler()
    both.on_demand([large, tasks(3)])
    assert both.misfits == [large]
    assert both.target(0, 0.0) == 3


def test_tasks_bound_to_certain_workers_ask_for_no_others():
    bound = tasks(5, names=("w1",))
    assert not misfit(bound, ONE_CORE)
    assert target([bound]) == 0


# -- up -------------------------------------------------------------------------------------------------


def test_as_many_as_can_work():
    assert target([tasks(7)]) == 7
    assert target([tasks(7)], size=FOUR_CORES) == 2


def test_not_more_than_finish_in_time():
    assert target([tasks(1000, each_s=0.6)]) == 10
    assert target([tasks(1000, each_s=0.6)], size=FOUR_CORES) == 3


def test_not_more_than_the_maximum():
    assert target([tasks(10_000)]) == 100


def test_what_nobody_has_measured_gets_a_worker_each():
    assert target([tasks(20, each_s=None)]) == 20


def test_one_worker_for_a_little_work():
    assert target([tasks(3, each_s=0.001)]) == 1
    assert target([tasks(0, 3, each_s=0.001)]) == 1


def test_nothing_to_do_needs_nobody_but_the_minimum():
    assert target([]) == 0
    assert scaler(Policy(minimum=3, maximum=9)).target(0, 0.0) == 3


# -- down -----------------------------------------------------------------------------------------------


def test_nobody_is_let_go_before_it_was_not_needed_for_a_while():
    idle = scaler()
    idle.on_demand([])
    assert idle.target(20, 0.0) == 20
    assert idle.target(20, 59.0) == 20
    assert idle.deadline() == 60.0
    assert idle.target(20, 60.0) == 0


def test_what_was_needed_in_between_stays():
    busy = scaler()
    busy.on_demand([tasks(2)])
    assert busy.target(20, 0.0) == 20
    busy.on_demand([tasks(12)])
    assert busy.target(20, 30.0) == 20
    busy.on_demand([])
    assert busy.target(20, 60.0) == 12
    assert busy.target(12, 120.0) == 0


def test_new_work_takes_everything_back():
    back = scaler()
    back.on_demand([])
    assert back.target(20, 0.0) == 20
    back.on_demand([tasks(30)])
    assert back.target(20, 59.0) == 30
    back.on_demand([])
    assert back.target(30, 61.0) == 30, "patience begins anew"


def test_a_tail_holds_nobody():
    tail = scaler()
    tail.on_demand([tasks(1, 3, each_s=10.0)])
    tail.target(100, 0.0)
    assert tail.target(100, 60.0) == 1


def test_a_lull_keeps_those_for_whom_much_waits():
    lull = scaler()
    lull.on_demand([tasks(1, 5000)])
    for now in (0.0, 60.0, 300.0, 599.0):
        assert lull.target(50, now) == 50
    assert lull.deadline() == 600.0


def test_but_not_for_ever():
    lull = scaler()
    lull.on_demand([tasks(1, 5000)])
    assert lull.target(50, 0.0) == 50
    assert lull.target(50, 600.0) == 50
    assert lull.target(50, 660.0) == 1


def test_and_not_more_than_will_be_busy():
    lull = scaler()
    lull.on_demand([tasks(1, 5)])
    lull.target(50, 0.0)
    assert lull.target(50, 60.0) == 5


def test_one_long_task_is_one_workers_business():
    tail = scaler()
    tail.on_demand([tasks(1, 1, each_s=6000.0)])
    tail.target(50, 0.0)
    assert tail.target(50, 60.0) == 1


# -- always ---------------------------------------------------------------------------------------------

wanted = st.builds(
    tasks,
    able=st.integers(0, 5000),
    left=st.integers(0, 50_000),
    each_s=st.one_of(st.none(), st.floats(0.0, 1e4)),
    request=st.builds(
        Resources, st.sampled_from([0.0, 0.01, 0.5, 1.0, 2.0, 64.0]), st.sampled_from([0.0, 900.0])
    ),
).map(lambda w: Wanted(w.request, (), (), min(w.able, w.left), w.left, w.seconds, w.unmeasured))
sizes = st.builds(Size, st.sampled_from([1.0, 4.0, 64.0]), st.sampled_from([None, 1000.0, 64_000.0]))
policies = st.builds(
    lambda low, more, finish_s, hold_s, lull_s: Policy(
        minimum=low, maximum=low + more, finish_s=finish_s, hold_s=hold_s, lull_s=lull_s
    ),
    st.integers(0, 10), st.integers(1, 300), st.floats(1.0, 1e4), st.floats(0.0, 1e3), st.floats(0.0, 1e4),
)  # fmt: skip


@given(policies, sizes, st.lists(st.tuples(st.lists(wanted, max_size=3), st.floats(0.0, 500.0)), max_size=20))
def test_the_target_is_within_bounds_and_up_is_at_once(policy, size, story):
    """Followed step by step, with as many workers as were asked for last."""
    follower = Scaler(policy, size)
    have, now = 0, 0.0
    for demand, pause_s in story:
        now += pause_s
        follower.on_demand(demand)
        need = need_of(demand, size, policy.finish_s)
        asked = follower.target(have, now)
        assert policy.minimum <= asked <= policy.maximum
        assert asked >= min(need.now, policy.maximum), "what is worth having now is asked for"
        assert asked <= max(have, math.ceil(need.width), int(need.whole > 0), policy.minimum), "and no more"
        have = asked


@given(policies, sizes, st.lists(wanted, max_size=3), st.integers(0, 400))
def test_without_news_it_comes_to_rest_at_what_is_needed(policy, size, demand, have):
    """Whoever asks again whenever ``deadline`` says so ends with what is worth having, and is left alone."""
    resting = Scaler(policy, size)
    resting.on_demand(demand)
    now = 0.0
    have = min(have, policy.maximum)
    for _ in range(20):
        have = resting.target(have, now)
        due = resting.deadline()
        if due is None:
            break
        now = max(now, due)
    else:
        raise AssertionError("it never comes to rest")
    need = need_of(demand, size, policy.finish_s)
    assert have == min(max(need.now, policy.minimum), policy.maximum)


@given(sizes, wanted, st.integers(1, 1000))
def test_more_work_never_asks_for_fewer(size, few, more):
    many = Wanted(few.request, (), (), few.able + more, few.left + more, few.seconds, few.unmeasured + more)
    assert target([many], size=size) >= target([few], size=size)


def test_what_workers_turn_out_to_have_decides_what_fits():
    several = scaler(size=Size(1.0, None, None))
    large = tasks(50, each_s=None, request=Resources(1.0, 5000.0))
    several.on_demand([large])
    assert several.target(0, 0.0) == 50, "nobody knows what a worker has"
    several.on_workers([WorkerNews(1, "1.0", "w", "n", 1.0, 0.0, memory_mb=2000.0, disk_mb=9.0)])
    assert several.misfits == [large]
    assert several.target(0, 0.0) == 0
    several.on_workers([WorkerNews(2, "1.1", "w", "n", 1.0, 0.0, memory_mb=6000.0, disk_mb=9.0)])
    several.on_workers([WorkerNews(3, "1.2", "w", "n", 1.0, 0.0, memory_mb=1000.0, disk_mb=9.0)])
    assert several.misfits == []
    assert several.target(0, 0.0) == 50


def test_what_was_stated_counts_whatever_a_worker_says():
    several = scaler(size=ONE_CORE)
    several.on_workers([WorkerNews(1, "1.0", "w", "n", 1.0, 0.0, memory_mb=2.0, disk_mb=9000.0)])
    assert several.size == ONE_CORE
