"""Tasks that follow others in one packet, and the values they pass on."""

from __future__ import annotations

import pytest
from tests.unit.worker.bench import Bench, order

from graphvine.protocol.messages import TaskOrder
from graphvine.worker.family import Passing, was_passed_on
from graphvine.worker.packets import PacketTask, ResultKind, TaskResult
from graphvine.worker.relief import UnderWay
from graphvine.worker.settings import Settings


def task(number: int, *inputs: int, passed: int = 0, kept: bool = True) -> PacketTask:
    return PacketTask(number, 1, 0, 0, 0, list(inputs), passed, kept)


def result(number: int, kind: ResultKind = "", size: int = 1) -> TaskResult:
    return TaskResult(number, 0, kind, size, b"x" if size and not kind else None, "", b"", 0.0, 0.0, 0.0)


def passed_on(number: int) -> TaskResult:
    return result(number, size=0)


# -- in the executor: what counts, and what does not ------------------------------------------------------

#: 1 is needed by 2 and 3, 2 by 4; all of it in the packet.
FAMILY = [task(1, passed=2, kept=False), task(2, 1, passed=1, kept=False), task(3, 1), task(4, 2)]

Said = list[tuple[list[int], list[int]]]


def under_way() -> UnderWay:
    return UnderWay(7, FAMILY)


def run_next(packet: UnderWay, kind: ResultKind = "") -> int:
    began = packet.begin()
    assert began is not None
    assert packet.passing is not None
    if not kind and began.passed:
        packet.passing.values[began.task] = "its value"
    packet.add(result(began.task, kind) if began.kept or kind else passed_on(began.task))
    return began.task


def end(packet: UnderWay) -> tuple[list[int], list[int]]:
    said: Said = []
    packet.end(lambda results, tasks: said.append(([one.task for one in results], sorted(tasks))))
    (only,) = said
    return only


def relieve(packet: UnderWay) -> Said:
    said: Said = []
    packet.relieve(lambda results, tasks: said.append(([one.task for one in results], sorted(tasks))))
    return said


def test_all_counts_when_all_has_run() -> None:
    packet = under_way()
    assert [run_next(packet) for _ in range(4)] == [1, 2, 3, 4]
    assert packet.begin() is None
    assert packet.passing is not None
    assert not packet.passing.values
    assert end(packet) == ([1, 2, 3, 4], [])


def test_a_value_goes_when_the_last_that_needs_it_has_run() -> None:
    packet = under_way()
    assert packet.passing is not None
    run_next(packet)
    run_next(packet)
    assert set(packet.passing.values) == {1, 2}
    run_next(packet)
    assert set(packet.passing.values) == {2}


def test_what_a_failed_task_was_passed_is_made_again() -> None:
    packet = under_way()
    run_next(packet)
    run_next(packet)
    run_next(packet)
    run_next(packet, "raised")
    # 2 was for 4 alone; to make it again, 1 is needed again.
    assert end(packet) == ([3, 4], [1, 2])


def test_what_waits_for_a_failed_task_is_not_begun() -> None:
    packet = under_way()
    run_next(packet, "raised")
    assert packet.begin() is None
    assert end(packet) == ([1], [2, 3, 4])


def test_what_was_kept_counts_whatever_becomes_of_the_others() -> None:
    packet = UnderWay(7, [task(1, passed=1, kept=True), task(2, 1)])
    run_next(packet)
    run_next(packet, "raised")
    assert end(packet) == ([1, 2], [])


def test_relieved_of_what_has_not_begun_and_of_what_that_needs() -> None:
    packet = under_way()
    run_next(packet)
    run_next(packet)
    running = packet.begin()
    assert running is FAMILY[2]
    assert relieve(packet) == [([], [1, 2, 4])]
    packet.add(result(3))
    assert packet.begin() is None
    assert end(packet) == ([3], [])


def test_what_runs_while_the_packet_is_relieved_may_have_to_run_again() -> None:
    packet = under_way()
    assert packet.passing is not None
    packet.begin()
    assert relieve(packet) == [([], [2, 3, 4])]
    packet.passing.values[1] = "its value"
    packet.add(passed_on(1))
    assert packet.begin() is None
    assert end(packet) == ([], [1])


