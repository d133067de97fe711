"""Which task is where, and which is returned next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphvine.taskvine.ledger import Ledger
from graphvine.taskvine.results import Report
from graphvine.taskvine.task import Task


def end(ledger: Ledger[Task], task: Task, **report) -> None:
    task._report = Report(**report)
    ledger.end(task)


def test_tasks_are_returned_in_the_order_in_which_they_end():
    ledger: Ledger[Task] = Ledger()
    a, b, c = (Task(name, tag=name) for name in "abc")
    assert [ledger.submit(task) for task in (a, b, c)] == [1, 2, 3]
    assert ledger.take() is None
    end(ledger, c)
    end(ledger, a)
    assert ledger.take(tag="a") is a
    assert ledger.take(task_id=2) is None
    assert ledger.take() is c
    assert not ledger.empty()
    assert (ledger.can_come(tag="a"), ledger.can_come(tag="b"), ledger.can_come(task_id=1)) == (
        False,
        True,
        False,
    )


def test_a_task_can_be_submitted_again_once_it_was_returned():
    ledger: Ledger[Task] = Ledger()
    task = Task("true")
    ledger.submit(task)
    with pytest.raises(ValueError, match="not over"):
        ledger.submit(task)
    end(ledger, task)
    with pytest.raises(ValueError, match="not over"):
        ledger.submit(task)
    assert ledger.take() is task
    assert ledger.submit(task) == 2
    assert task.result == "unknown"


def test_an_end_counts_once():
    ledger: Ledger[Task] = Ledger()
    task = Task("true")
    ledger.submit(task)
    task._report = Report()
    assert ledger.end(task)
    assert not ledger.end(task)
    assert ledger.totals["default"].done == 1


def test_totals():
    ledger: Ledger[Task] = Ledger()
    for result in ("success", "cancelled", "max retries", "success"):
        task = Task("true", category="c")
        ledger.submit(task)
        ledger.begin(task)
        end(ledger, task, result=result, exit_code=int(result != "success"))
    totals = ledger.totals["c"]
    assert (totals.submitted, totals.dispatched, totals.done) == (4, 4, 4)
    assert (totals.failed, totals.cancelled, totals.exhausted) == (2, 1, 1)


@given(st.lists(st.sampled_from(["submit", "begin", "end", "take"]), max_size=60))
def test_counts_are_those_of_the_tasks(steps):
    ledger: Ledger[Task] = Ledger()
    tasks: list[Task] = []
    for step in steps:
        if step == "submit":
            tasks.append(Task("true"))
            ledger.submit(tasks[-1])
        elif step == "begin":
            for task in [task for task in tasks if task.state == "ready"][:1]:
                ledger.begin(task)
        elif step == "end":
            for task in [task for task in tasks if task.state in ("ready", "running")][:1]:
                end(ledger, task)
        else:
            ledger.take()
        for state in ("ready", "running", "retrieved"):
            assert ledger.count(state) == sum(task.state == state for task in tasks)
        assert ledger.empty() == all(task.state == "done" for task in tasks)
