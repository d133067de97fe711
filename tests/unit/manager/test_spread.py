"""Who passes a large file on to whom."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tests.unit.manager.test_files import plan_of

from graphvine.manager.check import check
from graphvine.manager.core import Core
from graphvine.manager.instructions import Say
from graphvine.manager.plan import TaskOptions
from graphvine.manager.rehearsal import Rehearsal
from graphvine.manager.settings import Settings
from graphvine.manager.spread import CHAIN, Spread
from graphvine.protocol.messages import Assign, Source


def depth(spread: Spread, worker: int) -> int:
    node, steps = spread.nodes[worker], 0
    while node.parent is not None:
        node, steps = node.parent, steps + 1
    return steps


def test_few_workers_form_a_chain() -> None:
    spread = Spread([1])
    assert [spread.place(worker) for worker in range(2, 18)] == list(range(1, 17))


def test_many_workers_form_a_tree_neither_deep_nor_broad() -> None:
    spread = Spread([1])
    for worker in range(2, 5001):
        spread.place(worker)
    assert max(node.children for node in spread.nodes.values()) <= 5
    assert max(depth(spread, worker) for worker in spread.nodes) <= 5 * CHAIN


def test_who_has_it_whole_serves_again_at_once() -> None:
    spread = Spread([1])
    for worker in range(2, 10):
        spread.place(worker)
    for worker in (9, 5):
        spread.complete(worker)
    # Nobody fetches from 9, which was last; nor from 4 any more, but that is far down the chain.
    assert spread.nodes[5].parent is None
    assert spread.nodes[4].children == 0
    assert [spread.place(worker) for worker in (20, 21)] == [9, 20]


def test_one_that_is_gone_is_nobodys_parent() -> None:
    spread = Spread([1])
    for worker in range(2, 6):
        spread.place(worker)
    spread.forget(1)
    spread.forget(5)
    assert spread.place(9) == 4
    spread.forget(9)
    assert spread.place(9) == 4


def test_with_nobody_left_there_is_no_parent_but_for_those_after() -> None:
    spread = Spread([])
    assert spread.place(7) == 0
    assert spread.place(8) == 7


def test_who_can_reach_no_holder_gets_it_otherwise_and_passes_it_on_to_its_neighbours() -> None:
    def neighbour(me: int) -> Callable[[int], bool]:
        return lambda other: other % 2 == me % 2

    spread = Spread([1])
    parents = {worker: spread.place(worker, neighbour(worker)) for worker in range(2, 40)}
    assert [worker for worker, parent in parents.items() if not parent] == [2]
    assert all(parent % 2 == worker % 2 for worker, parent in parents.items() if parent)


def test_who_is_given_another_parent_is_given_none_that_waits_for_it() -> None:
    spread = Spread([1])
    for worker in range(2, 6):
        spread.place(worker)
    # 1 <- 2 <- 3 <- 4 <- 5, and 2 can't reach 1.
    assert spread.place(2, lambda other: other != 1) == 0
    assert spread.nodes[1].children == 0
    assert spread.place(3, lambda other: other != 2) == 1
    assert spread.place(4, lambda other: other != 3) == 2


def test_not_everybody_is_looked_at_for_a_parent() -> None:
    asked: list[int] = []
    spread = Spread(list(range(1, 1000)))
    assert spread.place(1000, lambda other: bool(asked.append(other))) == 0
    assert len(asked) < 50
    assert spread.place(1001) == 1, "who was passed over is a parent for others"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_nobody_waits_for_itself(seed: int) -> None:
    chance = random.Random(seed)
    spread = Spread([1])
    for _ in range(2000):
        worker = chance.randrange(1, 40)
        if worker not in spread.nodes or chance.random() < 0.2:
            reachable = set(chance.sample(range(1, 40), chance.randrange(20, 40)))
            parent = spread.place(worker, reachable.__contains__)
            assert parent != worker
            assert parent == 0 or parent in spread.nodes
        else:
            chance.choice([spread.complete, spread.forget])(worker)
        for node in spread.nodes.values():
            children = [other for other in spread.nodes.values() if other.parent is node]
            assert node.children == len(children)
            assert depth(spread, node.worker) <= len(spread.nodes) + 2000
    # The heap holds no more than what happened, and what is stale is passed over.
    assert spread.place(99) in (*spread.nodes, 0)


SPREADING = Settings(checked=True, spread_bytes=1000)


def sources(cluster: Rehearsal) -> dict[int, Source]:
    """What each worker is told of large files in the next turn."""
    return {
        instruction.worker: message.sources[0]
        for instruction in cluster.turn()
        if isinstance(instruction, Say)
        for message in instruction.messages
        if isinstance(message, Assign) and message.sources
    }


def spread_out(workers: int, settings: Settings = SPREADING) -> tuple[Rehearsal, int, dict[int, Source]]:
    """A large file on worker 1, and a task on each of the others that needs it. What they were told."""
    cluster = Rehearsal(Core(settings), check)
    cluster.join()
    first = cluster.run(plan_of([()], wanted=[0]), keep=True, large=True)
    cluster.settle()
    joined = [cluster.join() for _ in range(workers)]
    plan = plan_of([(-1,)] * workers, wanted=list(range(workers)), externals=[first])
    # A preference, so that the work of one that dies is done by another.
    plan.options = {
        task: TaskOptions(workers=(worker.hello.name,), allow_other_workers=True)
        for task, worker in enumerate(joined)
    }
    base = cluster.run(plan)
    return cluster, base, sources(cluster)


def test_each_worker_is_told_of_another_parent() -> None:
    cluster, base, told = spread_out(8)
    assert len(told) == 8
    assert len({source.holders[0] for source in told.values()}) == 8
    for worker, source in told.items():
        parent = source.holders[0]
        assert source.coming == (parent if parent != 1 else 0)
        # In case the parent fails: one that has it.
        assert 1 in source.holders
        assert worker not in source.holders
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


@pytest.mark.parametrize("victim", range(1, 7))
def test_a_worker_of_the_chain_dies(victim: int) -> None:
    cluster, base, _ = spread_out(6)
    cluster.kill(victim)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_worker_of_the_chain_never_gets_it() -> None:
    cluster, base, told = spread_out(6)
    for worker, source in told.items():
        if source.coming:
            cluster.cuts.add((worker, source.coming))
            break
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_small_file_is_fetched_from_those_that_have_it() -> None:
    _, _, told = spread_out(4, Settings(checked=True))
    assert [(source.holders, source.coming) for source in told.values()] == [([1], 0)] * 4


@pytest.mark.parametrize("how", ["nobody", "this file"])
@pytest.mark.parametrize("settings", [SPREADING, Settings(checked=True)])
def test_what_workers_may_not_fetch_from_each_other_goes_through_the_manager(
    how: str, settings: Settings
) -> None:
    cluster = Rehearsal(Core(settings), check)
    cluster.join()
    if how == "nobody":
        cluster.core.on_peer_transfers(allowed=False)
    making = plan_of([()], wanted=[0])
    making.unshared = frozenset([0] if how == "this file" else [])
    made = cluster.run(making, keep=True, large=True)
    cluster.settle()
    others = [cluster.join() for _ in range(3)]
    plan = plan_of([(-1,)] * 3, wanted=[0, 1, 2], externals=[made])
    plan.options = {task: TaskOptions(workers=(one.hello.name,)) for task, one in enumerate(others)}
    base = cluster.run(plan)
    told = sources(cluster)
    assert [(source.holders, source.coming) for source in told.values()] == [([], 0)] * 3
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
