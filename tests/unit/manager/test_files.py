"""Where results lie, what is dropped when, and what is told about it."""

from __future__ import annotations

from graphvine.manager.plan import Plan
from graphvine.manager.rehearsal import Rehearsal
from graphvine.protocol.messages import Drop, Missing, Report, Sources


def plan_of(inputs: list[tuple[int, ...]], wanted: list[int], externals: list[int] | None = None) -> Plan:
    size = len(inputs)
    return Plan(
        keys=list(range(size)),
        inputs=inputs,
        blobs=[b"blob"],
        blob_of=[0] * size,
        blob_index=list(range(size)),
        categories=["work"],
        category_of=[0] * size,
        wanted=wanted,
        externals=externals or [],
    )


def test_what_nobody_needs_is_dropped_at_once(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), (0,), (1,), ()], wanted=[2]), keep=True, large=True)
    cluster.settle()
    assert set(worker.files) == {base + 2}


def test_an_input_used_twice_by_one_task_is_released_once(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), (0, 0), (0, 1, 0)], wanted=[2]), large=True)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert not worker.files


def test_every_copy_is_dropped(cluster: Rehearsal) -> None:
    for _ in range(3):
        cluster.join()
    base = cluster.run(plan_of([(), *[(0,)] * 30], wanted=list(range(1, 31))), large=[0])
    cluster.duration_s = 0.05
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert sum(1 for worker in cluster.workers.values() if worker.ran) > 1
    assert not any(worker.files or worker.blobs for worker in cluster.workers.values())


def test_a_copy_nobody_counts_on_is_dropped_where_it_lies(cluster: Rehearsal) -> None:
    cluster.join()
    base = cluster.run(plan_of([()], wanted=[0]))
    cluster.settle()
    cluster.core.on_message(1, Report(fetched=[base]), 0.0)
    (said,) = cluster.turn()
    assert said.messages == [Drop([base])]  # type: ignore[union-attr]


def two_sides(cluster: Rehearsal) -> tuple[int, int, int]:
    """A large file on one worker, and a task on another that waits for it. Returns base, holder, other."""
    cluster.join(name="ant")
    from graphvine.manager.plan import TaskOptions

    origin = plan_of([()], wanted=[0])
    origin.default_options = TaskOptions(workers=("ant",))
    first = cluster.run(origin, keep=True, large=True)
    cluster.settle()
    cluster.join(name="bee")
    second = plan_of([(), (-1, 0)], wanted=[1], externals=[first])
    second.default_options = TaskOptions(workers=("bee",))
    base = cluster.run(second)
    return base, 1, 2


def test_a_peer_that_cannot_be_reached_is_gone_round_through_the_manager(cluster: Rehearsal) -> None:
    base, holder, other = two_sides(cluster)
    cluster.cuts.add((other, holder))
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert cluster.workers[holder].ran == [base - 2]


def test_another_holder_is_named_before_the_manager_relays(cluster: Rehearsal) -> None:
    base, holder, other = two_sides(cluster)
    cluster.turn()
    third = cluster.join(name="cat").number
    cluster.workers[third].files[base - 2] = cluster.values[base - 2]
    cluster.core.on_message(third, Report(fetched=[base - 2]), 0.0)
    cluster.core.on_message(other, Report(missing=[Missing(base - 2, [holder], "no route")]), 0.0)
    said = next(s for s in cluster.turn() if getattr(s, "worker", 0) == other)
    (update,) = (message for message in said.messages if isinstance(message, Sources))  # type: ignore[union-attr]
    assert update.sources[0].holders == [third]
    assert list(update.peers) == [third]


def test_a_file_that_cannot_be_had_in_any_way_is_made_again(cluster: Rehearsal) -> None:
    base, holder, other = two_sides(cluster)
    cluster.workers[holder].files.clear()
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert (cluster.workers[holder].ran + cluster.workers[other].ran).count(base - 2) == 2


def test_a_small_value_that_was_lost_at_a_worker_is_sent_again(cluster: Rehearsal) -> None:
    cluster.join(cores=2)
    base = cluster.run(plan_of([(), (0,), (1,)], wanted=[0, 2]))
    cluster.turn()
    worker = cluster.workers[1]
    cluster.deliver_to_worker(1)
    worker.begin(base)
    worker.finish(base)
    worker.lose(base)
    worker.send()
    cluster.deliver_to_manager(1)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert worker.ran.count(base) == 1


def test_words_about_numbers_that_never_were_are_noted_once_and_do_nothing(cluster: Rehearsal) -> None:
    cluster.join()
    cluster.run(plan_of([(), (0,)], wanted=[1]))
    cluster.turn()
    before = bytes(next(iter(cluster.core.state.plans.values())).state)
    cluster.core.on_message(1, Report(fetched=[999], lost=[-4], missing=[Missing(10**9, [], "?")]), 0.0)
    cluster.turn()
    assert [note.level for note in cluster.notes] == ["warning"]
    assert bytes(next(iter(cluster.core.state.plans.values())).state) == before


def test_a_late_word_that_a_file_is_missing_does_not_undo_its_being_made_again(cluster: Rehearsal) -> None:
    base, holder, other = two_sides(cluster)
    file = base - 2
    cluster.turn()
    cluster.core.on_message(other, Report(missing=[Missing(file, [holder], "no route")]), 0.0)
    cluster.turn()
    worker = cluster.workers[holder]
    while cluster.to_worker[holder]:
        cluster.deliver_to_worker(holder)
    worker.lose(file)
    worker.send()
    cluster.deliver_to_manager(holder)
    cluster.turn()
    while cluster.to_worker[holder]:
        cluster.deliver_to_worker(holder)
    worker.begin(file)
    worker.finish(file)
    worker.send()
    while cluster.to_manager[holder]:
        cluster.deliver_to_manager(holder)
    cluster.core.on_message(other, Report(missing=[Missing(file, [], "nobody has it")]), 0.0)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert worker.ran.count(file) == 2
