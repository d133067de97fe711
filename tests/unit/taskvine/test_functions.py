"""Functions and arguments as bytes: the same as long as they are the same."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from graphvine.protocol.errors import NotPicklableError
from graphvine.taskvine.functions import Functions, dump_arguments


def as_main(source: str, **names: Any) -> tuple[FunctionType, dict[str, Any]]:
    """A function ``f`` of a script, and the script's globals."""
    space: dict[str, Any] = {"__name__": "__main__", **names}
    exec(source, space)
    return space["f"], space


def loaded(data: bytes) -> Callable[..., Any]:
    return pickle.loads(data)  # type: ignore[no-any-return]


def test_what_can_be_imported_goes_by_its_name():
    data = Functions().dumps(os.getenv)
    assert len(data) < 100
    assert loaded(data) is os.getenv


def test_a_function_is_pickled_once_while_it_is_the_same():
    functions = Functions()
    f, _ = as_main("LIMIT = 3\ndef g(x): return x\ndef f(x): return g(x) + LIMIT")
    assert functions.dumps(f) is functions.dumps(f)
    assert loaded(functions.dumps(f))(1) == 4


def test_a_global_that_is_set_anew_is_seen():
    functions = Functions()
    f, space = as_main("LIMIT = 3\ndef f(x): return x + LIMIT")
    before = functions.dumps(f)
    space["LIMIT"] = 4
    assert loaded(functions.dumps(f))(1) == 5
    assert loaded(before)(1) == 4


def test_a_helper_that_is_defined_anew_or_changes_is_seen():
    functions = Functions()
    f, space = as_main("STEP = 1\ndef g(x): return x + STEP\ndef f(x): return g(x)")
    results = [loaded(functions.dumps(f))(0)]
    space["STEP"] = 2
    results.append(loaded(functions.dumps(f))(0))
    exec("def g(x): return x + 3", space)
    results.append(loaded(functions.dumps(f))(0))
    assert results == [1, 2, 3]


def test_what_changes_in_place_is_seen_in_globals_closures_and_inner_functions():
    functions = Functions()
    f, space = as_main("held = [1]\ndef f(): return (lambda: sum(held))()")
    functions.dumps(f)
    space["held"].append(2)
    assert loaded(functions.dumps(f))() == 3
    values = {"a": 1}

    def closed() -> int:
        return values["a"]

    closed.__module__ = "__main__"
    functions.dumps(closed)
    values["a"] = 2
    assert loaded(functions.dumps(closed))() == 2


def test_a_default_and_a_number_of_another_type_are_seen():
    functions = Functions()
    f, space = as_main("N = 1\ndef f(x=1): return x, N")
    functions.dumps(f)
    f.__defaults__ = (2,)
    space["N"] = 1.0
    x, n = loaded(functions.dumps(f))()
    assert (x, n, type(n)) == (2, 1.0, float)


def test_functions_that_call_themselves_and_each_other():
    functions = Functions()
    f, _ = as_main("def f(n): return n * f(n - 1) if n else g(0)\ndef g(n): return 1 if n == 0 else f(n)")
    assert loaded(functions.dumps(f))(5) == 120
    assert loaded(functions.dumps(f))(4) == 24


def test_the_modules_of_functions_are_imported_ahead():
    functions = Functions()
    f, _ = as_main("import msgspec\ndef f(): return msgspec.json")
    functions.dumps(f)
    assert "msgspec" in functions.code().imports


def test_what_cannot_be_pickled_is_named():
    lock = threading.Lock()
    with pytest.raises(NotPicklableError, match=r"the function .*holds"):
        Functions().dumps(_holding(lock))
    with pytest.raises(NotPicklableError, match="the arguments of f cannot"):
        dump_arguments("f", (lock,), {})


def _holding(lock: Any) -> Callable[[], Any]:
    def holds() -> Any:
        return lock

    return holds


def test_arguments_are_as_they_are_now():
    values = [1]
    data = dump_arguments("f", (values,), {"key": values})
    values.append(2)
    (first,), named = pickle.loads(data)
    assert (first, named) == ([1], {"key": [1]})
    assert named["key"] is first


def test_lambdas_are_arguments_too():
    (function,), _ = pickle.loads(dump_arguments("f", (lambda x: x + 1,), {}))
    assert function(1) == 2
