"""Who is at the manager's door: numbers that are no descriptors, so nothing can be asked of them."""

from __future__ import annotations

import pytest

from graphvine.manager.strangers import Strangers
from graphvine.protocol.crowds import Refusals

FIRST = 10**6


class Door:
    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.strangers = Strangers(1, Refusals(self.lines.append, lambda: self.now), lambda: self.now)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr("graphvine.manager.strangers._MOST", 20)
    return Door()


def test_a_crowd_of_workers_that_came_while_nobody_looked_is_let_in(door: Door) -> None:
    for number in range(FIRST, FIRST + 100):
        door.strangers.on_accepted(number, heard=number % 2 == 0)
    # What they have said is read before it is decided who has to go.
    for number in range(FIRST, FIRST + 100):
        door.strangers.on_heard(number)
    door.strangers.settle()
    assert len(door.strangers) == 0
    assert door.lines == []


def test_of_those_who_say_nothing_only_so_many_stay(door: Door) -> None:
    for number in range(FIRST, FIRST + 100):
        door.strangers.on_accepted(number, heard=False)
    door.strangers.settle()
    assert len(door.strangers) == 20
    assert len(door.lines) == 1
    assert "too many came at once" in door.lines[0]


def test_one_that_shows_another_key_is_refused_once(door: Door) -> None:
    door.strangers.on_accepted(FIRST, heard=False)
    door.strangers.on_refused()
    door.strangers.on_ended(FIRST, heard=False)
    assert door.lines == []
    door.strangers.on_accepted(FIRST, heard=False)
    door.strangers.on_ended(FIRST, heard=False)
    assert len(door.lines) == 1


def test_it_is_looked_at_while_somebody_is_there_and_may_still_send(door: Door) -> None:
    assert door.strangers.deadline() is None
    door.strangers.on_accepted(FIRST, heard=False)
    door.strangers.settle()
    looks = 0
    while (due := door.strangers.deadline()) is not None:
        door.now = due
        door.strangers.on_time()
        looks += 1
    assert 100 < looks < 120
