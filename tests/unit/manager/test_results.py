"""Wanted and kept results, the end of plans, progress."""

from __future__ import annotations

import pytest

from graphvine.manager.instructions import Available, PlanDone, PlanFailed
from graphvine.manager.plan import Plan
from graphvine.manager.rehearsal import Rehearsal
from graphvine.manager.tasks import UnknownFileError


def plan_of(inputs: list[tuple[int, ...]], wanted: list[int], externals: list[int] | None = None) -> Plan:
    size = len(inputs)
    return Plan(
        keys=[f"t{task}" for task in range(size)],
        inputs=inputs,
        blobs=[b"blob"],
        blob_of=[0] * size,
        blob_index=list(range(size)),
        categories=["even", "odd"],
        category_of=[task % 2 for task in range(size)],
        wanted=wanted,
        externals=externals or [],
        label="sum",
    )


def test_numbers_are_never_used_twice(cluster: Rehearsal) -> None:
    cluster.join()
    first = cluster.run(plan_of([(), ()], [0]))
    fetch = cluster.core.on_wanted([], 0.0)
    second = cluster.run(plan_of([()], [0]))
    assert (first, fetch, second) == (1, 4, 5)


def test_small_results_come_with_their_values_large_ones_with_their_holders(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), ()], [1, 0]), large=[1])
    cluster.turn()
    cluster.react()
    said = [instruction for instruction in cluster.turn() if isinstance(instruction, Available)]
    assert said == [
        Available(base, 1, base, 8, cluster.values[base], []),
        Available(base, 0, base + 1, 1_000_000, None, [worker.number]),
    ]
    assert base not in cluster.over
    assert set(worker.files) >= {base + 1}
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert cluster.over[base] == PlanDone(base)
    assert not worker.files


def test_a_wanted_result_that_is_lost_before_it_was_fetched_is_announced_again(cluster: Rehearsal) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([()], [0]), large=True)
    cluster.turn()
    cluster.react()
    cluster.turn()
    cluster.wishes.clear()
    cluster.kill(first.number)
    second = cluster.join()
    cluster.settle()
    assert second.ran == [base]
    assert cluster.results[base] == cluster.expected(base)


def test_a_holder_that_cannot_be_reached_is_given_up(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([()], [0]), large=True)
    cluster.turn()
    cluster.react()
    cluster.turn()
    worker.files.clear()
    cluster.settle()
    assert worker.ran == [base, base]
    assert cluster.results[base] == cluster.expected(base)


def test_kept_results_stay_until_released(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), (0,), (0,)], [1, 2]), keep=True, large=True)
    cluster.settle()
    assert cluster.over[base] == PlanDone(base)
    assert base not in cluster.results
    assert set(worker.files) == {base + 1, base + 2}
    cluster.core.on_release([base + 1, base + 1, base], 0.0)
    cluster.settle()
    assert set(worker.files) == {base + 2}
    cluster.core.on_release([base + 2], 0.0)
    cluster.settle()
    assert not worker.files
    assert not worker.blobs
    assert not cluster.core.state.plans


def test_kept_results_can_be_fetched_again_and_again(cluster: Rehearsal) -> None:
    cluster.join()
    base = cluster.run(plan_of([(), (0,)], [0, 1]), keep=True, large=[1])
    cluster.settle()
    for _ in range(2):
        fetch = cluster.core.on_wanted([base + 1, base, base + 1], 0.0)
        cluster.settle()
        values = [cluster.values[base + 1], cluster.values[base], cluster.values[base + 1]]
        assert cluster.results[fetch] == dict(enumerate(values))
        assert cluster.over[fetch] == PlanDone(fetch)


def test_a_kept_result_may_be_wanted_before_it_exists(cluster: Rehearsal) -> None:
    base = cluster.run(plan_of([(), (0,)], [1]), keep=True)
    fetch = cluster.core.on_wanted([base + 1], 0.0)
    cluster.turn()
    assert not cluster.over
    cluster.join()
    cluster.settle()
    assert cluster.results[fetch] == {0: cluster.values[base + 1]}


def test_what_was_released_cannot_be_built_on(cluster: Rehearsal) -> None:
    cluster.join()
    base = cluster.run(plan_of([()], [0]), keep=True)
    cluster.settle()
    cluster.core.on_release([base], 0.0)
    fetch = cluster.core.on_wanted([base], 0.0)
    cluster.turn()
    failed = cluster.over[fetch]
    assert isinstance(failed, PlanFailed)
    assert f"file {base} is not there" in failed.text
    assert cluster.core.task_key(fetch, failed.task) is None


def test_releasing_a_kept_result_ends_the_plan_that_makes_it(cluster: Rehearsal) -> None:
    base = cluster.run(plan_of([(), (0,)], [1]), keep=True)
    cluster.core.on_release([base + 1], 0.0)
    cluster.turn()
    assert cluster.over[base] == PlanDone(base)
    assert not cluster.core.state.plans


