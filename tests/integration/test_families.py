"""Tasks that lead back to one run in one packet, and hand each other their values: answers stay the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import graphvine as gv

CHUNKS = 60


def read(chunk: int) -> list[int]:
    return list(range(chunk, chunk + 20_000))


def even(values: list[int]) -> list[int]:
    return [value for value in values if value % 2 == 0]


def count(values: list[int], others: list[int]) -> int:
    return len(values) + sum(others)


def count_or_die(values: list[int], others: list[int], once: str) -> int:
    """Kills its executor, the first time."""
    if not Path(once).exists():
        Path(once).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return count(values, others)


def count_or_raise(values: list[int], others: list[int]) -> int:
    raise ValueError("this chunk is no good")


def graph(special: tuple[Any, ...] | None = None) -> tuple[dict[Any, Any], int]:
    """Way by way, as analyses do it; ``special`` takes the place of one chunk's last task."""
    dsk: dict[Any, Any] = {("read", chunk): (read, chunk) for chunk in range(CHUNKS)}
    dsk |= {("even", chunk): (even, ("read", chunk)) for chunk in range(CHUNKS)}
    dsk |= {("count", chunk): (count, ("read", chunk), ("even", chunk)) for chunk in range(CHUNKS)}
    if special is not None:
        dsk["count", 40] = (special[0], ("read", 40), ("even", 40), *special[1:])
    dsk["sum"] = (sum, [("count", chunk) for chunk in range(CHUNKS)])
    return dsk, sum(count(read(chunk), even(read(chunk))) for chunk in range(CHUNKS))


def test_the_answer_is_right_time_after_time(manager: gv.Manager) -> None:
    dsk, expected = graph()
    assert [manager.get(dsk, "sum") for _ in range(3)] == [expected] * 3


def test_an_executor_dies_within_a_family(manager: gv.Manager, tmp_path: Path) -> None:
    dsk, expected = graph((count_or_die, str(tmp_path / "once")))
    assert manager.get(graph()[0], "sum") == expected
    assert manager.get(dsk, "sum") == expected


def test_a_task_raises_within_a_family(manager: gv.Manager) -> None:
    manager.get(graph()[0], "sum")
    with pytest.raises(ValueError, match="this chunk is no good"):
        manager.get(graph((count_or_raise,))[0], "sum")


def add(*numbers: list[int]) -> list[int]:
    return [sum(column) for column in zip(*numbers, strict=True)]


def add_or_raise(*numbers: list[int]) -> list[int]:
    raise ValueError("these do not add up")


def tree(function: Any = add) -> tuple[dict[Any, Any], list[int]]:
    """What is read of each chunk is used by one task only; ``function`` takes the place of one of these."""
    dsk: dict[Any, Any] = {("read", chunk): (read, chunk) for chunk in range(CHUNKS)}
    sums = range(CHUNKS // 4)
    dsk |= {("add", i): (add, *(("read", 4 * i + k) for k in range(4))) for i in sums}
    dsk["add", 7] = (function, *dsk["add", 7][1:])
    dsk["sum"] = (add, *(("add", i) for i in sums))
    return dsk, add(*(read(chunk) for chunk in range(CHUNKS)))


def test_joins_give_the_right_answer_time_after_time(manager: gv.Manager) -> None:
    dsk, expected = tree()
    for _ in range(3):
        assert manager.get(dsk, "sum") == expected


def test_a_join_raises(manager: gv.Manager) -> None:
    dsk, expected = tree()
    assert manager.get(dsk, "sum") == expected
    with pytest.raises(ValueError, match="these do not add up"):
        manager.get(tree(add_or_raise)[0], "sum")
    assert manager.get(dsk, "sum") == expected
