"""Plans whose tasks stand alone, and what is given to a plan."""

from __future__ import annotations

import pickle

import pytest

from graphvine.manager import rehearsal
from graphvine.manager.check import check
from graphvine.manager.core import Core
from graphvine.manager.engine import Outcome
from graphvine.manager.instructions import PlanDone, PlanFailed
from graphvine.manager.plan import GivenFile, GivenValue, Plan, TaskOptions
from graphvine.manager.rehearsal import FakeWorker, Rehearsal
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Assign, OnNode, Report, Resources, Source
from graphvine.protocol.outcomes import Failed


def plan_of(inputs: list[tuple[int, ...]], wanted: list[int] | None = None, **more: object) -> Plan:
    """Unless stated, all of it is wanted, and its tasks stand alone."""
    return rehearsal.plan_of(
        inputs, range(len(inputs)) if wanted is None else wanted, **{"separate": True, **more}
    )


def tell(cluster: Rehearsal, worker: FakeWorker) -> None:
    worker.send()
    while cluster.to_manager[worker.number]:
        cluster.deliver_to_manager(worker.number)
    cluster.turn()


def given_out(cluster: Rehearsal, worker: FakeWorker) -> None:
    cluster.turn()
    cluster.deliver_all_to_worker(worker.number)


def kinds(cluster: Rehearsal, base: int) -> dict[int, str]:
    return {position: outcome.kind for position, outcome in cluster.outcomes.get(base, {}).items()}


@pytest.mark.parametrize("keep", [False, True])
def test_each_wanted_task_has_its_outcome(cluster: Rehearsal, keep: bool) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), (0,)]), keep=keep, large=[1])
    cluster.settle()
    first, second = cluster.outcomes[base][0], cluster.outcomes[base][1]
    assert (first.ok, first.file, first.value, first.size) == (True, base, cluster.values[base], 8)
    assert (first.worker, first.host, first.tries) == (worker.hello.name, worker.hello.host, 1)
    assert (second.ok, second.value, second.size) == (True, None, 1_000_000)
    assert isinstance(cluster.over[base], PlanDone)


@pytest.mark.parametrize("keep", [False, True])
def test_a_task_that_fails_leaves_the_others_alone(cluster: Rehearsal, keep: bool) -> None:
    worker = cluster.join(cores=3)
    base = cluster.run(plan_of([(), (), (0, 1)]), keep=keep)
    given_out(cluster, worker)
    worker.begin(base)
    worker.fail(base, "raised", "trouble")
    tell(cluster, worker)
    cluster.settle()
    assert kinds(cluster, base) == {0: "raised", 1: "", 2: ""}
    assert cluster.outcomes[base][0].text == "trouble"
    assert isinstance(cluster.over[base], PlanDone)


def test_what_builds_on_a_failure_has_it_as_its_input(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), (0,)]))
    given_out(cluster, worker)
    assert set(worker.orders) == {base, base + 1}, "also what waits there for the other"
    worker.begin(base)
    worker.fail(base, "unpicklable", "it can't travel")
    tell(cluster, worker)
    for _ in range(3):
        given_out(cluster, worker)
        tell(cluster, worker)
    assert pickle.loads(worker.files[base]) == Failed("unpicklable", "it can't travel")
    cluster.settle()
    assert worker.ran == [base + 1]
    assert cluster.results[base][0] == pickle.dumps(Failed("unpicklable", "it can't travel"), protocol=5)


def test_a_failure_is_not_made_again_for_somebody_who_needs_it_later(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([()]), keep=True)
    given_out(cluster, worker)
    worker.begin(base)
    worker.fail(base)
    tell(cluster, worker)
    cluster.kill(worker.number)
    worker = cluster.join()
    fetch = cluster.core.on_wanted([base], 0.0)
    cluster.settle()
    assert pickle.loads(cluster.results[fetch][0]).kind == "raised"
    assert worker.ran == []


def test_tries_are_counted_and_every_death_is_told(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([()]))
    for death in ("first", "second", "third"):
        given_out(cluster, worker)
        worker.begin(base)
        worker.fail(base, "killed", death)
        tell(cluster, worker)
    outcome = cluster.outcomes[base][0]
    assert (outcome.kind, outcome.tries) == ("killed", 3)
    assert [line.partition(": ")[2] for line in outcome.text.splitlines()] == ["first", "second", "third"]


