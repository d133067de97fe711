"""What a set-up made, as the functions of a library see it."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator

import pytest

from graphvine.protocol.libraries import Setup, dump_setup
from graphvine.worker import library


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    """Nothing of one test is there in the next."""
    yield
    library._variables.clear()
    library._hoisted.clear()
    library._functions.clear()


def test_what_the_set_up_returns_can_be_loaded() -> None:
    library.start(dump_setup(Setup(lambda x, *, y: {"sum": x + y, "x": x}, (1,), {"y": 2})))
    assert library.load_variable("sum") == 3
    with pytest.raises(KeyError, match="no variable 'z'; there are: sum, x"):
        library.load_variable("z")


def test_a_set_up_may_return_nothing_but_not_something_else() -> None:
    library.start(dump_setup(Setup(lambda: None)))
    with pytest.raises(TypeError, match="should return a dict of variables, not int"):
        library.start(dump_setup(Setup(lambda: 3)))


def test_what_the_set_up_raises_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        library.start(dump_setup(Setup(lambda: {"x": 1 / 0})))


def test_hoisted_names_are_globals_of_functions_unless_they_have_their_own() -> None:
    uses = pickle.loads(dump_setup(Setup(eval("lambda x: (gvt_math.sqrt(x), helper(x))", {"helper": abs}))))
    library.start(dump_setup(Setup(hoisted={"gvt_math": math, "helper": None})))
    assert library.call(uses.function, (9,), {}) == (3.0, 9)


def test_functions_are_called_by_name() -> None:
    library.start(dump_setup(Setup(functions={"add": lambda x, y: x + y})))
    assert library.call_named("add", (1,), {"y": 2}) == 3
    with pytest.raises(LookupError, match="no function 'sub'; it has: add"):
        library.call_named("sub", (), {})


def test_a_set_up_may_be_given_more_before_its_arguments() -> None:
    setup = Setup(lambda inputs, x: {"all": [*inputs, x]}, (3,), takes_inputs=True)
    library.start(dump_setup(setup), [1, 2])
    assert library.load_variable("all") == [1, 2, 3]
