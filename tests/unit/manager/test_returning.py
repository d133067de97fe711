"""A worker that was given up comes back, with what it holds."""

from __future__ import annotations

from collections import deque

import msgspec

from graphvine.manager.plan import Plan
from graphvine.manager.rehearsal import FakeWorker, Rehearsal


def plan_of(inputs: list[tuple[int, ...]]) -> Plan:
    size = len(inputs)
    return Plan(
        keys=range(size),
        inputs=inputs,
        blobs=[b"blob"],
        blob_of=[0] * size,
        blob_index=range(size),
        categories=["work"],
        category_of=[0] * size,
        wanted=[size - 1],
    )


def work(cluster: Rehearsal, worker: FakeWorker, *tasks: int, told: bool = True) -> None:
    """The worker hears what there is, runs tasks, and says so."""
    cluster.deliver_all_to_worker(worker.number)
    for task in tasks:
        worker.begin(task)
        worker.finish(task)
    worker.send()
    while told and cluster.to_manager[worker.number]:
        cluster.deliver_to_manager(worker.number)
    cluster.turn()


def come_back(cluster: Rehearsal, old: FakeWorker, *sizes: tuple[int, int]) -> FakeWorker:
    """The same process says hello again, and holds its large files, or those of ``sizes``."""
    number = old.number + 100
    held = [(file, cluster.size_of(file)) for file in old.files if file in cluster.large]
    hello = msgspec.structs.replace(old.hello, holds=list(sizes) or held)
    worker = cluster.workers[number] = FakeWorker(cluster, number, hello)
    worker.files = {file: old.files[file] for file, _ in held}
    cluster.to_worker[number] = deque()
    cluster.to_manager[number] = deque()
    cluster.core.on_worker_joined(number, hello, cluster.now)
    return worker


def test_what_was_lost_with_a_worker_is_not_made_again_when_it_comes_back(cluster: Rehearsal) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,), (1,), (2,)]), large=True)
    cluster.turn()
    for task in range(3):
        work(cluster, first, base + task)
    cluster.kill(first.number)
    cluster.turn()
    again = come_back(cluster, first)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert again.ran == [base + 3]
    assert not again.files


def test_a_result_whose_news_was_lost_counts(cluster: Rehearsal) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([(), (), (0, 1)]), large=True)
    cluster.turn()
    work(cluster, first, base, told=False)
    cluster.kill(first.number)
    again = come_back(cluster, first)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert again.ran == [base + 1, base + 2]


def test_a_second_copy_of_what_was_made_again_elsewhere_is_a_replica(cluster: Rehearsal) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,)]), large=True)
    cluster.turn()
    work(cluster, first, base)
    cluster.kill(first.number)
    second = cluster.join()
    cluster.turn()
    work(cluster, second, base)
    again = come_back(cluster, first)
    cluster.turn()
    assert sorted(cluster.core.holders(base)) == sorted([second.number, again.number])
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert not again.files


def test_what_nobody_needs_or_knows_is_dropped(cluster: Rehearsal) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,)]), large=True)
    cluster.turn()
    work(cluster, first, base)
    cluster.kill(first.number)
    cluster.core.on_cancel_plan(base, cluster.now)
    again = come_back(cluster, first, (base, cluster.size_of(base)), (999_999, 5))
    cluster.settle()
    assert not again.files
    assert not cluster.core.state.plans


def test_a_copy_of_another_size_is_another_value(cluster: Rehearsal) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,)]), large=True)
    cluster.turn()
    work(cluster, first, base)
    cluster.kill(first.number)
    second = cluster.join()
    cluster.turn()
    work(cluster, second, base)
    again = come_back(cluster, first, (base, 7))
    cluster.turn()
    assert cluster.core.holders(base) == [second.number]
    cluster.settle()
    assert not again.files
