"""A plain function call on a worker, whose exception is a result like any other. Imports no dask."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from graphvine.protocol.failures import describe, pickle_error
from graphvine.protocol.outcomes import Failed


class Slot(msgspec.Struct, frozen=True):
    """Stands for the value of an input among the arguments of a call."""

    number: int


class Raised(msgspec.Struct):
    """What a call raised: the pickled exception (b"" when it cannot be carried), and how it came to it."""

    error: bytes
    text: str
    name: str
    host: str


def call(
    inputs: Sequence[Any],
    name: str,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    retries: int = 0,
) -> Any:
    """The result of a call, or ``Raised``: its own (after so many retries), or that of an input. One that
    failed in another way is the result, too."""
    for value in inputs:
        if isinstance(value, Raised | Failed):
            return value
    if inputs:
        args, kwargs = filled(args, inputs), filled(kwargs, inputs)
    while True:
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 -- the user's, and theirs to see; SystemExit, too
            if retries <= 0:
                return Raised(pickle_error(error), describe(error), name, platform.node())
        retries -= 1


def filled(value: Any, inputs: Sequence[Any]) -> Any:
    """``value`` with the inputs in place of their slots, at any depth."""
    kind = type(value)
    if kind is Slot:
        return inputs[value.number]
    if kind in (list, tuple, set, frozenset):
        return kind(filled(part, inputs) for part in value)
    if kind is dict:
        return {filled(key, inputs): filled(part, inputs) for key, part in value.items()}
    return value