def test_a_file_a_living_plan_names_outlives_its_release(cluster: Rehearsal) -> None:
    one = cluster.run(plan_of([()], [0]), keep=True)
    two = cluster.run(plan_of([(-1,), (-1, 0)], [1], [one]))
    cluster.core.on_release([one], 0.0)
    cluster.join()
    cluster.settle()
    assert cluster.results[two] == cluster.expected(two)
    assert not cluster.core.state.plans


def test_an_empty_plan_is_done_at_once(cluster: Rehearsal) -> None:
    base = cluster.run(plan_of([], []))
    cluster.turn()
    assert cluster.over == {base: PlanDone(base)}


def test_progress_counts_and_is_there_when_the_end_is_told(cluster: Rehearsal) -> None:
    cluster.now = 100.0
    cluster.join(cores=2)
    base = cluster.run(plan_of([(), (), (0, 1)], [2]))
    cluster.turn()
    progress = cluster.core.progress(base, 101.5)
    assert (progress.label, progress.total, progress.done, progress.running) == ("sum", 3, 0, 3)
    assert (progress.workers, progress.cores, progress.elapsed_s) == (1, 2.0, 1.5)
    assert [(each.name, each.total, each.running) for each in progress.categories] == [
        ("even", 2, 2),
        ("odd", 1, 1),
    ]
    cluster.react()
    cluster.turn()
    progress = cluster.core.progress(base, 200.0)
    assert progress.finished
    assert (progress.done, progress.running, progress.elapsed_s) == (3, 0, 0.0)
    assert cluster.core.task_key(base, 2) == "t2"
    cluster.turn()
    with pytest.raises(UnknownFileError):
        cluster.core.progress(base, 200.0)


def test_recomputed_tasks_are_counted(cluster: Rehearsal) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,)], [1]), keep=True, large=True)
    cluster.settle()
    cluster.kill(first.number)
    cluster.join()
    cluster.settle()
    progress = cluster.core.progress(base, 1.0)
    assert (progress.recomputed, progress.done) == (2, 2)


def test_what_is_kept_and_whole_outlives_the_failure_of_what_it_was_made_from(cluster: Rehearsal) -> None:
    worker = cluster.join()
    one = cluster.run(plan_of([(), ()], [0, 1]), keep=True, large=True)
    cluster.turn()
    cluster.deliver_to_worker(1)
    worker.begin(one)
    worker.finish(one)
    worker.begin(one + 1)
    worker.send()
    cluster.deliver_to_manager(1)
    two = cluster.run(plan_of([(-1,)], [0], [one]), keep=True, large=True)
    cluster.turn()
    cluster.deliver_to_worker(1)
    worker.begin(two)
    worker.finish(two)
    worker.fail(one + 1)
    worker.send()
    cluster.deliver_to_manager(1)
    cluster.settle()
    assert isinstance(cluster.over[one], PlanFailed)
    assert cluster.over[two] == PlanDone(two)
    fetch = cluster.core.on_wanted([two], 0.0)
    cluster.settle()
    assert cluster.results[fetch] == {0: cluster.values[two]}
    worker.lose(two)
    worker.send()
    cluster.settle()
    fetch = cluster.core.on_wanted([two], 0.0)
    cluster.settle()
    assert cluster.results[fetch] == {0: cluster.values[two]}
    cluster.core.on_release([two], 0.0)
    cluster.settle()
    assert not worker.files
    assert not cluster.core.state.plans


def test_what_nobody_wants_any_more_is_neither_begun_nor_goes_on(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=2)
    base = cluster.run(plan_of([(), (0,), (), (2,), (0,), ()], [1, 3, 4, 5]))
    cluster.turn()
    cluster.deliver_to_worker(1)
    worker.begin(base)
    worker.begin(base + 2)
    for position in (0, 1, 3):
        cluster.core.on_unwanted(base, position, 0.0)
    cluster.turn()
    while cluster.to_worker[1]:
        cluster.deliver_to_worker(1)
    assert set(worker.begun) == {base}
    assert set(worker.orders) <= {base + 4}
    cluster.settle()
    assert worker.ran == [base, base + 4]
    assert cluster.results[base] == {2: cluster.values[base + 4]}
    assert cluster.over[base] == PlanDone(base)


def test_releasing_what_is_being_made_stops_it(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=2)
    base = cluster.run(plan_of([(), ()], [0, 1]), keep=True)
    cluster.turn()
    cluster.deliver_to_worker(1)
    worker.begin(base)
    cluster.core.on_release([base], 0.0)
    cluster.settle()
    assert worker.ran == [base + 1]
    assert cluster.over[base] == PlanDone(base)
