"""Bringing results here when holders come and go."""

from __future__ import annotations

import queue
from collections.abc import Callable

from graphvine.manager.collect import Collector, Wish
from graphvine.manager.instructions import Available
from graphvine.protocol.messages import Address, Hello, Resources, ToWorker


def test_a_holder_that_was_lost_while_its_link_was_tried_is_not_asked_over_its_connection() -> None:
    calls: queue.Queue[Callable[[], None]] = queue.Queue()
    said: list[tuple[int, list[ToWorker]]] = []
    unreachable: list[tuple[Wish, int]] = []
    collector = Collector(
        "here",
        "secret",
        "/nowhere",
        calls.put,
        lambda worker, messages: said.append((worker, messages)),
        lambda wish, raw: None,
        lambda wish, worker, reason: unreachable.append((wish, worker)),
    )
    nobody = Address("127.0.0.1", 1)
    hello = Hello(1, "0", "3.11", "w", "h", "there", "", 1, Resources(), [nobody])
    hellos = {5: hello}
    collector.collect(Available(1, 0, 7, 1000, None, [5]), hellos)
    del hellos[5]
    collector.on_worker_parted(5)
    calls.get(timeout=60)()
    assert unreachable == [(Wish(1, 0, 7, 1000), 5)]
    assert said == []
    collector.close()
