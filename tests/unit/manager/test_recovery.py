"""Losses of files, orders and workers; tasks that fail."""

from __future__ import annotations

import pytest

from graphvine.manager.core import Core
from graphvine.manager.instructions import PartWorker, PlanDone, PlanFailed
from graphvine.manager.plan import TaskOptions
from graphvine.manager.rehearsal import FakeWorker, Rehearsal, plan_of
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Report, TaskDone, TaskFailed


def tell(cluster: Rehearsal, worker: FakeWorker) -> None:
    worker.send()
    while cluster.to_manager[worker.number]:
        cluster.deliver_to_manager(worker.number)


def ran(cluster: Rehearsal, gone: list[FakeWorker]) -> list[int]:
    return sorted(task for worker in [*cluster.workers.values(), *gone] for task in worker.ran)


def test_orders_of_a_lost_worker_run_elsewhere(cluster: Rehearsal) -> None:
    lost = cluster.join()
    base = cluster.run(plan_of([(), (), (0, 1)]))
    cluster.turn()
    cluster.kill(lost.number)
    cluster.join()
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_only_what_is_still_needed_is_made_again_and_once_each(cluster: Rehearsal) -> None:
    # 0 -> 1 -> 2 -> 5, 3 -> 4 -> 5, all large; everything but the last is done when the worker goes.
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,), (1,), (), (3,), (2, 4)]), large=True)
    cluster.turn()
    cluster.deliver_all_to_worker(first.number)
    for task in range(5):
        cluster.deliver_all_to_worker(first.number)
        first.begin(base + task)
        first.finish(base + task)
        tell(cluster, first)
        cluster.turn()
    cluster.kill(first.number)
    second = cluster.join()
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert sorted(second.ran) == [base + task for task in range(6)]
    assert ran(cluster, [first]) == sorted([*first.ran, *second.ran])


def test_a_small_result_survives_its_worker(cluster: Rehearsal) -> None:
    first = cluster.join()
    base = cluster.run(plan_of([(), (0,)]))
    cluster.turn()
    cluster.deliver_all_to_worker(first.number)
    first.begin(base)
    first.finish(base)
    tell(cluster, first)
    cluster.kill(first.number)
    second = cluster.join()
    cluster.settle()
    assert second.ran == [base + 1]
    assert cluster.results[base] == cluster.expected(base)


def test_a_file_with_another_holder_is_not_made_again(cluster: Rehearsal) -> None:
    first, second = cluster.join(name="ant"), cluster.join(name="bee")
    base = cluster.run(plan_of([()], default_options=TaskOptions(workers=("ant",))), keep=True, large=True)
    cluster.settle()
    second.files[base] = cluster.values[base]
    cluster.core.on_message(second.number, Report(fetched=[base]), 0.0)
    assert cluster.core.holders(base) == [first.number, second.number]
    cluster.kill(first.number)
    cluster.turn()
    assert cluster.core.holders(base) == [second.number]


def test_an_order_that_needs_a_lost_file_comes_back_and_is_given_out_again(cluster: Rehearsal) -> None:
    first = cluster.join(name="ant")
    kept = cluster.run(plan_of([()], default_options=TaskOptions(workers=("ant",))), keep=True, large=True)
    cluster.settle()
    second = cluster.join(name="bee")
    wish = TaskOptions(workers=("bee",))
    base = cluster.run(plan_of([(-1,)], externals=[kept], default_options=wish))
    cluster.turn()
    cluster.deliver_all_to_worker(second.number)
    cluster.kill(first.number)
    cluster.turn()
    cluster.deliver_all_to_worker(second.number)
    assert not second.orders
    third = cluster.join(name="ant")
    cluster.settle()
    assert third.ran == [kept]
    assert second.ran == [base]
    assert cluster.results[base] == cluster.expected(base)


