"""The agent's core: orders, packets, deaths, recall and cancel."""

from __future__ import annotations

import pytest
from tests.unit.worker.bench import BLOB, Bench, order

from graphvine.protocol.messages import (
    LIGHT_CORES,
    Address,
    BlobData,
    Context,
    Missing,
    Resources,
    Source,
    Sources,
    TaskOrder,
)
from graphvine.worker.packets import PacketDone
from graphvine.worker.settings import Settings


def measured(bench: Bench, duration_s: float = 1e-5, category: int = 0) -> None:
    """Let the core learn how long a category takes."""
    bench.core._dispatcher.durations.learn(category, duration_s)


def test_orders_run_in_the_order_in_which_they_came() -> None:
    bench = Bench(cores=1)
    bench.assign(*(order(task) for task in (5, 3, 9, 1)))
    bench.run_all()
    assert bench.order_of_starts == [5, 3, 9, 1]


def test_a_task_runs_when_its_inputs_are_made_here() -> None:
    bench = Bench(cores=2)
    bench.assign(order(3, 1, 2), order(1), order(2), order(4, 3, 3))
    bench.run_all()
    assert set(bench.done) == {1, 2, 3, 4}
    starts = bench.order_of_starts
    assert starts.index(3) > max(starts.index(1), starts.index(2))
    assert starts.index(4) > starts.index(3)


def test_a_woken_task_goes_before_those_that_came_later() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2, 1), order(3), order(4))
    bench.bring_up()
    bench.run_all()
    assert bench.order_of_starts == [1, 2, 3, 4]


def test_a_category_that_was_not_measured_goes_alone() -> None:
    bench = Bench(cores=2)
    bench.assign(*(order(task) for task in range(10)))
    bench.bring_up()
    assert [len(bench.begin(number)) for number in bench.executors] == [1, 1]
    assert all(not executor.inbox for executor in bench.executors.values())


def test_short_tasks_share_packets_and_one_packet_waits_behind_another() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, packet_tasks=8))
    measured(bench)
    bench.assign(*(order(task) for task in range(40)))
    number = bench.only_executor()
    assert bench.begin(number) == list(range(8))
    assert [len(packet.tasks) for packet in bench.executors[number].inbox] == [8]


def test_a_long_task_is_not_followed_by_another_on_the_same_executor() -> None:
    bench = Bench(cores=1)
    measured(bench, 1.0)
    bench.assign(order(1), order(2))
    number = bench.only_executor()
    assert bench.begin(number) == [1]
    assert not bench.executors[number].inbox


def test_few_tasks_are_spread_over_idle_executors() -> None:
    bench = Bench(cores=4, settings=Settings(warm_executors=4))
    bench.core.start()
    bench.turn()
    bench.bring_up()
    measured(bench)
    bench.assign(*(order(task) for task in range(8)))
    assert [len(bench.begin(number)) for number in bench.executors] == [2, 2, 2, 2]


def test_a_packet_is_bounded_by_the_bytes_of_its_inputs() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, packet_bytes=25))
    measured(bench)
    bench.assign(*(order(task, 100) for task in range(9)), values={100: b"0123456789"})
    number = bench.only_executor()
    assert len(bench.begin(number)) == 3
    bench.run_all()
    assert bench.order_of_starts == list(range(9))


def test_executors_are_started_up_to_need_and_never_more_than_cores() -> None:
    bench = Bench(cores=3)
    bench.assign(order(1))
    assert len(bench.executors) == 1
    bench.assign(*(order(task) for task in range(2, 10)))
    assert len(bench.executors) == 3


@pytest.mark.parametrize("request_", [Resources(2), Resources(1, memory_mb=800)])
def test_requests_are_never_exceeded(request_: Resources) -> None:
    bench = Bench(cores=2)
    bench.assign(order(1), order(2), order(3), requests={1: request_, 2: request_})
    bench.bring_up()
    assert sum(len(bench.begin(number)) for number in bench.executors) == 1
    bench.run_all()
    assert bench.order_of_starts == [1, 2, 3]


def test_a_request_larger_than_the_worker_runs_alone() -> None:
    bench = Bench(cores=2)
    bench.assign(order(1), order(2), requests={1: Resources(64, memory_mb=1e9)})
    bench.run_all()
    assert set(bench.done) == {1, 2}


