"""Files that each worker makes for itself, when a task there first needs one (``peer_transfer=False``)."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Sequence
from typing import Any

import msgspec

from graphvine.protocol.trees import NewTree, Tree
from graphvine.taskvine.remote.contents import Absent, SmallFile, last_line, place, reason_absent
from graphvine.worker import scratch
from graphvine.worker.notes import set_note

_DATA = "data"


class Making(msgspec.Struct, array_like=True):
    """How one is made: its name on every worker, the pickled function and arguments of an entry, and which of
    the task's inputs that takes."""

    name: str
    entry: bytes
    slots: list[int]


def with_made(inputs: Sequence[Any], makings: Sequence[Making]) -> list[Any]:
    """The inputs, and behind them what is made here: the first one is the last, -1."""
    made = [make_once(making, [inputs[slot] for slot in making.slots]) for making in makings]
    return [*inputs, *reversed(made)]


def make_once(making: Making, inputs: Sequence[Any]) -> Any:
    """The file, made by the first who comes; others wait for it. Absent where that fails, and is tried again
    by the next."""
    for value in inputs:
        reason = reason_absent(value)
        if reason:
            return Absent(reason)
    home = scratch.shared(f"made-{making.name}")
    with open(os.path.join(home, "lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = os.path.join(home, _DATA)
        if not os.path.lexists(path):
            reason = _make(making, inputs, path)
            if reason:
                return Absent(reason)
        return Tree(path, 0)


def _make(making: Making, inputs: Sequence[Any], path: str) -> str:
    """Have the file at ``path``; why that could not be, else ""."""
    function, arguments = pickle.loads(making.entry)
    try:
        made = function(inputs, *arguments)
        if isinstance(made, SmallFile):
            place(made, path)
        elif isinstance(made, NewTree):
            os.rename(made.path, path)
    except Exception as error:  # noqa: BLE001 -- as of an input that another task could not make
        return last_line(str(error)) or type(error).__name__
    finally:
        # What was noted is not this task's own.
        set_note(b"")
    return reason_absent(made)
