"""Heavy things that many values drag along, pickled and unpickled once per process.

Every awkward array of a coffea analysis carries its behavior: a dictionary of more than a thousand functions,
many of them lambdas, which takes cloudpickle 12 ms and is the same for all of them. Such a *common* (a plain
dictionary of callables, and perhaps a few strings, at least ``LEAST_ENTRIES``) is pickled apart from the
value that holds it. The bytes go with the value, so that a value file is complete by itself, under a digest:
who has unpickled the same bytes before takes what came of them then.

A dictionary is recognised by its content: the very same keys and values, in the same order. So one that was
changed is another one. Values that came from one common share it, as they would in one process.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import cloudpickle
import msgspec
import xxhash

#: How a pickle begins that refers to commons (no other pickle begins so).
MARK = b"C"
LEAST_ENTRIES = 64
#: Commons remembered, of those written and of those read.
_REMEMBERED = 16


class Common(msgspec.Struct, frozen=True):
    """One dictionary of callables, as it was when it was pickled."""

    keys: tuple[Any, ...]
    values: tuple[Any, ...]
    digest: bytes
    data: bytes

    def is_content_of(self, candidate: dict[Any, Any]) -> bool:
        """Whether ``candidate`` holds the very same objects, in the same order."""
        return (
            len(candidate) == len(self.keys)
            and all(map(is_, candidate.values(), self.values))
            and all(map(is_, candidate, self.keys))
        )


_known: deque[Common] = deque(maxlen=_REMEMBERED)
_loaded: OrderedDict[bytes, dict[Any, Any]] = OrderedDict()


def dumps(
    value: object, buffer_callback: Callable[[pickle.PickleBuffer], object]
) -> tuple[bytes, list[bytes]]:
    """Cloudpickle ``value``; its pickle, and what has to come after its other buffers. The pickle begins with
    ``MARK`` when it refers to commons. Raises what pickling raises."""
    file = io.BytesIO()
    pickler = _Pickler(file, buffer_callback)
    pickler.dump(value)
    if not pickler.commons:
        return file.getvalue(), []
    return MARK + file.getvalue(), list(pickler.commons.values())[::-1]


def loads(data: bytes | memoryview, buffers: Sequence[memoryview]) -> Any:
    """The value of a pickle that begins with ``MARK``, and whose commons are the last of ``buffers``."""
    return _Unpickler(data[len(MARK) :], buffers).load()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, buffer_callback: Callable[[pickle.PickleBuffer], object]) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.commons: dict[bytes, bytes] = {}

    def persistent_id(self, item: Any) -> tuple[bytes, int] | None:
        if type(item) is not dict or len(item) < LEAST_ENTRIES:
            return None
        common = _common_of(item)
        if common is None:
            return None
        self.commons.setdefault(common.digest, common.data)
        # Counted from the end, as how many other buffers come before is not known yet.
        return common.digest, -1 - list(self.commons).index(common.digest)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes | memoryview, buffers: Sequence[memoryview]) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._buffers = buffers

    def persistent_load(self, name: Any) -> Any:
        digest, position = name
        found = _loaded.get(digest)
        if found is None:
            data = bytes(self._buffers[position])
            found = _loaded[digest] = pickle.loads(data)
            # What was read is written on under the same name.
            _known.append(Common(tuple(found), tuple(found.values()), digest, data))
            if len(_loaded) > _REMEMBERED:
                _loaded.popitem(last=False)
        return found


def _common_of(item: dict[Any, Any]) -> Common | None:
    """The common a dictionary is, or becomes; None when it is something else."""
    for common in _known:
        if common.is_content_of(item):
            return common
    strings = 0
    for held in item.values():
        if not callable(held):
            if type(held) is not str:
                return None
            strings += 1
    if strings > len(item) // 2:
        return None
    data = cloudpickle.dumps(item, protocol=5)
    common = Common(tuple(item), tuple(item.values()), xxhash.xxh3_128_digest(data), data)
    _known.append(common)
    return common
