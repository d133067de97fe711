"""Who looks after a packet whose task takes long, and what is shared with it."""

from __future__ import annotations

import threading

from graphvine.worker.packets import PacketTask, TaskResult
from graphvine.worker.relief import Relief, UnderWay


def packet(count: int) -> UnderWay:
    return UnderWay(7, [PacketTask(number, 1, 0, number, 0, []) for number in range(count)])


def result(task: int) -> TaskResult:
    return TaskResult(task, 0, "", 1, b"x", "", b"", 0.0, 0.0, 0.0)


def test_what_was_handed_back_does_not_begin() -> None:
    under_way = packet(3)
    first = under_way.begin()
    assert first is not None
    assert under_way.take_tasks() == [1, 2]
    assert under_way.begin() is None


def test_each_result_is_taken_once() -> None:
    under_way = packet(2)
    under_way.add(result(0))
    assert [one.task for one in under_way.take_results()] == [0]
    assert under_way.take_results() == []


def test_slow_packets_are_relieved_one_after_the_other() -> None:
    relieved: list[int] = []
    called = threading.Event()

    def relieve(under_way: UnderWay) -> None:
        relieved.append(under_way.number)
        called.set()

    relief = Relief(relieve)
    with relief(packet(2)):
        assert called.wait(20)
    assert set(relieved) == {7}
    with relief(packet(1)):
        called.clear()
        assert called.wait(20)