def test_a_large_task_is_not_starved_by_small_ones_behind_it() -> None:
    bench = Bench(cores=2)
    measured(bench, 1.0)
    bench.assign(order(1), order(2), order(3), order(4), requests={2: Resources(2)})
    bench.bring_up()
    assert [bench.begin(number) for number in bench.executors] == [[1], []]
    bench.run_all()
    assert bench.order_of_starts[:2] == [1, 2]


def test_half_cores_run_twice_as_many_at_once() -> None:
    bench = Bench(cores=2)
    half = Resources(0.5)
    bench.assign(*(order(task) for task in range(8)), requests=dict.fromkeys(range(8), half))
    bench.bring_up()
    assert sum(len(bench.begin(number)) for number in bench.executors) == 4


LIGHT = Resources(LIGHT_CORES)


def begun(bench: Bench) -> list[int]:
    """What executors are at, after all that can begin has begun."""
    bench.bring_up()
    return sorted(task for number in bench.executors for task in bench.begin(number))


def test_a_light_task_runs_beside_a_full_one_and_does_not_wait_behind_another() -> None:
    bench = Bench(cores=2)
    measured(bench, 1.0)
    full = Resources(2, memory_mb=1000)
    bench.assign(order(1), order(2), order(3), order(4), requests={1: full, 2: full, 3: LIGHT})
    assert begun(bench) == [1, 3]
    bench.run_all()
    assert set(bench.done) >= {1, 2, 3, 4}


def test_as_many_light_tasks_as_cores_run_at_once() -> None:
    bench = Bench(cores=2)
    measured(bench, 1.0)
    bench.assign(*(order(task) for task in range(1, 6)), requests=dict.fromkeys(range(1, 6), LIGHT))
    assert begun(bench) == [1, 2]
    bench.run_all()
    assert set(bench.done) >= set(range(1, 6))


def test_light_tasks_take_nobodys_place() -> None:
    bench = Bench(cores=2)
    measured(bench, 1.0)
    bench.assign(order(1), order(2), requests={1: LIGHT, 2: LIGHT})
    assert begun(bench) == [1, 2]
    bench.assign(order(3), order(4))
    assert begun(bench) == [1, 2, 3, 4]


# -- contexts -------------------------------------------------------------------------------------------


def test_a_context_with_imports_gets_executors_of_its_own() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1))
    bench.run_all()
    (plain,) = bench.executors
    context = Context(500, "x", b"", ["numpy"])
    bench.assign(order(2), contexts=[context], blobs=[])
    bench.run_all()
    bench.core.on_drop([BLOB])
    bench.assign(order(3), contexts=[context], blobs=[BlobData(BLOB, 500, b"new")])
    assert bench.killed == [plain]
    assert [executor.context for executor in bench.executors.values()] == [500]
    bench.run_all()
    assert set(bench.done) == {1, 2, 3}


def test_a_context_of_modules_alone_uses_the_executors_there_are() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1))
    bench.run_all()
    before = set(bench.executors)
    bench.assign(
        order(2),
        contexts=[Context(500, "x", b"zip", [])],
        blobs=[BlobData(BLOB + 1, 500, b"blob")],
    )
    bench.run_all()
    assert set(bench.executors) == before


# -- results --------------------------------------------------------------------------------------------


def test_a_large_result_is_a_file_of_the_store_for_those_that_need_it() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2, 1))
    number = bench.only_executor()
    bench.finish_one(number, size=5000)
    assert bench.done[1].value is None
    assert bench.done[1].size == 5000
    assert bench.begin(number) == [2]
    assert bench.core.holds() == [(1, 5000)]
    bench.finish_one(number)
    bench.core.on_drop([1])
    bench.turn()
    assert 1 not in bench.stored
    assert bench.core.holds() == []


def test_a_failed_task_is_reported_once_with_all_that_is_known() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1))
    number = bench.only_executor()
    bench.finish_one(number, kind="raised")
    (failed,) = bench.failed
    assert (failed.task, failed.kind, failed.text) == (1, "raised", "why")
    assert not bench.done


# -- deaths -----------------------------------------------------------------------------------------------


