"""A function over some of the items of a sequence: what one task of a map or of a reduction does."""

from __future__ import annotations

import functools
import inspect
import platform
from collections.abc import Callable, Sequence
from typing import Any

import msgspec


class Problem(msgspec.Struct):
    """Stands for the result of an item whose call raised: the pickled exception, and how it came to it."""

    error: bytes
    text: str
    host: str


def each(function: Callable[..., Any], items: Sequence[Any]) -> list[Any]:
    """Its results, in order, each by itself a ``Problem`` where it raised."""
    return [_caught(function, item) for item in items]


def each_pair(function: Callable[..., Any], pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    """... of pairs: given as one argument, or as two where it takes two."""
    if takes_two(function):
        return [_caught(function, *pair) for pair in pairs]
    return each(function, pairs)


def all_of_arguments(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Its results for lists of arguments. Raises what it raises."""
    return [function(*one) for one in arguments]


def all_pairs(function: Callable[..., Any], pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    """``each_pair``, but raises what the function raises."""
    if takes_two(function):
        return [function(*pair) for pair in pairs]
    return [function(pair) for pair in pairs]


def reduced(function: Callable[..., Any], items: Sequence[Any]) -> Any:
    """What it makes of some items: of all of them as a list; where it takes two arguments, of the first two,
    then of that and the third, and so on. A single item is left as it is."""
    if len(items) == 1:
        return items[0]
    if takes_two(function):
        return functools.reduce(function, items)
    return function(list(items))


def reduced_in_groups(function: Callable[..., Any], items: Sequence[Any], arity: int) -> Any:
    """``reduced`` of groups of so many, and of their results, until one is left."""
    left = list(items)
    while len(left) > 1:
        left = [reduced(function, left[i : i + arity]) for i in range(0, len(left), arity)]
    return left[0]


def takes_two(function: Callable[..., Any]) -> bool:
    """Whether it must be given two arguments, and not one."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False
    return not _binds(signature, 1) and _binds(signature, 2)


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _caught(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001 -- the user's, and theirs to see
        from graphvine.protocol.failures import describe, pickle_error

        return Problem(pickle_error(error), describe(error), platform.node())
