"""``compute``: a run that nobody waits for, and the futures of what it computes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from graphvine.dask_adapter.collections import Request
from graphvine.dask_adapter.get import nested, start, values_of
from graphvine.dask_adapter.lower import Lowered
from graphvine.manager.engine import Engine, Run
from graphvine.protocol.futures import RunFuture


def compute_futures(engine: Engine, lowered: Lowered, request: Request, count: int) -> list[RunFuture]:
    """Start a plan; the futures of the ``count`` values that ``request`` makes of its results."""
    computing = _Computing(engine, lowered, request, count)
    computing.start()
    return computing.futures


class _Computing:
    def __init__(self, engine: Engine, lowered: Lowered, request: Request, count: int) -> None:
        self._engine = engine
        self._lowered = lowered
        self._request = request
        self._run: Run | None = None
        self.futures = [RunFuture(self._on_cancel) for _ in range(count)]

    def start(self) -> None:
        if not len(self._lowered.plan):
            self._begin_to_finish()
            return
        self._run = start(self._engine, self._lowered)
        self._run.add_done_callback(lambda _: self._begin_to_finish())

    def _on_cancel(self, _: RunFuture) -> None:
        if self._run is not None and all(future.cancelled() for future in self.futures):
            self._run.cancel()

    def _begin_to_finish(self) -> None:
        """Off the manager's thread: values are unpickled and joined, and users' callbacks called."""
        thread = threading.Thread(target=self._finish, name="graphvine-compute", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is ending
            self._settle(None, error)

    def _finish(self) -> None:
        try:
            values = self._values()
        except BaseException as error:  # noqa: BLE001 -- it belongs to whoever holds the futures
            self._settle(None, error)
        else:
            self._settle(values, None)

    def _values(self) -> Sequence[Any]:
        results = self._run.result() if self._run is not None else []
        values = values_of(self._engine, self._lowered, results)
        return self._request.finish(nested(self._request.keys, values))

    def _settle(self, values: Sequence[Any] | None, error: BaseException | None) -> None:
        for position, future in enumerate(self.futures):
            future.settle(values[position] if values is not None else None, error)