def test_results_that_are_certain_are_not_held_up() -> None:
    packet = UnderWay(7, [task(1, passed=1, kept=False), task(2, 1), task(3), task(4)])
    for _ in range(2):
        run_next(packet)
    packet.begin()
    assert relieve(packet) == [([2], [4])]
    packet.add(result(3))
    assert end(packet) == ([1, 3], [])


def test_one_input_may_be_named_twice() -> None:
    packet = UnderWay(7, [task(1, passed=2, kept=False), task(2, 1, 1)])
    run_next(packet)
    run_next(packet)
    assert end(packet) == ([1, 2], [])


def test_a_failure_was_not_passed_on() -> None:
    assert was_passed_on(passed_on(1))
    assert not was_passed_on(result(1, "raised"))
    assert not was_passed_on(TaskResult(1, 0, "", 5000, None, "", b"", 0.0, 0.0, 0.0))


def test_without_values_to_pass_there_is_nothing_to_keep_track_of() -> None:
    assert UnderWay(7, [task(1), task(2)]).passing is None
    assert Passing([task(1)]).end() == []


# -- in the agent's core: who follows whom ----------------------------------------------------------------


def used(uses: int, number: int, *inputs: int, category: int = 0) -> TaskOrder:
    given = order(number, *inputs, category=category)
    given.uses = uses
    return given


def bench_with(*orders: TaskOrder, cores: int = 1, mean_s: float = 0.01, **chosen: float) -> Bench:
    settings = Settings(warm_executors=0, **chosen)  # type: ignore[arg-type]
    bench = Bench(cores=cores, settings=settings)
    bench.core._dispatcher.durations.learn(0, mean_s)
    bench.assign(*orders)
    bench.bring_up()
    return bench


def packet_of(bench: Bench, number: int) -> dict[int, tuple[list[object], int, bool]]:
    """What an executor reads: inputs, how often it is passed on, and whether it is kept, of each task."""
    bench.begin(number)
    packet = bench.executors[number].at
    assert packet is not None
    return {one.task: (one.inputs, one.passed, one.kept) for one in packet.tasks}


def test_whoever_needs_only_what_a_packet_makes_follows_in_it() -> None:
    bench = bench_with(used(2, 1), used(1, 2, 1), used(1, 3, 1, 2), used(1, 9, 3, 77))
    (number,) = bench.executors
    assert packet_of(bench, number) == {1: ([], 2, False), 2: ([1], 1, False), 3: ([1, 2], 0, True)}


def test_what_is_needed_elsewhere_too_is_kept() -> None:
    bench = bench_with(used(2, 1), used(1, 2, 1))
    (number,) = bench.executors
    assert packet_of(bench, number) == {1: ([], 1, True), 2: ([1], 0, True)}


def test_nobody_follows_where_it_is_not_told_who_needs_what() -> None:
    bench = bench_with(order(1), order(2, 1))
    (number,) = bench.executors
    assert list(packet_of(bench, number)) == [1]


def test_who_follows_is_measured_and_not_too_much() -> None:
    orders = [used(3, 1), used(1, 2, 1), used(1, 3, 1, category=5), used(1, 4, 1), used(1, 5, 1)]
    bench = bench_with(*orders, family_s=0.035)
    (number,) = bench.executors
    assert list(packet_of(bench, number)) == [1, 2, 4]


def test_nobody_follows_while_others_would_have_nothing_to_do() -> None:
    bench = bench_with(used(2, 1), used(1, 2, 1), used(1, 3, 1), used(1, 4), used(0, 5, 4), cores=2)
    packets = [list(packet_of(bench, number)) for number in sorted(bench.executors)]
    # There was another to begin when the first was given away, and none left behind the second.
    assert packets == [[1, 2, 3], [4]]


#: Three are made for the first join, two for the second.
JOINS = [used(1, 1), used(1, 2), used(1, 3), used(1, 8, 1, 2, 3), used(1, 4), used(1, 5), used(1, 9, 4, 5)]


def test_what_else_a_task_needs_is_made_in_the_same_packet() -> None:
    bench = bench_with(*JOINS)
    (number,) = bench.executors
    made = {task: ([], 1, False) for task in (1, 2, 3)}
    assert packet_of(bench, number) == {**made, 8: ([1, 2, 3], 0, True)}
    bench.run_all()
    assert set(bench.done) == {1, 2, 3, 4, 5, 8, 9}
    assert not bench.core._queue.jobs