def test_an_outcome_is_told_once_though_the_result_is_made_again(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), ()]), keep=True, large=[0, 1])
    cluster.settle()
    cluster.kill(worker.number)
    other = cluster.join()
    cluster.settle()  # the rehearsal complains of a second one
    assert sorted(other.ran) == [base, base + 1]


def test_what_no_worker_can_ever_run_fails_alone() -> None:
    cluster = Rehearsal(Core(Settings(checked=True)), check)
    cluster.join()
    large = TaskOptions(request=Resources(64))
    base = cluster.run(plan_of([(), ()], options={0: large}))
    cluster.settle()
    cluster.wait(10.0)
    assert [note.level for note in cluster.notes] == ["warning"]
    assert kinds(cluster, base) == {1: ""}
    cluster.wait(200.0)
    cluster.settle()
    assert kinds(cluster, base) == {0: "unrunnable", 1: ""}
    assert isinstance(cluster.over[base], PlanDone)


def test_what_is_lost_with_its_worker_more_often_than_it_may_be_fails_alone(cluster: Rehearsal) -> None:
    once = TaskOptions(max_losses=1)
    base = cluster.run(plan_of([(), (), (0, 1)], options={0: once}))
    for _ in range(2):
        worker = cluster.join()
        cluster.turn()
        cluster.deliver_to_worker(worker.number)
        cluster.kill(worker.number)
    cluster.join()
    cluster.settle()
    assert kinds(cluster, base) == {0: "unrunnable", 1: "", 2: ""}
    assert "lost before it was done, 2 times" in cluster.outcomes[base][0].text


# -- cancelling -----------------------------------------------------------------------------------------


def test_what_has_not_begun_never_does_and_what_runs_is_stopped(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([()] * 8))
    given_out(cluster, worker)
    worker.begin(base)
    cluster.core.on_cancel_tasks([base, base + 7], 0.0)
    given_out(cluster, worker)
    assert base not in worker.begun
    cluster.settle()
    assert kinds(cluster, base) == {0: "cancelled", 7: "cancelled"} | dict.fromkeys(range(1, 7), "")
    assert sorted(worker.ran) == [base + task for task in range(1, 7)]


def test_what_waits_for_a_cancelled_task_gets_the_news_as_its_input(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), (0,), (1,)]))
    given_out(cluster, worker)
    cluster.core.on_cancel_tasks([base], 0.0)
    cluster.settle()
    assert kinds(cluster, base) == {0: "cancelled", 1: "", 2: ""}


def test_a_result_that_comes_too_late_for_the_cancelling_counts_for_nothing(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), ()]), keep=True)
    given_out(cluster, worker)
    worker.begin(base)
    worker.finish(base)
    worker.send()
    cluster.core.on_cancel_tasks([base], 0.0)
    cluster.settle()
    assert kinds(cluster, base) == {0: "cancelled", 1: ""}
    assert pickle.loads(cluster.core.state.file(base)[0].data[0]).kind == "cancelled"  # type: ignore[arg-type]


def test_cancelling_what_is_done_or_not_separate_does_nothing(cluster: Rehearsal) -> None:
    cluster.join()
    done = cluster.run(plan_of([()]), keep=True)
    cluster.settle()
    whole = cluster.run(plan_of([()], separate=False))
    cluster.core.on_cancel_tasks([done, whole, 99], 0.0)
    cluster.settle()
    assert kinds(cluster, done) == {0: ""}
    assert cluster.results[whole] == cluster.expected(whole)


# -- pruning --------------------------------------------------------------------------------------------


def test_a_pruned_file_is_made_again_when_it_is_needed(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), ()]), keep=True, large=[0, 1])
    cluster.settle()
    cluster.core.on_prune([base], 0.0)
    cluster.settle()
    assert set(worker.files) == {base + 1}
    fetch = cluster.core.on_wanted([base], 0.0)
    cluster.settle()
    assert cluster.results[fetch] == {0: cluster.values[base]}
    assert worker.ran == [base, base + 1, base]


def test_a_file_somebody_waits_for_is_not_pruned(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([()]), keep=True, large=[0])
    cluster.settle()
    cluster.run(plan_of([(-1,)], externals=[base]))
    cluster.core.on_prune([base], 0.0)
    cluster.settle()
    assert worker.ran == [base, base + 2]


def test_pruning_before_the_plan_is_over_does_not_keep_it_open(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), ()]), keep=True, large=[0, 1])
    given_out(cluster, worker)
    worker.begin(base)
    worker.finish(base)
    tell(cluster, worker)
    cluster.core.on_prune([base], 0.0)
    fetch = cluster.core.on_wanted([base], 0.0)
    cluster.settle()
    assert isinstance(cluster.over[base], PlanDone)
    assert cluster.results[fetch] == {0: cluster.values[base]}


