"""What a library's set-up made, as the library's functions see it, and how they are called.

A library is a context with a set-up (see ``protocol.libraries``): its zygote runs the set-up once, and every
executor forked from it has what the set-up made, without a copy. All of it is read here:

- ``load_variable(name)``: an entry of the dict that the set-up function returned;
- names that were hoisted are globals of every function that is called;
- functions that the library holds are called by name (``call_named``), so that a call carries only arguments.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from graphvine.protocol.libraries import Setup
from graphvine.protocol.payload import in_child

_variables: dict[str, Any] = {}
_hoisted: dict[str, Any] = {}
_functions: dict[str, Callable[..., Any]] = {}


def start(data: bytes, inputs: Sequence[Any] = ()) -> None:
    """Run a set-up, given the values of its ``inputs``. Raises whatever it raises; TypeError when it returns
    something that is no mapping."""
    setup: Setup = pickle.loads(data)
    _hoisted.update(setup.hoisted)
    _functions.update(setup.functions)
    for function in (setup.function, *setup.functions.values()):
        lend_hoisted(function)
    given = [inputs] if setup.takes_inputs else []
    made = setup.function(*given, *setup.args, **setup.kwargs) if setup.function is not None else None
    if made is None:
        return
    if not isinstance(made, Mapping):
        raise TypeError(
            f"the set-up function of a library should return a dict of variables, not {type(made).__name__}"
        )
    _variables.update(made)


def load_variable(name: str) -> Any:
    """What the set-up function of this library returned under ``name``. Raises KeyError with what there
    is."""
    try:
        return _variables[name]
    except KeyError:
        known = ", ".join(sorted(map(str, _variables))) or "none"
        raise KeyError(f"the library's set-up returned no variable {name!r}; there are: {known}") from None


def lend_hoisted(function: Any) -> None:
    """Let a function see the hoisted names as globals, where it has none of its own of that name."""
    if not _hoisted:
        return
    function = getattr(function, "__wrapped__", function)
    if isinstance(function, FunctionType):
        for name, value in _hoisted.items():
            function.__globals__.setdefault(name, value)


def call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function in this executor."""
    lend_hoisted(function)
    return function(*args, **kwargs)


def named(name: str) -> Callable[..., Any]:
    """A function that the library holds. Raises LookupError when it has none of that name."""
    function = _functions.get(name)
    if function is None:
        known = ", ".join(sorted(_functions)) or "none"
        raise LookupError(f"the library has no function {name!r}; it has: {known}")
    return function


def call_named(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a function that the library holds. Raises LookupError when it has none of that name."""
    return named(name)(*args, **kwargs)


def call_forked(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """``call`` in a process of its own, forked from the executor."""
    return call(function, args, kwargs)


def call_named_forked(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """``call_named`` in a process of its own, forked from the executor."""
    return call_named(name, args, kwargs)


for _function in (call_forked, call_named_forked):
    in_child(_function)
