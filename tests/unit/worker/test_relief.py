"""Who looks after a packet whose task takes long, and what is shared with it."""

from __future__ import annotations

import threading
import time

from graphvine.worker.packets import PacketTask, TaskResult
from graphvine.worker.relief import Relief, UnderWay


def packet(count: int) -> UnderWay:
    return UnderWay(7, [PacketTask(number, 1, 0, number, 0, []) for number in range(count)])


def result(task: int) -> TaskResult:
    return TaskResult(task, 0, "", 1, b"x", "", b"", 0.0, 0.0, 0.0)


Said = list[tuple[list[int], list[int]]]


def relieve(under_way: UnderWay) -> Said:
    said: Said = []
    under_way.relieve(lambda results, tasks: said.append(([one.task for one in results], tasks)))
    return said


def test_what_was_handed_back_does_not_begin() -> None:
    under_way = packet(3)
    assert under_way.begin() is not None
    assert relieve(under_way) == [([], [1, 2])]
    assert under_way.begin() is None


def test_each_result_is_sent_once() -> None:
    under_way = packet(2)
    under_way.begin()
    under_way.add(result(0))
    assert relieve(under_way) == [([0], [1])]
    assert relieve(under_way) == []
    sent: list[TaskResult] = []
    under_way.add(result(1))
    under_way.hand_in(sent.extend)
    under_way.hand_in(sent.extend)
    assert [one.task for one in sent] == [1]


def test_slow_packets_are_relieved_one_after_the_other() -> None:
    relieved: list[UnderWay] = []
    called = threading.Event()

    def note(under_way: UnderWay) -> None:
        relieved.append(under_way)
        called.set()

    relief = Relief(note)
    for slow in (packet(2), packet(3)):
        called.clear()
        relief.begin(slow)
        assert called.wait(20)
        relief.end()
        assert relieved[-1] is slow


def test_it_wakes_again_after_a_pause() -> None:
    called = threading.Event()
    relief = Relief(lambda _: called.set())
    relief.begin(packet(2))
    assert called.wait(20)
    relief.end()
    while not relief._asleep:
        time.sleep(0.001)
    called.clear()
    relief.begin(packet(2))
    assert called.wait(20)
    relief.end()