# -- what is given --------------------------------------------------------------------------------------


@pytest.mark.parametrize("separate", [False, True])
def test_a_given_value_is_an_input_and_its_task_never_runs(cluster: Rehearsal, separate: bool) -> None:
    worker = cluster.join()
    plan = plan_of([(), (0,), (0, 1)], given={0: GivenValue(b"given")}, blob_of=[-1, 0, 0], separate=separate)
    base = cluster.run(plan)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert cluster.results[base][0] == b"given"
    assert worker.ran == [base + 1, base + 2]


def test_what_is_given_can_be_kept_and_used_later(cluster: Rehearsal) -> None:
    base = cluster.run(
        plan_of([(), ()], given={0: GivenValue(b"a"), 1: GivenValue(b"b")}, blobs=[]), keep=True
    )
    cluster.turn()
    assert isinstance(cluster.over[base], PlanDone)
    worker = cluster.join()
    later = cluster.run(plan_of([(-1, -2)], externals=[base, base + 1]))
    cluster.settle()
    assert cluster.results[later] == cluster.expected(later)
    cluster.core.on_prune([base], 0.0)
    again = cluster.run(plan_of([(-1,)], externals=[base]))
    cluster.settle()
    assert cluster.results[again] == cluster.expected(again)
    cluster.core.on_release([base, base + 1], 0.0)
    cluster.settle()
    assert not cluster.core.state.plans
    assert not worker.files


def test_what_is_given_exists_again_when_its_consumer_is_made_again(cluster: Rehearsal) -> None:
    worker = cluster.join()
    plan = plan_of([(), (0,), (1,)], wanted=[2], given={0: GivenValue(b"given")})
    base = cluster.run(plan, large=[1, 2])
    given_out(cluster, worker)
    worker.begin(base + 1)
    worker.finish(base + 1)
    tell(cluster, worker)
    cluster.kill(worker.number)
    cluster.join()
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_outcomes_of_what_is_given_are_told(cluster: Rehearsal) -> None:
    base = cluster.run(plan_of([()], given={0: GivenValue(b"given")}, blobs=[]), keep=True)
    cluster.turn()
    assert cluster.outcomes[base][0] == Outcome(
        0, base, True, "", "", b"", 5, b"given", "", "", 0.0, 0.0, 0.0, 0
    )


FILE = GivenFile("/data/file", 500)


def test_a_given_file_goes_from_the_manager_to_one_worker_and_from_there_to_others(
    cluster: Rehearsal,
) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,)], given={0: FILE}, wanted=[0, 1]), keep=True)
    cluster.settle()
    second = cluster.join()
    cluster.core.on_block_host(first.hello.host, None, 0.0)
    later = cluster.run(plan_of([(-1,)], externals=[base]))
    cluster.settle()
    assert cluster.results[later] == cluster.expected(later)
    assert second.ran == [later]
    assert cluster.given_out == [(base, first.number)]
    assert cluster.core.state.file(base)[0].size_of(0) == 600, "what travels is known when it was read"


def test_a_given_file_is_sent_again_when_every_copy_is_lost(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), (0,)], given={0: FILE}), keep=True)
    cluster.settle()
    cluster.kill(worker.number)
    other = cluster.join()
    later = cluster.run(plan_of([(-1,)], externals=[base]))
    cluster.settle()
    assert cluster.results[later] == cluster.expected(later)
    assert cluster.given_out == [(base, worker.number), (base, other.number)]
    cluster.core.on_prune([base], 0.0)
    cluster.settle()
    assert base not in other.files
    again = cluster.run(plan_of([(-1,)], externals=[base]))
    cluster.settle()
    assert cluster.results[again] == cluster.expected(again)


@pytest.mark.parametrize("separate", [True, False])
def test_a_given_file_that_changed_fails_clearly(cluster: Rehearsal, separate: bool) -> None:
    worker = cluster.join()
    cluster.changed.add("/data/file")
    base = cluster.run(plan_of([(), (0,), ()], given={0: FILE}, wanted=[1, 2], separate=separate))
    cluster.settle()
    over = cluster.over[base]
    if separate:
        assert kinds(cluster, base) == {0: "", 1: ""}
        assert sorted(worker.ran) == [base + 1, base + 2]
        assert not worker.fetching
    else:
        assert isinstance(over, PlanFailed)
        assert (over.task, over.kind, over.text) == (0, "missing", "/data/file changed")


