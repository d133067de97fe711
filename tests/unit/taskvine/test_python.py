"""Python tasks and calls as data: what they ask for, what is made of an outcome."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from graphvine.manager.engine import Outcome
from graphvine.taskvine.libraries import FunctionCall, LibraryTask, install, make
from graphvine.taskvine.python import PythonTask, PythonTaskNoResult, mark
from graphvine.taskvine.remote import calls
from graphvine.taskvine.results import Summary

GOOD = Outcome(0, 1, True, "", "", b"", 5, pickle.dumps(7), "w", "h", 100.0, 0.5, 10.0, 1)


def changed(**fields: object) -> Outcome:
    return msgspec.structs.replace(GOOD, **fields)


def read(task: PythonTask, outcome: Outcome) -> PythonTask:
    task._report = task._read(outcome)
    return task


def test_a_value_and_what_was_measured():
    task = read(PythonTask(len, "x"), GOOD)
    assert (task.output, task.result, task.exit_code, task.successful()) == (7, "success", 0, True)
    measured = task.resources_measured
    assert measured is not None
    assert (measured.wall_time, measured.start, measured.memory) == (500_000, 100_000_000, 10.0)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("killed", "max retries"),
        ("timeout", "max wall time"),
        ("cancelled", "cancelled"),
        ("library", "missing library"),
        ("environment", "input missing"),
        ("missing", "input missing"),
        ("unpicklable", "output missing"),
        ("unrunnable", "forsaken"),
        ("storage", "sandbox exhaustion"),
    ],
)
def test_what_fails_otherwise_is_an_exception_without_a_result(kind, word):
    task = read(PythonTask(len, "x"), changed(ok=False, kind=kind, text="the reason", value=None))
    assert (task.result, task.exit_code, task.completed()) == (word, -1, False)
    assert isinstance(task.output, BaseException)
    assert isinstance(task.output, PythonTaskNoResult)
    assert "the reason" in task.reason


def test_an_exception_that_cannot_be_pickled_is_told_by_its_text():
    task = read(PythonTask(len, "x"), changed(ok=False, kind="raised", text="Odd: it", value=None))
    assert isinstance(task.output, PythonTaskNoResult)
    assert "Odd: it" in str(task.output)
    assert (task.result, task.exit_code) == ("success", 1)


def test_a_value_that_cannot_be_unpickled_here():
    task = read(PythonTask(len, "x"), changed(value=b"no pickle"))
    assert (task.result, task.successful()) == ("output missing", False)
    assert isinstance(task.output, PythonTaskNoResult)


def test_only_marked_exceptions_have_no_result():
    error = ValueError("x")
    assert not isinstance(error, PythonTaskNoResult)
    assert isinstance(mark(error), PythonTaskNoResult)
    assert type(error) is ValueError


def test_it_is_not_run_again_for_what_it_raises_but_its_time_is_limited():
    task = PythonTask(len, "x")
    task.set_retries(5)
    task.set_time_max(3)
    options = task.options(Summary())
    assert (options.retries, options.max_s, options.request.cores) == (0, 3.0, 0.0)


def test_a_call_has_one_core_or_its_share_of_the_library():
    call = FunctionCall("lib", "len", "x")
    library = make("lib", [len], None, None, None)
    call._library = install(library)
    assert call.options(Summary()).request.cores == 1
    library.set_cores(8)
    library.set_memory(100)
    library.set_function_slots(4)
    call._library = install(library)
    request = call.options(Summary()).request
    assert (request.cores, request.memory_mb) == (2, 25)
    call.set_cores(3)
    assert call.options(Summary()).request.cores == 3


def test_calls_of_one_library_are_a_group_and_go_without_their_function():
    library = install(make("lib", [len], None, None, None))
    entries = []
    for mode in ("direct", "fork"):
        call = FunctionCall("lib", "len", "x")
        call.set_exec_method(mode)
        call._library = library
        call._pickled = "len", b"arguments"
        assert call._group() == ("library", library.number)
        entries.append(call._entry(b""))
    assert entries == [
        (calls.run_named, ("len", b"arguments", b""), None),
        (calls.run_named_forked, ("len", b"arguments", b""), None),
    ]


def test_wrong_libraries_are_refused():
    with pytest.raises(TypeError, match="cannot be called"):
        make("lib", [3], None, None, None)
    with pytest.raises(ValueError, match="two functions are named 'len'"):
        make("lib", [len, type("len", (), {})], None, None, None)
    with pytest.raises(TypeError, match=r"\[function, args, kwargs\]"):
        make("lib", [len], [1, 2], None, None)
    with pytest.raises(TypeError, match="cannot be hoisted"):
        make("lib", [len], None, [3], None)
    with pytest.raises(ValueError, match="exec_mode='thread'"):
        LibraryTask.set_function_exec_mode(make("lib", [len], None, None, None), "thread")
    with pytest.raises(TypeError, match="cannot be called"):
        PythonTask(3)
