"""What a blob holds, and how an executor runs one entry of it.

A blob unpickles to a list of entries. An entry is ``(function, arguments, fills)``:

- ``fills`` is a tuple: the value of input ``k`` takes the place of ``arguments[fills[k]]``, then
  ``function(*arguments)``. Almost every task has this flat form.
- ``fills`` is None: ``function(inputs, *arguments)``, for tasks that nest; ``run_chain`` is one such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Entry = tuple[Callable[..., Any], tuple[Any, ...], "tuple[int, ...] | None"]


def run(entry: Entry, inputs: Sequence[Any]) -> Any:
    """The result of one entry, given the values of its inputs in slot order."""
    function, arguments, fills = entry
    if fills is None:
        return function(inputs, *arguments)
    if fills:
        filled = list(arguments)
        for position, value in zip(fills, inputs, strict=True):
            filled[position] = value
        return function(*filled)
    return function(*arguments)


def run_chain(inputs: Sequence[Any], entries: Sequence[Entry]) -> Any:
    """Run a fused chain: the first entry takes the task's inputs, each further one the result before it."""
    result = run(entries[0], inputs)
    for entry in entries[1:]:
        result = run(entry, (result,))
    return result
