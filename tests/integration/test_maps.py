"""``map``, ``pair`` and ``tree_reduce`` on real workers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphvine as vine
from graphvine.manager.manager import Manager


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager(local_workers=2) as made:
        yield made


def find_max(nums: list[int]) -> int:
    if len(nums) < 2 or nums[0] >= nums[1]:
        return nums[0]
    return nums[1]


def test_what_the_manual_shows(manager: Manager) -> None:
    numbers = [1, 2, 3, 4]
    assert manager.map(lambda x: x * x, numbers) == [1, 4, 9, 16]
    products = [x * y for x in numbers for y in numbers]
    assert manager.pair(lambda x, y: x * y, numbers, numbers) == products
    assert manager.pair(lambda pair: pair[0] * pair[1], numbers, numbers, 3) == products
    assert manager.tree_reduce(lambda x, y: x * y, numbers) == 24
    assert manager.tree_reduce(lambda x, y: x * y, [*numbers, 5]) == 120
    assert manager.tree_reduce(find_max, [1, 10, 10000, 100, 1000]) == 10000
    assert manager.treeReduce(max, range(101), chunk_size=7) == 100
    assert manager.tree_reduce(lambda x, y: x + y, range(101), 5) == 5050


@pytest.mark.parametrize("chunk_size", [1, 7, 100, 1000])
def test_order_and_chunks(manager: Manager, chunk_size: int) -> None:
    assert manager.map(lambda x: x + 1, iter(range(100)), chunk_size) == list(range(1, 101))
    assert manager.tree_reduce("".join, list("abcdefghij"), chunk_size=max(2, chunk_size)) == "abcdefghij"
    assert manager.map(str, []) == []


def test_what_raises_stands_for_its_own_result_only(manager: Manager) -> None:
    results = manager.map(lambda x: 1 // x, [1, 0, 1], chunk_size=3)
    assert (results[0], results[2]) == (1, 1)
    assert isinstance(results[1], ZeroDivisionError)
    assert isinstance(results[1].__cause__, vine.RemoteTraceback)
    assert isinstance(manager.tree_reduce(lambda x, y: x // y, [1, 0, 1, 1]), ZeroDivisionError)


def test_what_kills_its_process_stands_for_the_results_of_its_chunk(manager: Manager) -> None:
    def die(x: int) -> int:
        if x == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    results = manager.map(die, range(6), chunk_size=2)
    assert results[:2] == [0, 1]
    assert results[4:] == [4, 5]
    assert [type(result) for result in results[2:4]] == [vine.TaskKilledError] * 2


def test_calls_run_at_the_same_time(manager: Manager, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def meet(mode: str) -> str:
        # Opening it waits for the other end: one after the other they would never end.
        with open(pipe, mode):
            return mode

    assert manager.map(meet, ["r", "w"]) == ["r", "w"]


def test_what_cannot_be_sent_back_stands_for_the_results_of_its_chunk(manager: Manager) -> None:
    def make(x: int) -> Any:
        return threading.Lock() if x == 2 else x

    results = manager.map(make, range(5))
    assert [*results[:2], *results[3:]] == [0, 1, 3, 4]
    assert isinstance(results[2], vine.ResultNotPicklableError)
    results = manager.map(make, range(6), chunk_size=2)
    assert [*results[:2], *results[4:]] == [0, 1, 4, 5]
    assert [type(result) for result in results[2:4]] == [vine.ResultNotPicklableError] * 2


def test_what_cannot_be_sent_is_raised(manager: Manager) -> None:
    lock = threading.Lock()
    with pytest.raises(vine.NotPicklableError):
        manager.map(lambda x: lock, [1])
    with pytest.raises(vine.NotPicklableError):
        manager.map(bool, [1, lock])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.map(3, [1]), TypeError, "3 cannot be called"),
        (lambda m: m.map(str, [1], 0), ValueError, "chunk_size=0: give 1 or more"),
        (lambda m: m.map(str, [1], "2"), TypeError, "chunk_size should be a whole number"),
        (lambda m: m.tree_reduce(max, [1], 1), ValueError, "chunk_size=1: give 2 or more"),
        (lambda m: m.tree_reduce(max, []), TypeError, "the sequence is empty"),
    ],
)
def test_wrong_arguments(manager: Manager, call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(manager)