def test_a_kept_result_of_a_plan_that_is_over_is_made_again_through_other_plans(cluster: Rehearsal) -> None:
    worker = cluster.join()
    one = cluster.run(plan_of([(), (0,)]), keep=True, large=True)
    two = cluster.run(plan_of([(-1,)], externals=[one + 1]), keep=True, large=True)
    cluster.settle()
    cluster.core.on_release([one + 1], 0.0)
    cluster.settle()
    assert set(worker.files) == {two}
    cluster.kill(worker.number)
    again = cluster.join()
    cluster.settle()
    assert again.ran == [one, one + 1, two]
    assert set(again.files) == {two}


def test_a_silent_worker_is_parted_from_and_its_work_goes_elsewhere(cluster: Rehearsal) -> None:
    silent, good = cluster.join(), cluster.join()
    base = cluster.run(plan_of([()] * 4, wanted=[0, 1, 2, 3]))
    cluster.turn()
    cluster.vanish(silent.number)
    cluster.wait(6.5)
    cluster.settle()
    assert cluster.parted == [PartWorker(silent.number, "nothing was heard of it for 6.0 s")]
    assert cluster.results[base] == cluster.expected(base)
    assert good.ran


def test_a_manager_that_slept_itself_gives_everybody_time(cluster: Rehearsal) -> None:
    silent, good = cluster.join(), cluster.join()
    cluster.turn()
    cluster.vanish(silent.number)
    cluster.now = 1000.0
    cluster.core.on_time(cluster.now)
    assert set(cluster.core.state.workers) == {silent.number, good.number}
    cluster.wait(1003.0)
    assert set(cluster.core.state.workers) == {good.number}


def test_a_worker_that_was_thought_lost_is_not_listened_to(cluster: Rehearsal) -> None:
    ghost = cluster.join()
    base = cluster.run(plan_of([(), (0,)]))
    cluster.turn()
    cluster.core.on_worker_lost(ghost.number, "silent", 0.0)
    cluster.core.on_message(ghost.number, Report(done=[TaskDone(base, 3, b"bad", 0, 0)]), 0.0)
    del cluster.workers[ghost.number]
    cluster.join()
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_task_that_raises_is_tried_as_often_as_its_options_say(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([()], default_options=TaskOptions(retries=2)))
    for attempt in range(3):
        cluster.turn()
        cluster.deliver_all_to_worker(worker.number)
        assert worker.orders[base].attempt == attempt
        worker.begin(base)
        worker.fail(base, text=f"the {attempt}th")
        tell(cluster, worker)
        progress = cluster.core.progress(base, cluster.now)
        assert (progress.failed, progress.categories[0].failed) == (attempt + 1, attempt + 1)
    cluster.turn()
    failed = cluster.over[base]
    assert isinstance(failed, PlanFailed)
    assert (failed.kind, failed.task, failed.text) == ("raised", 0, "the 2th")
    assert [death.text for death in failed.tries] == ["the 0th", "the 1th", "the 2th"]
    assert [death.worker for death in failed.tries] == ["w1"] * 3
    assert cluster.core.task_key(base, failed.task) == "t0"
    cluster.settle()
    assert not worker.files
    assert not worker.blobs


@pytest.mark.parametrize("kind", ["unpicklable", "undecodable", "raised"])
def test_what_would_fail_again_fails_at_once(cluster: Rehearsal, kind: str) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), ()], wanted=[0, 1]))
    cluster.turn()
    cluster.deliver_all_to_worker(worker.number)
    worker.begin(base)
    worker.fail(base, kind)
    tell(cluster, worker)
    cluster.settle()
    failed = cluster.over[base]
    assert isinstance(failed, PlanFailed)
    assert failed.kind == kind
    assert worker.ran == []


