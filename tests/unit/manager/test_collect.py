"""Bringing results here when holders come and go, and when their transfer servers can't be reached."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

import pytest

from graphvine.manager.collect import Collector, Wish
from graphvine.manager.instructions import Available
from graphvine.manager.reach import Place, Reach
from graphvine.protocol.messages import Address, Hello, Pull, Resources

NOBODY = Address("127.0.0.1", 1)


class Scene:
    """A collector, and what comes of it."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        self.asked: list[tuple[int, Pull]] = []
        self.unreachable: list[tuple[Wish, int]] = []
        self.now = 0.0
        self.tried: list[str] = []
        self.hellos = {
            worker: Hello(1, "0", "3.11", f"w{worker}", "h", "there", "", 1, Resources(), [NOBODY])
            for worker in (5, 6)
        }
        self.collector = Collector(
            "here",
            "secret",
            "/nowhere",
            self.calls.put,
            lambda worker, pull: self.asked.append((worker, pull)),
            lambda worker: Place(worker, "there") if worker in self.hellos else None,
            Reach(30.0, 600.0, 100),
            lambda: self.now,
            lambda wish, raw: None,
            lambda wish, worker, reason: self.unreachable.append((wish, worker)),
        )

    def want(self, file: int, holder: int) -> None:
        self.collector.collect(Available(1, 0, file, 1000, None, [holder]), self.hellos)

    def lose(self, worker: int) -> None:
        del self.hellos[worker]
        self.collector.on_worker_parted(worker)

    def go_on(self) -> None:
        """A thread has something to say."""
        self.calls.get(timeout=60)()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.collector.close()


def test_a_holder_that_was_lost_while_its_link_was_tried_is_not_asked_over_its_connection(
    scene: Scene,
) -> None:
    scene.want(7, 5)
    scene.lose(5)
    scene.go_on()
    assert scene.unreachable == [(Wish(1, 0, 7, 1000), 5)]
    assert scene.asked == []


def test_a_link_that_failed_is_not_tried_for_the_next_result_but_looked_at_again_later(scene: Scene) -> None:
    scene.want(7, 5)
    scene.go_on()
    assert [pull.file for _, pull in scene.asked] == [7]
    scene.want(8, 5)
    assert [pull.file for _, pull in scene.asked] == [7, 8], "without a try"
    assert scene.calls.empty()
    scene.now = 31.0
    scene.want(9, 5)
    assert [pull.file for _, pull in scene.asked] == [7, 8, 9], "nobody waits for the probe"
    scene.go_on()
    assert scene.unreachable == []