def test_what_the_workers_have_of_a_file_that_changed_later_counts(cluster: Rehearsal) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,)], given={0: FILE}), keep=True)
    cluster.settle()
    cluster.changed.add("/data/file")
    second = cluster.join()
    cluster.cuts.add((second.number, first.number))
    cluster.core.on_block_host(first.hello.host, None, 0.0)
    later = cluster.run(plan_of([(-1,)], externals=[base]))
    cluster.settle()
    assert cluster.results[later] == cluster.expected(later)


def test_a_given_file_comes_to_the_user_though_no_worker_had_it(cluster: Rehearsal) -> None:
    base = cluster.run(plan_of([()], given={0: FILE}, blobs=[]), keep=True)
    fetch = cluster.core.on_wanted([base], 0.0)
    cluster.settle()
    assert cluster.results[fetch] == {0: b"/data/file"}
    cluster.changed.add("/data/file")
    fetch = cluster.core.on_wanted([base], 0.0)
    cluster.settle()
    assert pickle.loads(cluster.results[fetch][0]).kind == "missing"


def test_a_worker_without_room_for_a_given_file_does_not_get_its_tasks_for_ever(cluster: Rehearsal) -> None:
    full = cluster.join()
    cluster.full.add(full.number)
    base = cluster.run(plan_of([(), (0,), ()], given={0: FILE}, wanted=[1, 2]))
    for _ in range(4):
        cluster.step()
    good = cluster.join()
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert base + 1 in good.ran


def test_a_given_file_for_which_nobody_has_room_fails_what_needs_it(cluster: Rehearsal) -> None:
    for _ in range(3):
        cluster.full.add(cluster.join().number)
    base = cluster.run(plan_of([(), (0,), ()], given={0: FILE}, wanted=[1, 2]))
    cluster.settle()
    assert kinds(cluster, base) == {0: "storage", 1: ""}


def test_stats_count_what_there_is(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=2)
    cluster.run(plan_of([()] * 20))
    given_out(cluster, worker)
    stats = cluster.core.stats()
    assert (stats.workers, stats.cores, stats.plans) == (1, 2.0, 1)
    assert (stats.waiting + stats.running, stats.running > 0, stats.done) == (20, True, 0)


# -- files of the manager's own node ------------------------------------------------------------------------


def sources_of(cluster: Rehearsal, worker: int) -> list[Source]:
    """What a worker is told of files in the next turn."""
    cluster.turn()
    batches = cluster.to_worker[worker]
    said = [message for batch in batches for message in batch if isinstance(message, Assign)]
    return [source for message in said for source in message.sources]


@pytest.mark.parametrize("node", ["node1", "elsewhere", ""])
def test_a_worker_on_the_managers_node_may_read_a_given_file_itself(node: str) -> None:
    cluster = Rehearsal(Core(Settings(checked=True, node=node)), check)
    worker = cluster.join()
    given = GivenFile("/data/file", 500, stamp=7)
    base = cluster.run(plan_of([(), (0,)], given={0: given}))
    expected = OnNode("/data/file", 500, True, 7) if node == "node1" else None
    assert sources_of(cluster, worker.number) == [Source(base, 500, [], on_node=expected)]


def test_how_much_travels_is_known_from_who_read_it() -> None:
    cluster = Rehearsal(Core(Settings(checked=True, node="node1")), check)
    worker = cluster.join()
    base = cluster.run(plan_of([(), (0,)], given={0: FILE}), keep=True)
    cluster.turn()
    cluster.core.on_message(worker.number, Report(fetched=[base], sizes={base: 612}), 0.0)
    assert cluster.core.state.file(base)[0].size_of(0) == 612


@pytest.mark.parametrize("stamp", [0, 7])
def test_what_workers_have_is_not_read_again_when_nobody_could_tell_whether_it_changed(stamp: int) -> None:
    cluster = Rehearsal(Core(Settings(checked=True, node="node2")), check)
    given = GivenFile("/data/file", 500, stamp=stamp)
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,)], given={0: given}), keep=True)
    cluster.settle()
    second = cluster.join()
    cluster.core.on_block_host(first.hello.host, None, 0.0)
    cluster.run(plan_of([(-1,)], externals=[base]))
    (source,) = sources_of(cluster, second.number)
    assert source.holders == [first.number]
    assert (source.on_node is not None) == bool(stamp)