def test_a_task_that_kills_its_executor_three_times_fails_with_every_cause(cluster: Rehearsal) -> None:
    worker = cluster.join(cores=2)
    base = cluster.run(plan_of([(), ()], wanted=[0, 1]))
    for cause in ("signal 9", "signal 11", "exit 3"):
        cluster.turn()
        cluster.deliver_all_to_worker(worker.number)
        worker.begin(base)
        worker.fail(base, "killed", cause)
        tell(cluster, worker)
    cluster.turn()
    failed = cluster.over[base]
    assert isinstance(failed, PlanFailed)
    assert failed.kind == "killed"
    assert [death.text for death in failed.tries] == ["signal 9", "signal 11", "exit 3"]


def test_a_result_for_which_there_is_no_room_is_tried_elsewhere(cluster: Rehearsal) -> None:
    full, roomy = cluster.join(), cluster.join()
    base = cluster.run(plan_of([()]))
    cluster.turn()
    worker = full if cluster.core.state.workers[full.number].queue else roomy
    other = roomy if worker is full else full
    cluster.deliver_all_to_worker(worker.number)
    worker.begin(base)
    worker.fail(base, "storage", "disk full")
    tell(cluster, worker)
    cluster.settle()
    assert other.ran == [base]
    assert isinstance(cluster.over[base], PlanDone)


def test_a_retry_elsewhere_calls_back_what_was_given_ahead_of_it(cluster: Rehearsal) -> None:
    worker, other = cluster.join(name="ant"), cluster.join(name="bee")
    base = cluster.run(plan_of([(), (0,)], default_options=TaskOptions(retries=1)))
    cluster.turn()
    home = worker if base in cluster.core.state.workers[worker.number].queue else other
    cluster.deliver_all_to_worker(home.number)
    assert set(home.orders) == {base, base + 1}
    home.begin(base)
    home.fail(base)
    tell(cluster, home)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_failed_plan_takes_with_it_what_builds_on_it(cluster: Rehearsal) -> None:
    worker = cluster.join()
    one = cluster.run(plan_of([()]), keep=True)
    two = cluster.run(plan_of([(-1,)], externals=[one]))
    three = cluster.run(plan_of([()]))
    cluster.turn()
    cluster.deliver_all_to_worker(worker.number)
    worker.begin(one)
    worker.fail(one)
    tell(cluster, worker)
    cluster.turn()
    failed = cluster.over[two]
    assert isinstance(failed, PlanFailed)
    assert cluster.core.task_key(two, failed.task) == "t0"
    cluster.settle()
    assert isinstance(cluster.over[three], PlanDone)
    assert not cluster.core.state.plans


def test_late_and_repeated_words_about_tasks_are_harmless(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([(), (0,), ()], wanted=[1, 2]), large=True)
    cluster.turn()
    cluster.deliver_all_to_worker(worker.number)
    worker.begin(base)
    worker.finish(base)
    report = worker.report
    tell(cluster, worker)
    cluster.core.on_message(worker.number, report, 0.0)
    cluster.core.on_message(worker.number, Report(returned=[base, base + 99]), 0.0)
    cluster.core.on_message(worker.number, Report(failed=[TaskFailed(base, 0, "raised", "late")]), 0.0)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_what_a_cancelled_plan_left_running_is_stopped_and_its_late_results_dropped(
    cluster: Rehearsal,
) -> None:
    worker = cluster.join(cores=2)
    base = cluster.run(plan_of([(), ()], wanted=[0, 1]), large=True)
    cluster.turn()
    cluster.deliver_all_to_worker(worker.number)
    worker.begin(base)
    worker.finish(base)
    cluster.core.on_cancel_plan(base, 0.0)
    cluster.settle()
    assert base not in cluster.over
    assert not worker.orders
    assert not worker.files
    assert not worker.blobs


def test_a_goodbye_blames_nobody() -> None:
    cluster = Rehearsal(Core(Settings(checked=True)))
    base = cluster.run(plan_of([()]))
    for _ in range(10):
        worker = cluster.join()
        cluster.turn()
        cluster.leave(worker.number)
        cluster.turn()
    cluster.join()
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
