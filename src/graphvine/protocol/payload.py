"""What a blob holds, and how an executor runs one entry of it.

A blob unpickles to a list of entries. An entry is ``(function, arguments, fills)``:

- ``fills`` is a tuple: the value of input ``k`` takes the place of ``arguments[fills[k]]``, then
  ``function(*arguments)``. Almost every task has this flat form.
- ``fills`` is None: ``function(inputs, *arguments)``, for tasks that nest; ``run_chain`` is one such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from graphvine.protocol import tree_files
from graphvine.protocol.trees import NewTree

Function = TypeVar("Function", bound=Callable[..., Any])

#: Attribute of functions of entries that executors run in a child process each time.
IN_CHILD = "graphvine_in_child"

Entry = tuple[Callable[..., Any], tuple[Any, ...], "tuple[int, ...] | None"]


def in_child(function: Function) -> Function:
    """Mark the function of an entry: executors run it in a child process each time. Found by attribute, so
    that whoever makes payloads can mark functions of its own."""
    setattr(function, IN_CHILD, True)
    return function


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


def run_chain(inputs: Sequence[Any], entries: Sequence[Entry], keys: Sequence[Any]) -> Any:
    """Run a fused chain: the first entry takes the task's inputs, each further one the result before it.

    A tree that one step makes is for the next what it would be if they were tasks of their own.
    An exception is noted with the key of the step that raised it (PEP 678; ``keys`` has one per entry)."""
    values = inputs
    for entry, key in zip(entries, keys, strict=True):
        try:
            result = run(entry, values)
            if type(result) is NewTree and entry is not entries[-1]:
                result = tree_files.not_yet_stored(result)
            values = (result,)
        except Exception as error:
            add_note(error, f"raised in the step {key!r} of a chain of {len(keys)} tasks that run as one")
            raise
    return values[0]


def add_note(error: BaseException, note: str) -> None:
    """What ``error.add_note(note)`` does since Python 3.11."""
    object.__setattr__(error, "__notes__", [*getattr(error, "__notes__", ()), note])