@pytest.mark.parametrize(
    ("orders", "chosen"),
    [
        pytest.param([used(2, 1), used(1, 2), used(1, 8, 1, 2)], {}, id="another needs it too"),
        pytest.param([used(1, 1), used(1, 2, category=5), used(1, 8, 1, 2)], {}, id="not measured"),
        pytest.param([used(1, 1), used(1, 2), used(1, 8, 1, 2)], {"join_s": 0.025}, id="too long"),
        pytest.param([used(1, 1), used(1, 4), used(1, 2), used(1, 8, 1, 2)], {}, id="not next"),
        pytest.param([used(1, 1), used(1, 2, 77), used(1, 8, 1, 2)], {}, id="not ready"),
        pytest.param(
            [used(1, 1), *(used(1, n) for n in range(2, 200)), used(1, 999, *range(1, 200))],
            {"join_s": 9.0},
            id="too many",
        ),
    ],
)
def test_nothing_is_taken_along_in_vain(orders: list[TaskOrder], chosen: dict[str, float]) -> None:
    bench = bench_with(*orders, **chosen)
    (number,) = bench.executors
    assert list(packet_of(bench, number)) == [1]
    bench.run_all()
    ready = [given.task for given in orders if not given.inputs]
    assert [task for task in bench.done if task in ready] == ready


def test_others_find_as_much_as_one_had_before() -> None:
    bench = bench_with(*JOINS[:4], cores=2)
    assert [list(packet_of(bench, number)) for number in sorted(bench.executors)] == [[1], [2]]
    bench = bench_with(*JOINS, cores=2)
    assert [list(packet_of(bench, number)) for number in sorted(bench.executors)] == [[1, 2, 3, 8], [4]]


def test_a_family_ends_whole() -> None:
    bench = bench_with(used(2, 1), used(1, 2, 1), used(1, 3, 1, 2))
    bench.run_all()
    assert set(bench.done) == {1, 2, 3}
    # 1 and 2 were never kept: should anybody come to need them, they are to be made again.
    assert [file for report in bench.reports for file in report.lost] == [1, 2]
    assert set(bench.core._files.held) & {1, 2, 3} == {3}
    assert not bench.core._queue.jobs


@pytest.mark.parametrize("done", [0, 1, 2])
def test_when_the_executor_dies_what_it_passed_on_is_made_again(done: int) -> None:
    bench = bench_with(used(1, 1), used(1, 2, 1), used(1, 3, 2))
    (number,) = bench.executors
    for _ in range(done):
        bench.finish_one(number)
    bench.die(number)
    (failed,) = bench.failed
    assert failed.task == done + 1
    # Given again, as the manager does, it goes on from the beginning.
    bench.assign(used(1, failed.task, *([failed.task - 1] if failed.task > 1 else [])))
    bench.run_all()
    assert set(bench.done) == {1, 2, 3}


def test_a_failure_in_the_middle() -> None:
    bench = bench_with(used(2, 1), used(1, 2, 1), used(1, 3, 1), used(1, 4, 2))
    (number,) = bench.executors
    bench.finish_one(number)
    bench.finish_one(number, "raised")
    bench.finish_one(number)
    assert [failure.task for failure in bench.failed] == [2]
    bench.recall(4)
    bench.run_all()
    # 1 has run again, and is kept for whoever makes 2.
    assert set(bench.done) == {1, 3}
    assert bench.core._files.held[1]
    assert bench.returned() == [4]


def test_what_is_called_back_takes_with_it_what_follows() -> None:
    bench = bench_with(used(1, 8), used(1, 9, 8), used(1, 1), used(1, 2, 1))
    bench.recall(1)
    bench.run_all()
    assert set(bench.returned()) == {1, 2}
    assert set(bench.done) == {8, 9}


def test_cancelled_with_its_executor() -> None:
    bench = bench_with(used(1, 1), used(1, 2, 1), mean_s=0.1)
    (number,) = bench.executors
    bench.finish_one(number)
    bench.cancel(1, 2)
    assert bench.killed == [number]
    assert not bench.core._queue.jobs
