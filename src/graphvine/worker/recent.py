"""Values that take long to unpickle, kept for the next task that takes the same.

A table of a million entries, or a model, that a thousand tasks of a graph look things up in, would be made
anew from its pickle for each of them. So an executor keeps such a value while tasks go on taking it. They
share it, as in dask's own schedulers and on one worker of distributed.

- It is kept when it took ``worth_s`` or more to make and is taken for the second time: most values are taken
  once. Until the next task begins it is kept *on trial*, and when it was made here by a task, too: then it is
  there at once for a task that takes it, and takes no memory from another.
- It is kept until nobody took it for ``unused_s``, or others that were taken since need the room. The last
  one is kept whatever its size: whoever takes it has that much memory.
- It is the file's of that moment: what lies under the same name later is another one.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import msgspec

#: So many are remembered that were taken once.
_REMEMBERED = 256

Identity = tuple[int, int, int, int]


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
        self.trial: tuple[Identity, Any] | None = None

    def begin(self, inputs: Iterable[Any]) -> None:
        """A task begins, of whose inputs those that are paths will be taken. (Nothing to do without a
        ``trial``.)"""
        if self.trial is not None and self.trial[0] not in (_identity(p) for p in inputs if type(p) is str):
            self.trial = None

    def take(self, path: str) -> Any:
        """The value in a file. Raises whatever ``load`` raises."""
        identity = _identity(path)
        if identity is None:
            return self._load(path)
        kept = self._kept.get(identity)
        if kept is not None:
            kept.used_at = self._clock()
            self._kept.move_to_end(identity)
            return kept.value
        if self.trial is not None and self.trial[0] == identity:
            value = self.trial[1]
            self._keep(identity, value)
            return value
        began = self._clock()
        value = self._load(path)
        if self._clock() - began >= self._worth_s:
            self._note(identity, value)
        return value

    def offer(self, path: str, value: Any, took_s: float) -> None:
        """A task made a value, which was written to a file, and took so long to pickle."""
        identity = _identity(path)
        if identity is not None and took_s >= self._worth_s:
            self._note(identity, value)

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
        self.trial = None
        self._held_bytes = 0

    def _note(self, identity: Identity, value: Any) -> None:
        """A value was made that took long."""
        if identity in self._once:
            self._keep(identity, value)
            return
        self._once[identity] = None
        if len(self._once) > _REMEMBERED:
            self._once.popitem(last=False)
        self.trial = identity, value

    def _keep(self, identity: Identity, value: Any) -> None:
        self._once.pop(identity, None)
        self.trial = None
        size = identity[-1]
        self._kept[identity] = _Kept(value, size, self._clock())
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
    return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