def test_a_death_is_blamed_on_the_begun_task_alone() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, packet_tasks=4))
    measured(bench)
    bench.assign(*(order(task) for task in range(12)))
    number = bench.only_executor()
    bench.finish_one(number)
    bench.die(number)
    assert [(failed.task, failed.kind, failed.text) for failed in bench.failed] == [(1, "killed", "signal 9")]
    bench.run_all()
    assert set(bench.done) == set(range(12)) - {1}
    assert bench.order_of_starts == [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_nobody_is_blamed_for_a_death_between_tasks() -> None:
    bench = Bench(cores=1)
    measured(bench)
    bench.assign(*(order(task) for task in range(4)))
    number = bench.only_executor()
    bench.die(number, begun=False)
    assert not bench.failed
    bench.run_all()
    assert set(bench.done) == set(range(4))


def test_executors_that_never_come_up_fail_a_task_instead_of_being_tried_for_ever() -> None:
    settings = Settings(warm_executors=0, start_tries=3)
    bench = Bench(cores=1, settings=settings)
    bench.assign(order(1))
    tries = 0
    while not bench.failed:
        (number,) = bench.executors
        tries += 1
        bench.die(number)
        assert not bench.executors, "the next one comes after a pause"
        bench.wait(settings.start_delay_s)
    assert tries == 3
    assert "no executor could be started: signal 9" in bench.failed[0].text


# -- recall, cancel, take back --------------------------------------------------------------------------


def test_recall_gives_back_what_has_not_begun_and_what_waits_for_it() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2), order(3, 2), order(4, 3, 1), order(5))
    number = bench.only_executor()
    assert bench.begin(number) == [1]
    bench.recall(1, 2)
    assert sorted(bench.returned()) == [2, 3, 4]
    bench.run_all()
    assert set(bench.done) == {1, 5}


def test_nothing_is_kept_of_a_recalled_task_that_waited_for_files_which_never_come() -> None:
    bench = Bench(cores=1)
    bench.assign(order(3, 1, 2), order(1), sources=[Source(2, 500, [])])
    bench.core.on_recall([3])
    bench.run_all()
    assert bench.returned() == [3]
    assert not bench.core._files.waiters


def test_recall_takes_unread_packets_back_and_keeps_what_was_not_recalled() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, packet_tasks=4))
    measured(bench)
    bench.assign(*(order(task) for task in range(12)))
    number = bench.only_executor()
    assert bench.begin(number) == [0, 1, 2, 3]
    bench.recall(3, 5, 9)
    assert sorted(bench.returned()) == [5, 9]
    bench.run_all()
    assert bench.order_of_starts == [0, 1, 2, 3, 4, 6, 7, 8, 10, 11]


def test_what_a_packet_told_that_is_taken_back_is_told_by_the_next() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, packet_tasks=2))
    measured(bench)
    bench.assign(order(0), order(1))
    bench.run_all()
    orders = [TaskOrder(task, BLOB + 1, 0, []) for task in range(2, 6)]
    bench.assign(*orders[:2], blobs=[BlobData(BLOB + 1, 0, b"another")])
    bench.core.on_recall([3])
    bench.assign(*orders[2:])
    bench.run_all()
    assert bench.order_of_starts == [0, 1, 2, 4, 5]


def test_a_packet_read_while_the_one_before_it_was_taken_back_tells_all_it_needs() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, packet_tasks=2))
    measured(bench)
    bench.assign(order(0))
    bench.run_all()
    orders = [TaskOrder(task, BLOB + 1, 0, []) for task in range(2, 6)]
    bench.assign(*orders, blobs=[BlobData(BLOB + 1, 0, b"another")])
    (number,) = bench.executors
    inbox = bench.executors[number].inbox
    assert [len(packet.tasks) for packet in inbox] == [2, 2]
    # The agent was quicker with the first, the executor with the second.
    taken = inbox.popleft()
    bench.core.on_taken_back(number, [taken.number])
    bench.run_all()
    assert set(bench.done) == {0, 2, 3, 4, 5}


def test_a_recalled_task_that_comes_again_runs() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2))
    bench.recall(2)
    bench.assign(order(2))
    bench.run_all()
    assert set(bench.done) == {1, 2}


