"""Families: which tasks lead back to one, what goes first, and how much is given ahead."""

from __future__ import annotations

import pytest
from tests.unit.manager.test_dispatch import assigned, orders, plan_of

from graphvine.manager.families import Families, find
from graphvine.manager.instructions import Instruction
from graphvine.manager.rehearsal import Rehearsal
from graphvine.manager.tasks import consumers_of
from graphvine.protocol.messages import Report, TaskDone

Graph = list[tuple[int, ...]]


def families_of(graph: Graph, wide: int = 32) -> Families | None:
    return find(graph, consumers_of(graph), [0] * len(graph), wide)


@pytest.mark.parametrize(
    ("graph", "follows"),
    [
        ([(), (0,), (1,)], [0, 1, 1]),
        ([(), (0,), (0,), (1, 2, 0)], [0, 1, 1, 1]),
        ([(), (), (0,), (1,), (2, 3)], [0, 0, 1, 1, 0]),
        ([(), (), (0, 1), (2,)], [0, 0, 0, 1]),
        ([(-1,), (0, -1)], [0, 1]),
    ],
)
def test_who_follows_leads_back_to_one_task(graph: Graph, follows: list[int]) -> None:
    found = families_of(graph)
    assert found is not None
    assert list(found.follows) == follows


@pytest.mark.parametrize(
    "graph", [[], [(), ()], [(), (), (0, 1), (0, 1)], [(), (-1,), (0, 1, -1)], [(), *[(0,)] * 40]]
)
def test_where_nobody_follows_there_are_none(graph: Graph) -> None:
    assert families_of(graph) is None


def test_what_everybody_shares_ties_nobody() -> None:
    graph: Graph = [(), (), (0, 1), *[(0,)] * 5]
    found = families_of(graph, wide=4)
    assert found is not None
    assert list(found.follows) == [0, 0, 1, 0, 0, 0, 0, 0]


def test_as_many_short_families_are_given_ahead_as_single_tasks() -> None:
    found = find([(), (0,), (1,), (), (3,)], consumers_of([(), (0,), (1,), (), (3,)]), [0, 1, 1, 0, 1], 32)
    assert found is not None
    assert found.tasks == 2.5
    assert found.expected_s({0: 0.1, 1: 0.2}) == pytest.approx(0.4)
    assert found.ahead({0: 0.1, 1: 0.2}, longest_s=0.5, cores=1) == 2.5
    assert found.ahead({0: 0.1, 1: 0.2}, longest_s=0.3, cores=1) == 1
    assert found.ahead({}, longest_s=0.3, cores=1) == 2.5
    # Two families are no work for four cores.
    assert found.ahead({}, longest_s=0.3, cores=4) == 1


def test_else_a_join_is_one_with_what_is_made_for_it() -> None:
    graph: Graph = [(), (), (0, 1), (), (), (3, 4), (2, 5), *[()] * 40, tuple(range(7, 47))]
    categories = [0, 0, 1, 0, 0, 1, 1, *[2] * 40, 2]
    found = find(graph, consumers_of(graph), categories, 32)
    assert found is not None
    assert found.joins
    # In the plan's own order each comes right behind what it needs.
    assert not any(found.follows)
    assert found.tasks == 3
    assert found.expected_s({0: 0.3, 1: 0.6, 2: 100.0}) == pytest.approx(4 * 0.3 / 3 + 5 * 0.6 / 3)


@pytest.mark.parametrize(("took_s", "ahead"), [(0.02, 8), (0.2, 2)])
def test_joins_are_given_ahead_whole_while_they_are_short(
    cluster: Rehearsal, took_s: float, ahead: int
) -> None:
    cluster.join(cores=1)
    groups = [graph for base in range(0, 20, 4) for graph in ((), (), (), (base, base + 1, base + 2))]
    cluster.run(plan_of(groups, wanted=list(range(3, 20, 4))))
    given = orders(cluster.turn(), 1)
    done = [TaskDone(task, 1, b"x", 0.0, took_s) for task in given]
    cluster.core.on_message(1, Report(done=done), 0.0)
    cluster.turn()
    assert len(given) == 8
    assert len(cluster.core.state.workers[1].queue) == ahead


def test_a_family_is_given_whole_before_the_next_one_begins(cluster: Rehearsal) -> None:
    cluster.join(cores=1)
    # Four chunks are read; then each is looked at, way by way.
    graph: Graph = [(), (), (), (), *[(chunk,) for _ in range(2) for chunk in range(4)]]
    base = cluster.run(plan_of(graph, wanted=list(range(4, 12))))
    given = [task - base for task in orders(cluster.turn(), 1)]
    assert given == [0, 4, 8, 1, 5, 9]


def test_an_order_tells_how_often_its_result_is_used(cluster: Rehearsal) -> None:
    cluster.join(cores=2)
    cluster.run(plan_of([(), (0,), (0, 1)], wanted=[1, 2]))
    assign = assigned(cluster.turn(), 1)
    assert assign is not None
    assert [order.uses for order in assign.orders] == [2, 2, 1]


def test_without_families_nothing_is_told(cluster: Rehearsal) -> None:
    cluster.join(cores=1)
    cluster.run(plan_of([(), (), (0, 1), (0, 1)], wanted=[2, 3]))
    assign = assigned(cluster.turn(), 1)
    assert assign is not None
    assert {order.uses for order in assign.orders} == {0}


@pytest.mark.parametrize("separate", [False, True])
def test_tasks_that_stand_alone_share_nothing(cluster: Rehearsal, separate: bool) -> None:
    cluster.join(cores=1)
    plan = plan_of([(), (0,)])
    plan.separate = separate
    cluster.run(plan)
    assign = assigned(cluster.turn(), 1)
    assert assign is not None
    assert {order.shares for order in assign.orders} == {not separate}


def passed_on(cluster: Rehearsal, *, used: bool) -> tuple[int, list[Instruction]]:
    """A task tells of a result that it only passed on, to a task that has run or not. What is said then."""
    cluster.join(cores=2)
    base = cluster.run(plan_of([(), (0,)]))
    cluster.turn()
    done = [TaskDone(base, 0, None, 0.0, 0.01)]
    if used:
        done.append(TaskDone(base + 1, 1, b"x", 0.0, 0.01))
    cluster.core.on_message(1, Report(done=done, lost=[base]), 0.0)
    return base, cluster.turn()


def test_what_was_passed_on_to_all_that_need_it_is_not_missed(cluster: Rehearsal) -> None:
    _, said = passed_on(cluster, used=True)
    assert orders(said, 1) == []
    assert cluster.core.state.tables == []


def test_what_was_passed_on_and_is_needed_after_all_is_made_again(cluster: Rehearsal) -> None:
    base, said = passed_on(cluster, used=False)
    assert orders(said, 1) == [base]
