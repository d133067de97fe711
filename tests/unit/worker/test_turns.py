"""Turns of running tasks, as the tasks have them."""

from __future__ import annotations

import contextlib
import threading

import pytest

from graphvine.worker import turns


def test_a_task_waits_for_its_turn_and_says_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(turns, "_ask", lambda limit, reply: asked.append((limit, reply)))
    within, over = threading.Event(), threading.Event()

    def task() -> None:
        with contextlib.suppress(ZeroDivisionError), turns.turn("server"):
            within.set()
            raise ZeroDivisionError
        over.set()

    thread = threading.Thread(target=task)
    thread.start()
    while not asked:
        thread.join(0.001)
    turns.answer("somebody else's")
    assert not within.is_set()
    turns.answer(asked[0][1])
    thread.join(20)
    assert within.is_set()
    assert over.is_set()
    assert [limit for limit, _ in asked] == ["server", "server"]
    assert asked[1][1] == ""
    turns.answer(asked[0][1])  # it is gone


def test_outside_of_a_task_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_ask", None)
    with pytest.raises(RuntimeError, match="only a task that runs on a worker"), turns.turn("server"):
        pass
