"""Which tasks wait before they can be part of a plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from graphvine.taskvine import holding as holding_module
from graphvine.taskvine.files import LocalFile, Temp, Url
from graphvine.taskvine.holding import Holding
from graphvine.taskvine.remote.sources import Validator
from graphvine.taskvine.task import Task


class Engine:
    """Nobody asks nodes in these tests."""

    def run(self, plan: Any, **_: Any) -> Any:
        raise AssertionError("a plan was run")


@pytest.fixture
def changed() -> threading.Event:
    return threading.Event()


@pytest.fixture
def holding(tmp_path, changed) -> Iterator[Holding]:
    with ThreadPoolExecutor(1) as hands:
        yield Holding(Engine(), threading.Condition(), hands, str(tmp_path), lambda tell: tell(), changed.set)


def tasks(count: int) -> list[Task]:
    made = [Task("true") for _ in range(count)]
    for number, task in enumerate(made, 1):
        task._id = number
    return made


def chain(temp: Temp, maker: Task, user: Task) -> None:
    maker.add_output(temp, "x")
    temp.producer = maker
    user.add_input(temp, "x")


def test_producers_come_first_whatever_the_order(holding):
    a, b, c = tasks(3)
    chain(Temp(None, "workflow"), b, a)
    chain(Temp(None, "workflow"), c, b)
    assert holding.sort_out([a, b, c], {}, set()) == ([c, b, a], [])


def test_a_temp_that_nobody_makes_holds_back(holding):
    a, b = tasks(2)
    temp = Temp(None, "workflow")
    a.add_input(temp, "x")
    assert holding.sort_out([a, b], {}, set()) == ([b], [a])
    assert holding.sort_out([a], {}, {a.id}) == ([a], [])
    temp.producer = b
    assert holding.sort_out([a], {}, set()) == ([], [a])
    assert holding.sort_out([a], {b.id: b}, set()) == ([a], [])
    temp.producer, temp.number = None, 7
    assert holding.sort_out([a], {}, set()) == ([a], [])


def test_it_is_said_once_that_a_temp_is_made_by_nobody(holding, monkeypatch, caplog):
    (a,) = tasks(1)
    a.add_input(Temp(None, "workflow"), "x")
    holding.sort_out([a], {}, set())
    assert 0 < holding.next_time_s([a]) <= holding_module.PATIENCE_S
    assert caplog.text == ""
    monkeypatch.setattr(holding_module, "PATIENCE_S", 0.0)
    holding.sort_out([a], {}, set())
    holding.sort_out([a], {}, set())
    assert caplog.text.count("waits for a temp that no submitted task makes") == 1
    assert holding.next_time_s([a]) is None


def test_nobody_is_woken_again_and_again_for_what_takes_long(holding, monkeypatch):
    a, b = tasks(2)
    chain(Temp(None, "workflow"), b, a)
    monkeypatch.setattr(holding_module, "PATIENCE_S", 0.0)
    holding.sort_out([a], {}, set())
    assert holding.next_time_s([a]) is None


def test_a_time_that_has_not_come(holding):
    (a,) = tasks(1)
    a.set_time_start((time.time() + 1000) * 1e6)
    assert holding.sort_out([a], {}, set()) == ([], [a])
    assert 990 < holding.next_time_s([a]) <= 1000
    a.set_time_start(1)
    assert holding.sort_out([a], {}, set()) == ([a], [])


def test_urls_are_looked_up_by_others(holding, changed, monkeypatch):
    (a,) = tasks(1)
    url = Url(None, "http://host/f", "workflow")
    url.unsure, url.number, url.validator = True, 5, Validator("old")
    a.add_input(url, "x")
    monkeypatch.setattr(holding_module, "look_up", lambda _: Validator("new"))
    assert holding.sort_out([a], {}, set()) == ([], [a])
    assert changed.wait(60)
    assert (url.number, url.validator, url.unsure) == (None, Validator("new"), False)
    assert holding.sort_out([a], {}, set()) == ([a], [])


def test_local_files_are_read_by_others(holding, changed, tmp_path):
    (a,) = tasks(1)
    (tmp_path / "x").write_text("small")
    file = LocalFile(None, str(tmp_path / "x"), "forever")
    a.add_input(file, "x")
    assert holding.sort_out([a], {}, set()) == ([], [a])
    assert changed.wait(60)
    assert file.content.startswith("content-")
    assert holding.sort_out([a], {}, set()) == ([a], [])