def test_a_recalled_task_that_an_executor_gives_back_is_returned() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, packet_tasks=4))
    measured(bench)
    bench.assign(*(order(task) for task in range(4)))
    number = bench.only_executor()
    assert bench.begin(number) == [0, 1, 2, 3]
    bench.recall(2)
    assert bench.returned() == [], "perhaps it has begun"
    bench.finish_one(number)
    bench.finish_one(number)
    executor = bench.executors[number]
    assert executor.at is not None
    done = PacketDone(executor.at.number, [], finished=True, given_back=[2, 3])
    executor.at, executor.left = None, []
    bench.core.on_packet_results(number, done, bench.now)
    bench.turn()
    assert bench.returned() == [2]
    bench.run_all()
    assert bench.order_of_starts == [0, 1, 3]


def test_a_worker_that_leaves_gives_back_what_has_not_begun_and_what_still_comes() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2), order(3, 2))
    number = bench.only_executor()
    assert bench.begin(number) == [1]
    assert not bench.core.idle()
    bench.core.on_leave()
    bench.turn()
    assert sorted(bench.returned()) == [2, 3]
    bench.assign(order(4), order(5, 4))
    bench.turn()
    assert {4, 5} <= set(bench.returned())
    bench.run_all()
    assert set(bench.done) == {1}
    assert bench.core.idle()


def test_whoever_dies_while_its_worker_leaves_is_blamed_for_nothing() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1))
    number = bench.only_executor()
    bench.begin(number)
    bench.core.on_leave()
    bench.turn()
    bench.die(number)
    assert bench.returned() == [1]
    assert not bench.failed


def test_cancel_of_what_has_not_begun_is_forgotten_without_a_word() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2), order(3, 2))
    bench.bring_up()
    bench.cancel(2, 3)
    bench.run_all()
    assert set(bench.done) == {1}
    assert not bench.failed
    assert not bench.returned()


def test_cancel_stops_a_long_task_at_once_without_blame() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2))
    number = bench.only_executor()
    bench.begin(number)
    bench.cancel(1)
    assert bench.killed == [number]
    bench.run_all()
    assert set(bench.done) == {2}
    assert not bench.failed


def test_cancel_lets_a_short_task_end_and_stops_it_when_it_does_not() -> None:
    settings = Settings(warm_executors=0)
    bench = Bench(cores=1, settings=settings)
    measured(bench)
    bench.assign(*(order(task) for task in range(6)))
    number = bench.only_executor()
    bench.begin(number)
    bench.cancel(0)
    assert not bench.killed
    bench.wait(settings.cancel_grace_s)
    assert bench.killed == [number]
    bench.run_all()
    assert set(bench.done) == set(range(1, 6))
    assert not bench.failed


def test_cancel_within_a_packet_that_ends_in_time_kills_nobody() -> None:
    settings = Settings(warm_executors=0)
    bench = Bench(cores=1, settings=settings)
    measured(bench)
    bench.assign(*(order(task) for task in range(6)))
    number = bench.only_executor()
    bench.begin(number)
    bench.cancel(0)
    bench.run_all()
    bench.wait(2 * settings.cancel_grace_s)
    assert not bench.killed
    assert set(bench.done) == set(range(1, 6))


def test_the_file_of_a_cancelled_task_is_dropped() -> None:
    bench = Bench(cores=1)
    measured(bench)
    bench.assign(order(1), order(2))
    number = bench.only_executor()
    bench.begin(number)
    bench.cancel(1)
    bench.finish_one(number, size=5000)
    assert 1 not in bench.stored
    assert 1 not in bench.done


def test_an_idle_executor_gets_what_waits_unread_before_a_busy_one() -> None:
    bench = Bench(cores=2)
    measured(bench, 0.02)
    bench.assign(*(order(task) for task in range(4)))
    bench.bring_up()
    first, second = bench.executors
    assert bench.begin(first) == [0]
    assert bench.begin(second) == [1]
    assert [len(executor.inbox) for executor in bench.executors.values()] == [1, 1]
    bench.finish_one(second, duration_s=0.02)
    bench.finish_one(second, duration_s=0.02)
    assert bench.begin(second) == [2], "what waited before the first executor"
    assert not bench.executors[first].inbox


