"""What stands in a payload where a task is more than one flat call. Runs on workers; imports no dask.

A task that nests (calls within calls, lists of results) is compiled to *steps*, a straight line of flat
calls: a step is ``(function, arguments, fills)`` where each fill is ``(position, register)``. Register ``r >=
0`` is input ``r`` of the task, ``-1 - s`` is the result of step ``s``. The last step's result is the task's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphvine.protocol.payload import Entry, run

Step = tuple[Callable[..., Any], tuple[Any, ...], tuple[tuple[int, int], ...]]


def run_steps(inputs: Sequence[Any], steps: Sequence[Step]) -> Any:
    """Run a straight line of calls; the result of the last one."""
    results: list[Any] = []
    for function, arguments, fills in steps:
        if fills:
            filled = list(arguments)
            for position, register in fills:
                filled[position] = inputs[register] if register >= 0 else results[-1 - register]
            results.append(function(*filled))
        else:
            results.append(function(*arguments))
    return results[-1]


def run_steps_with(inputs: Sequence[Any], steps: Sequence[Step], values: Sequence[Any]) -> Any:
    """Run a straight line of calls that tasks have in common which differ in ``values``: the registers after
    the inputs."""
    return run_steps((*inputs, *values), steps)


def call_on_list(inputs: Sequence[Any], function: Callable[..., Any], *more: Any) -> Any:
    """``function(list of all inputs, *more)``: the commonest task that nests."""
    return function(list(inputs), *more)


def run_rearranged(
    inputs: Sequence[Any], entry: Entry, template: Sequence[Any], picks: Sequence[tuple[int, int]]
) -> Any:
    """Run ``entry`` on ``template`` with input ``k`` at ``position``, for each (position, k) of ``picks``:
    for entries some of whose inputs turned out to be literals, or the same task twice."""
    filled = list(template)
    for position, slot in picks:
        filled[position] = inputs[slot]
    return run(entry, filled)


def call_with_keywords(function: Callable[..., Any], names: tuple[str, ...], *arguments: Any) -> Any:
    """``function`` with the last ``len(names)`` arguments by keyword."""
    count = len(arguments) - len(names)
    return function(*arguments[:count], **dict(zip(names, arguments[count:], strict=True)))


def identity(value: Any) -> Any:
    return value


def as_list(*values: Any) -> list[Any]:
    return list(values)


def as_tuple(*values: Any) -> tuple[Any, ...]:
    return values


def as_set(*values: Any) -> set[Any]:
    return set(values)


def as_dict(*flat: Any) -> dict[Any, Any]:
    """A dict of ``key, value, key, value, ...``."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def as_dict_of_pairs(*pairs: Any) -> dict[Any, Any]:
    return dict(pairs)


def as_type(constructor: Callable[..., Any], *values: Any) -> Any:
    """``constructor`` of one sequence."""
    return constructor(values)


def call_node(node: Callable[[dict[Any, Any]], Any], keys: tuple[Any, ...], *values: Any) -> Any:
    """Call a dask node of a kind we do not know, as dask would."""
    return node(dict(zip(keys, values, strict=True)))
