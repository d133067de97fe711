"""Blobs: the payloads of many tasks pickled together.

What tasks share (a function, its closure, a common argument) is pickled once per blob, so a blob must be
large where tasks share much; and an executor that needs one task unpickles the whole blob, so a blob should
be small otherwise. Hence:

- Light tasks go into blobs of ``LIGHT_TASKS`` in the plan's order, whatever they call.
- Categories whose tasks are heavy alone (``HEAVY_BYTES``) go into blobs of their own, together, in the plan's
  order. Such a blob holds so many tasks that what they share is a small part of it (``SHARE``), within
  ``MAX_BLOB_BYTES``.
- Plain pickle first; cloudpickle for a blob that plain pickle cannot carry, or that refers to ``__main__``,
  which is another module elsewhere.
"""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import cloudpickle

from graphvine.envs.by_value import pickled_by_value
from graphvine.protocol.errors import NotPicklableError
from graphvine.protocol.payload import Entry
from graphvine.protocol.values import MAIN

LIGHT_TASKS = 1024
HEAVY_BYTES = 4 * 1024
MAX_BLOB_BYTES = 8 * 2**20
#: A category is worth blobs of its own from this many tasks.
_MIN_GROUP = 4
_SAMPLE = 64
#: What is shared may be this part of the bytes of a blob.
SHARE = 0.15
_PROBE = 8


class Blobs:
    """The blobs of a plan: task ``t`` is entry ``index[t]`` of ``data[blob_of[t]]``."""

    def __init__(self, count: int) -> None:
        self.data: list[bytes] = []
        self.blob_of = array("l", bytes(array("l").itemsize * count))
        self.index = array("l", bytes(array("l").itemsize * count))

    def add(self, tasks: Sequence[int], data: bytes) -> None:
        blob = len(self.data)
        self.data.append(data)
        for index, task in enumerate(tasks):
            self.blob_of[task] = blob
            self.index[task] = index


class Packer:
    """Packs the entries of one plan."""

    def __init__(self, entries: Sequence[Entry], keys: Sequence[Any], by_value: Sequence[str] = ()) -> None:
        """``by_value``: modules that are not found elsewhere."""
        self._entries = entries
        self._keys = keys
        self._by_value = by_value
        self.sample: list[Entry] = []
        """One entry of each of the first categories."""
        self.blobs = Blobs(len(entries))

    def pack(self, categories: Sequence[int]) -> Blobs:
        """Raises NotPicklableError."""
        groups: dict[int, list[int]] = {}
        for task, category in enumerate(categories):
            group = groups.get(category)
            if group is None:
                groups[category] = [task]
            else:
                group.append(task)
        self.sample = [self._entries[group[0]] for group in islice(groups.values(), _SAMPLE)]
        with pickled_by_value(self._by_value):
            self._pack_groups(list(groups.values()))
        return self.blobs

    def _pack_groups(self, groups: Sequence[list[int]]) -> None:
        heavy = [group for group in groups if len(group) >= _MIN_GROUP and self._is_heavy(group)]
        if not heavy:
            self._pack_all(range(len(self._entries)), LIGHT_TASKS)
            return
        own = {task for group in heavy for task in group}
        self._pack_all([task for task in range(len(self._entries)) if task not in own], LIGHT_TASKS)
        self._pack_all(sorted(own), self._heavy_size(heavy))

    def _is_heavy(self, group: Sequence[int]) -> bool:
        return len(self._dumps(group[:1])) >= HEAVY_BYTES

    def _heavy_size(self, groups: Sequence[list[int]]) -> int:
        """How many tasks a blob of these categories should hold."""
        firsts = [group[0] for group in groups]
        more = max(groups, key=len)[1 : 1 + _PROBE]
        shared = len(self._dumps(firsts))
        alone = max(1.0, (len(self._dumps(firsts + more)) - shared) / len(more))
        return int(max(1, min(shared / alone / SHARE, MAX_BLOB_BYTES / alone)))

    def _pack_all(self, tasks: Sequence[int], size: int) -> None:
        for start in range(0, len(tasks), size):
            self._pack_bounded(tasks[start : start + size])

    def _pack_bounded(self, tasks: Sequence[int]) -> None:
        data = self._dumps(tasks)
        if len(data) <= MAX_BLOB_BYTES or len(tasks) == 1:
            self.blobs.add(tasks, data)
            return
        middle = len(tasks) // 2
        self._pack_bounded(tasks[:middle])
        self._pack_bounded(tasks[middle:])

    # -- pickling ------------------------------------------------------------------------------------------

    def _dumps(self, tasks: Sequence[int]) -> bytes:
        entries = [self._entries[task] for task in tasks]
        try:
            return dump(entries, self._by_value)
        except Exception as error:
            raise self._explain(tasks, error) from error

    def _explain(self, tasks: Sequence[int], error: BaseException) -> NotPicklableError:
        for task in tasks:
            reason = _failure(self._entries[task])
            if reason is not None:
                culprit = _culprit(self._entries[task])
                return NotPicklableError(
                    f"task {self._keys[task]!r} cannot be sent to a worker: "
                    f"{culprit} cannot be pickled ({reason})"
                )
        return NotPicklableError(
            f"tasks {self._keys[tasks[0]]!r} to {self._keys[tasks[-1]]!r} cannot be pickled together: {error}"
        )


def dump(value: Any, by_value: Sequence[str] = ()) -> bytes:
    """Pickle by reference where that holds elsewhere, by value otherwise. Raises what pickling raises."""
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 -- pickle passes on whatever a __reduce__ raises; cloudpickle decides
        return cloudpickle.dumps(value, protocol=5)  # type: ignore[no-any-return]
    if MAIN in data or any(_mark(name) in data for name in by_value):
        return cloudpickle.dumps(value, protocol=5)  # type: ignore[no-any-return]
    return data


def _mark(module: str) -> bytes:
    """How a module's name stands in a pickle."""
    name = module.encode()
    return b"\x8c" + bytes([len(name)]) + name if len(name) < 256 else name


def _failure(value: Any) -> str | None:
    try:
        dump(value)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is what we were asked for
        return f"{type(error).__name__}: {error}"
    return None


def _culprit(value: Any) -> str:
    """The smallest part of a payload that cannot be pickled, in words."""
    parts: Iterable[Any] = value if isinstance(value, (tuple, list)) else ()
    if type(value) is dict:
        parts = value.values()
    for part in parts:
        if _failure(part) is not None:
            return _culprit(part)
    if callable(value) and not isinstance(value, type):
        return f"the function {_name(value)}"
    return f"an argument of type {type(value).__name__}"


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))