def test_an_idle_executor_without_a_core_takes_nothing_from_a_busy_one() -> None:
    bench = Bench(cores=1)
    half = Resources(0.5)
    bench.assign(order(0), order(1), requests={0: half, 1: half})
    bench.run_all()
    assert len(bench.executors) == 2, "two tasks of half a core ran at once"
    measured(bench, 0.02)
    bench.assign(*(order(task) for task in range(2, 4)))
    waiting = {n: [packet.number for packet in e.inbox] for n, e in bench.executors.items()}
    assert sorted(map(len, waiting.values())) == [0, 2], "one core, one executor, two packets"
    bench.wait(1.0)
    assert waiting == {n: [packet.number for packet in e.inbox] for n, e in bench.executors.items()}


def test_what_waits_behind_a_task_that_takes_longer_than_expected_moves() -> None:
    settings = Settings(warm_executors=0, packet_tasks=1)
    bench = Bench(cores=2, settings=settings)
    measured(bench)
    bench.assign(*(order(task) for task in range(4)))
    bench.bring_up()
    first, second = bench.executors
    bench.begin(first)
    bench.begin(second)
    bench.finish_one(second)
    bench.finish_one(second)
    assert len(bench.executors[first].inbox) == 1
    bench.wait(settings.overdue_s * 2)
    assert not bench.executors[first].inbox
    assert bench.begin(second) == [2]


# -- files ------------------------------------------------------------------------------------------------


def test_a_file_nobody_told_of_is_reported_missing_once() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1, 77), order(2, 77))
    assert [missing for report in bench.reports for missing in report.missing] == [
        Missing(77, [], "this worker neither holds it nor was told where it is")
    ]


def test_a_file_that_vanishes_is_reported_and_its_task_waits_for_it() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1))
    number = bench.only_executor()
    bench.finish_one(number, size=5000)
    bench.core.on_file_lost(1)
    bench.assign(order(2, 1))
    assert [report.lost for report in bench.reports if report.lost] == [[1]]
    assert [missing.file for report in bench.reports for missing in report.missing] == [1]
    bench.run_all()
    assert set(bench.done) == {1}


def test_rejoining_forgets_tasks_and_keeps_stored_results() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2), order(3, 99))
    number = bench.only_executor()
    bench.finish_one(number, size=5000)
    bench.core.on_rejoin(bench.now)
    bench.reports.clear()
    bench.turn()
    assert not bench.reports
    assert bench.core.holds() == [(1, 5000)]
    bench.assign(order(2), order(3, 1))
    bench.run_all()
    assert set(bench.done) == {1, 2, 3}


def test_a_file_that_an_executor_may_be_about_to_read_is_dropped_when_it_is_done() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1))
    bench.run_all()
    (number,) = bench.executors
    bench.assign(order(2))
    bench.begin(number)
    bench.finish_one(number, size=500)
    measured(bench)
    bench.assign(order(3, 2), order(4, 2))
    assert bench.begin(number) == [3, 4]
    bench.core.on_drop([2])
    bench.turn()
    bench.finish_one(number)
    assert 2 in bench.stored
    bench.finish_one(number)
    assert 2 not in bench.stored


def test_a_file_that_is_made_again_while_the_old_one_is_read_stays() -> None:
    bench = Bench(cores=2)
    bench.assign(order(1))
    bench.bring_up()
    first = next(iter(bench.executors))
    bench.begin(first)
    bench.finish_one(first, size=500, duration_s=0.1)
    bench.assign(order(2, 1))
    bench.bring_up()
    reader = next(number for number in bench.executors if bench.begin(number))
    bench.core.on_drop([1])
    del bench.done[1]
    bench.assign(order(1))
    bench.bring_up()
    maker = next(number for number in bench.executors if number != reader and bench.begin(number))
    bench.finish_one(maker, size=500)
    bench.finish_one(reader)
    assert 1 in bench.stored


