from __future__ import annotations

import re

from graphvine.protocol.crowds import Crowd, Refusals


def test_those_who_stand_longest_come_first_and_go_when_they_are_let_in() -> None:
    crowd: Crowd[int] = Crowd(4)
    assert [crowd.add(key, "here") for key in (1, 2, 3)] == [None] * 3
    assert crowd.remove(2) == "here"
    assert crowd.remove(2) is None
    assert list(crowd) == [1, 3]
    assert 3 in crowd
    assert 2 not in crowd


def test_a_host_that_sends_many_is_in_its_own_way_only() -> None:
    crowd: Crowd[str] = Crowd(10)
    crowd.add("honest", "quiet")
    turned_away = [crowd.add(f"flood {number}", "loud") for number in range(1000)]
    assert len(crowd) == 10
    assert "honest" in crowd
    assert turned_away[:9] == [None] * 9
    assert turned_away[9:] == [f"flood {number}" for number in range(991)]
    # A second honest one comes while all places are taken.
    assert crowd.add("late", "quiet") == "flood 991"
    assert "late" in crowd


class Listener:
    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.refusals = Refusals(self.lines.append, lambda: self.now)


def test_each_host_is_named_once_in_a_while() -> None:
    said = Listener()
    for _ in range(100):
        said.refusals.note("a", "a did something")
    said.refusals.note("b", "b did something")
    assert said.lines == ["a did something", "b did something (99 more refusals were not logged)"]
    said.now = 61.0
    said.refusals.note("a", "a again")
    assert said.lines[2:] == ["a again"]


def test_however_many_hosts_there_are_the_log_stays_short() -> None:
    said = Listener()
    for second in range(600):
        said.now = float(second)
        for number in range(1000):
            said.refusals.note(f"host {second}-{number}", "refused")
    said.now = 700.0
    said.refusals.note("the last", "refused")
    assert 100 < len(said.lines) <= 220
    # None of the others is forgotten.
    told = sum(int(found[1]) for line in said.lines if (found := re.search(r"(\d+) more", line)))
    assert len(said.lines) + told == 600_001


def test_who_comes_again_from_elsewhere_stands_there_once() -> None:
    crowd: Crowd[int] = Crowd(2)
    crowd.add(1, "a")
    crowd.add(1, "b")
    assert len(crowd) == 1
    assert crowd.remove(1) == "b"
    assert crowd.remove(1) is None
    crowd.add(2, "a")
    assert crowd.add(3, "a") is None
    assert crowd.add(4, "a") == 2
