"""The results of several calls as one future, which is an iterator, too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from graphvine.protocol.futures import RunFuture


class Gathered(RunFuture):
    """As a future: the list of all values, or the first exception, in order. As an iterator: one value after
    the other, as ``concurrent.futures.Executor.map`` gives them; an exception, or its end, cancels the
    rest."""

    def __init__(
        self,
        parts: Sequence[Future[Any]],
        timeout: float | None = None,
        flat: bool = True,
        finish: Callable[[list[Any]], Any] = list,
    ) -> None:
        """``flat``: each part is a list of values, and no value itself. ``finish``: what the future's result
        is of them. ``timeout``: seconds from now on, for the iterator."""
        super().__init__(_cancel_all)
        self.parts = list(parts)
        self._flat = flat
        self._finish = finish
        self._end = None if timeout is None else time.monotonic() + timeout
        self._values = self._each()
        self._left = 1 + len(self.parts)
        self._counting = threading.Lock()
        for part in self.parts:
            part.add_done_callback(self._on_part_done)
        self._on_part_done(None)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._values)

    def _each(self) -> Iterator[Any]:
        waiting = self.parts[::-1]
        try:
            while waiting:
                left = None if self._end is None else self._end - time.monotonic()
                value = waiting[-1].result(left)
                waiting.pop()
                if self._flat:
                    yield from value
                else:
                    yield value
        finally:
            for part in waiting:
                part.cancel()

    def _on_part_done(self, _: object) -> None:
        with self._counting:
            self._left -= 1
            if self._left:
                return
        try:
            values: list[Any] = []
            for part in self.parts:
                if self._flat:
                    values += part.result()
                else:
                    values.append(part.result())
            result = self._finish(values)
        except BaseException as error:  # noqa: BLE001 -- the result, as it is
            self.settle(error=error)
        else:
            self.settle(result)


def _cancel_all(future: RunFuture) -> None:
    assert isinstance(future, Gathered)
    for part in future.parts:
        part.cancel()