def test_holders_that_were_tried_stay_known_to_the_manager() -> None:
    bench = Bench(cores=1)
    addresses = [Address("there", 1)]
    bench.assign(
        order(2, 1), sources=[Source(1, 500, [8])], peers={8: addresses, 9: addresses, 10: addresses}
    )
    bench.core.on_fetch_failed(1, 8, "unreachable")
    bench.turn()
    bench.core.on_sources(Sources([Source(1, 500, [9])]))
    bench.core.on_fetch_failed(1, 9, "unreachable")
    bench.turn()
    assert [missing.holders for report in bench.reports for missing in report.missing] == [[8], [8, 9]]


def test_tasks_whose_blob_cannot_be_stored_fail_and_it_is_not_asked_for_again() -> None:
    bench = Bench(cores=1)
    blobs = [BlobData(BLOB, 0, None)]
    bench.assign(order(1), order(2), blobs=blobs, sources=[Source(BLOB, 10, [])])
    bench.core.on_pull_failed(BLOB, "disk full")
    bench.turn()
    assert [(failed.task, failed.kind) for failed in bench.failed] == [(1, "storage"), (2, "storage")]
    assert not any(report.missing for report in bench.reports)


# -- time limits ----------------------------------------------------------------------------------------


def test_a_task_that_runs_for_too_long_is_stopped_and_fails() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2), limits={1: 5.0})
    number = bench.only_executor()
    assert bench.begin(number) == [1]
    bench.wait(4.9)
    assert not bench.failed
    bench.wait(0.1)
    assert [(failed.task, failed.kind) for failed in bench.failed] == [(1, "timeout")]
    assert bench.killed == [number]
    bench.run_all()
    assert set(bench.done) == {2}


def test_the_time_of_a_task_begins_when_it_does() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, packet_tasks=8))
    measured(bench)
    bench.assign(*(order(task) for task in range(4)), limits=dict.fromkeys(range(4), 5.0))
    number = bench.only_executor()
    for task in range(4):
        assert bench.begin(number) == [task], "it is alone, and nobody waits behind it"
        assert not bench.executors[number].inbox
        bench.wait(4.0)
        bench.finish_one(number)
    bench.wait(100.0)
    assert not bench.failed
    assert bench.core.deadline() is None


def test_a_task_that_was_cancelled_or_whose_executor_died_does_not_time_out() -> None:
    bench = Bench(cores=2)
    bench.assign(order(1), order(2), limits={1: 5.0, 2: 5.0})
    bench.bring_up()
    first, second = bench.executors
    assert (bench.begin(first), bench.begin(second)) == ([1], [2])
    bench.cancel(1)
    bench.die(second)
    bench.wait(100.0)
    assert [failed.kind for failed in bench.failed] == ["killed"]


def test_a_value_that_the_manager_sends_takes_the_place_of_a_result_nobody_wants() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1))
    number = bench.only_executor()
    bench.finish_one(number, size=1000)
    assert 1 in bench.stored
    # It was cancelled meanwhile, and that is its result now.
    bench.core.on_cancel([1], bench.now)
    bench.assign(order(2, 1), values={1: b"cancelled"})
    assert 1 not in bench.stored
    bench.run_all()
    assert set(bench.done) == {1, 2}


def test_results_of_a_busy_worker_wait_for_others_and_the_last_ones_do_not() -> None:
    bench = Bench(cores=1, settings=Settings(warm_executors=0, gather_s=0.5))
    bench.assign(*(order(task) for task in range(4)))
    number = bench.only_executor()
    bench.begin(number)
    bench.finish_one(number, duration_s=1.0)
    assert not bench.done, "there is more to do than can be begun"
    assert bench.core.deadline() == bench.now + 0.5
    bench.now += 0.5
    bench.core.on_time(bench.now)
    bench.turn()
    assert set(bench.done) == {0}
    bench.run_all(duration_s=1.0)
    assert set(bench.done) == {0, 1, 2, 3}, "no time has passed"


def test_a_stored_result_that_is_dropped_while_it_is_read_does_not_stay_for_the_value_in_its_place() -> None:
    bench = Bench(cores=1)
    bench.assign(order(1), order(2, 1))
    bench.finish_one(bench.only_executor(), size=5000)
    (number,) = bench.executors
    assert bench.begin(number) == [2]
    bench.core.on_drop([1])
    bench.assign(order(3, 1), values={1: b"cancelled"})
    bench.run_all()
    assert set(bench.done) == {1, 2, 3}
    assert 1 not in bench.stored
