"""What a user is told of each kind of failure."""

from __future__ import annotations

import io
import pickle
import traceback

import pytest

from graphvine.manager.failure import exception_from, failed_exception
from graphvine.manager.instructions import Death, PlanFailed
from graphvine.manager.separate import told
from graphvine.protocol.errors import (
    NoWorkerError,
    RemoteTraceback,
    ResultNotPicklableError,
    StorageError,
    TaskError,
    TaskKilledError,
    UndecodableError,
)
from graphvine.protocol.outcomes import Failed

TEXT = "Traceback (most recent call last):\n  File 'x.py', line 3, in f\nValueError: no good\n"


def failed(kind: str, text: str, error: bytes = b"", tries: int = 1) -> PlanFailed:
    deaths = [Death(f"w{n}", n, kind, f"{text} #{n}") for n in range(tries)]
    return PlanFailed(7, 3, kind, text, error, deaths)  # type: ignore[arg-type]


def test_the_users_exception_comes_back_as_itself() -> None:
    error = exception_from(failed("raised", TEXT, pickle.dumps(ValueError("no good")), tries=2), ("f", 1))
    assert type(error) is ValueError
    assert error.args == ("no good",)
    assert isinstance(error.__cause__, RemoteTraceback)
    shown = "".join(traceback.format_exception(error))
    assert "line 3, in f" in shown
    assert "task ('f', 1) failed on worker w1, attempt 2" in shown
    assert error.__notes__ == ["task ('f', 1) failed on worker w1, attempt 2"]  # type: ignore[attr-defined]


def test_a_second_failure_does_not_add_notes_to_the_first() -> None:
    data = pickle.dumps(ValueError("x"))
    exception_from(failed("raised", TEXT, data), "a")
    assert len(exception_from(failed("raised", TEXT, data), "b").__notes__) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("data", [b"", b"rubbish", pickle.dumps("not an exception")])
def test_an_exception_that_cannot_be_carried_leaves_its_text(data: bytes) -> None:
    error = exception_from(failed("raised", TEXT, data), "f-1")
    assert type(error) is TaskError
    assert "ValueError: no good" in str(error)
    assert "line 3, in f" in str(error.__cause__)


class Frozen(Exception):
    """Refuses that anything of it is set."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def test_a_frozen_exception() -> None:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer)
    pickler.dispatch_table = {}  # other packages (tblib) change how every exception is pickled
    pickler.dump(Frozen("x"))
    error = exception_from(failed("raised", TEXT, buffer.getvalue()), "f-1")
    assert type(error) is Frozen
    assert "task 'f-1' failed on worker w0" in str(error.__cause__)


def test_killed_lists_each_cause() -> None:
    error = exception_from(failed("killed", "signal 9", tries=3), "f-1")
    assert type(error) is TaskKilledError
    assert "3 times" in str(error)
    for n in range(3):
        assert f"attempt {n + 1} on worker w{n}: signal 9 #{n}" in str(error)


def test_each_death_of_a_task_that_stands_alone_has_its_own_line() -> None:
    tries = [Death(f"w{n}", n, "killed", "signal 9; last lines:\nFatal") for n in range(2)]
    assert str(failed_exception(Failed("killed", told("signal 9", tries)), "f-1")).splitlines() == [
        "task 'f-1' killed the process that ran it:",
        "  attempt 1 on worker w0: signal 9; last lines:",
        "    Fatal",
        "  attempt 2 on worker w1: signal 9; last lines:",
        "    Fatal",
    ]


def test_killed_very_often_is_still_readable() -> None:
    text = str(exception_from(failed("killed", "signal 9", tries=500), "f-1"))
    assert "490 earlier" in text
    assert len(text.splitlines()) < 20


def test_a_module_that_is_missing_on_the_worker() -> None:
    data = pickle.dumps(ModuleNotFoundError("No module named 'nope'", name="nope"))
    error = exception_from(failed("undecodable", "ModuleNotFoundError: No module named 'nope'", data), "f-1")
    assert type(error) is UndecodableError
    assert "'nope'" in str(error)
    assert "install it" in str(error)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("undecodable", UndecodableError),
        ("unpicklable", ResultNotPicklableError),
        ("storage", StorageError),
        ("unrunnable", NoWorkerError),
        ("killed", TaskKilledError),
    ],
)
def test_every_kind_names_task_and_reason(kind: str, expected: type[Exception]) -> None:
    for tries in (0, 1):
        error = exception_from(failed(kind, "because of this", tries=tries), "f-1")
        assert type(error) is expected
        assert "'f-1'" in str(error)
        assert "because of this" in str(error)
        assert str(exception_from(failed(kind, "", tries=0), None))
