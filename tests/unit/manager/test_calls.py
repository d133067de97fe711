"""Calls that other threads have made in a loop's."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

import pytest

from graphvine.manager.calls import Calls


@pytest.fixture
def calls() -> Iterator[Calls]:
    made = Calls()
    yield made
    made.close()


def is_readable(calls: Calls) -> bool:
    return bool(select.select([calls.descriptor], [], [], 0)[0])


def test_what_other_threads_ask_for_is_done_in_their_order(calls: Calls) -> None:
    done: list[int] = []

    def ask() -> None:
        for number in range(5):
            calls.call(lambda number=number: done.append(number))  # type: ignore[misc]

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert calls
    assert is_readable(calls)
    assert done == []
    calls.make()
    assert done == list(range(5))
    assert not calls
    assert not is_readable(calls)


def test_what_a_call_asks_for_is_for_the_next_time(calls: Calls) -> None:
    done: list[str] = []
    calls.call(lambda: calls.call(lambda: done.append("then")))
    calls.make()
    assert done == []
    assert is_readable(calls)
    calls.make()
    assert done == ["then"]


def test_after_closing_nothing_is_said_to_whoever_has_the_descriptor_then() -> None:
    calls = Calls()
    closed = calls.descriptor
    calls.close()
    reader, writer = os.pipe()
    try:
        assert closed in (reader, writer), "the number is somebody else's"
        calls.call(lambda: None)
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)
