"""Values that take long to unpickle, kept for the next task that takes the same.

A table of a million entries, or a model, that a thousand tasks of a graph look things up in, would be made
anew from its pickle for each of them. So an executor keeps such a value while tasks go on taking it. They
share it, as in dask's own schedulers and on one worker of distributed.

- It is kept when it is taken for the second time, and took ``worth_s`` or more: most values are taken once.
- It is kept until nobody took it for ``unused_s``, or others that were taken since need the room. The last
  one is kept whatever its size: whoever takes it has that much memory.
- It is the file's of that moment: what lies under the same name later is another one.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from time import perf_counter
from typing import Any

import msgspec

#: So many are remembered that were taken once.
_REMEMBERED = 256

Identity = tuple[str, int, int, int, int]


class _Kept(msgspec.Struct):
    value: Any
    size: int
    used_at: float


class Recent:
    """The kept values of one executor. ``load`` makes a value from a file; ``budget_bytes``: of the files of
    all."""

    def __init__(
        self,
        load: Callable[[str], Any],
        budget_bytes: int = 256 * 2**20,
        worth_s: float = 0.001,
        unused_s: float = 2.0,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._load = load
        self._budget = budget_bytes
        self._worth_s = worth_s
        self._unused_s = unused_s
        self._clock = clock
        self._kept: OrderedDict[Identity, _Kept] = OrderedDict()
        self._held_bytes = 0
        self._once: OrderedDict[Identity, None] = OrderedDict()

    def take(self, path: str) -> Any:
        """The value in a file. Raises whatever ``load`` raises."""
        identity = _identity(path)
        kept = self._kept.get(identity) if identity is not None else None
        if kept is not None and identity is not None:
            kept.used_at = self._clock()
            self._kept.move_to_end(identity)
            return kept.value
        began = self._clock()
        value = self._load(path)
        now = self._clock()
        if identity is not None and now - began >= self._worth_s:
            self._note(identity, value, now)
        return value

    def forget_unused(self) -> None:
        """Let go what nobody took lately."""
        if self._kept:
            oldest = self._clock() - self._unused_s
            while self._kept and next(iter(self._kept.values())).used_at < oldest:
                self._forget_first()

    def clear(self) -> None:
        """Let everything go."""
        self._kept.clear()
        self._once.clear()
        self._held_bytes = 0

    def _note(self, identity: Identity, value: Any, now: float) -> None:
        """A value was made that took long."""
        if identity not in self._once:
            self._once[identity] = None
            if len(self._once) > _REMEMBERED:
                self._once.popitem(last=False)
            return
        del self._once[identity]
        size = identity[-1]
        self._kept[identity] = _Kept(value, size, now)
        self._held_bytes += size
        while self._held_bytes > self._budget and len(self._kept) > 1:
            self._forget_first()

    def _forget_first(self) -> None:
        _, kept = self._kept.popitem(last=False)
        self._held_bytes -= kept.size


def _identity(path: str) -> Identity | None:
    """What tells a file from others that have its name at other times. None: it is not there."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return path, state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
