"""Futures of collections."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, as_completed, wait
from typing import Any

import dask
import pytest

from graphvine.dask_adapter.client import DaskClient
from graphvine.dask_adapter.inprocess import InProcessEngine
from graphvine.manager.engine import Run
from graphvine.manager.plan import Plan

da = pytest.importorskip("dask.array")
TIMEOUT_S = 30


def inc(x: int) -> int:
    return x + 1


class Bad(Exception):
    pass


def boom(x: int) -> int:
    raise Bad(x)


def test_one_is_a_future(client: DaskClient) -> None:
    future = client.compute(da.arange(100, chunks=10).sum())
    assert isinstance(future, Future)
    assert future.result(TIMEOUT_S) == 4950
    assert future.done()


def test_several_are_a_tuple(client: DaskClient) -> None:
    x = da.arange(100, chunks=10)
    futures = client.compute(x.sum(), x, [x.max(), 5], 7)
    assert isinstance(futures, tuple)
    assert not wait(futures, TIMEOUT_S).not_done
    total, values, nested, other = (future.result() for future in futures)
    assert (total, values.shape, nested, other) == (4950, (100,), [99, 5], 7)


def test_as_completed(client: DaskClient) -> None:
    futures = [client.compute(dask.delayed(inc)(n)) for n in range(5)]
    assert sorted(future.result() for future in as_completed(futures, TIMEOUT_S)) == [1, 2, 3, 4, 5]


def test_no_collection(client: DaskClient) -> None:
    assert client.compute(5).result(TIMEOUT_S) == 5


def test_no_tasks(client: DaskClient) -> None:
    assert client.compute(dask.delayed(5)).result(TIMEOUT_S) == 5


def test_errors(client: DaskClient) -> None:
    futures = client.compute(dask.delayed(boom)(1), dask.delayed(inc)(1))
    for future in futures:
        assert isinstance(future.exception(TIMEOUT_S), Bad)


def test_unknown_options(client: DaskClient) -> None:
    with pytest.raises(TypeError, match="unknown option colour"):
        client.compute(da.ones(5), colour="red")


def test_of_what_is_kept(client: DaskClient) -> None:
    kept = client.persist(da.arange(100, chunks=10))
    assert client.compute(kept.sum()).result(TIMEOUT_S) == 4950
    assert client.compute(kept).result(TIMEOUT_S).sum() == 4950


class Waiting(InProcessEngine):
    """Its runs are never finished, but can be cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = threading.Event()

    def run(self, plan: Plan, *, keep: bool = False) -> Any:
        return _WaitingRun(self.cancelled)


class _WaitingRun:
    def __init__(self, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        self._callbacks: list[Any] = []

    def add_done_callback(self, callback: Any) -> None:
        self._callbacks.append(callback)

    def cancel(self) -> bool:
        self._cancelled.set()
        for callback in self._callbacks:
            callback(self)
        return True

    def result(self, timeout: float | None = None) -> list[Any]:
        raise CancelledError

    def done(self) -> bool:
        return self._cancelled.is_set()


def test_cancelling() -> None:
    engine = Waiting()
    future = engine.compute(dask.delayed(inc)(1))
    assert not future.done()
    assert future.cancel()
    assert future.cancel()
    assert engine.cancelled.is_set()
    assert wait([future], TIMEOUT_S).done == {future}
    with pytest.raises(CancelledError):
        future.result()
    engine.close()


def test_cancelling_one_of_two_lets_the_other_go_on() -> None:
    engine = Waiting()
    first, second = engine.compute(dask.delayed(inc)(1), dask.delayed(inc)(2))
    assert first.cancel()
    assert not engine.cancelled.is_set()
    assert second.cancel()
    assert engine.cancelled.is_set()
    engine.close()


def test_what_is_done_cannot_be_cancelled(client: DaskClient) -> None:
    future = client.compute(dask.delayed(inc)(1))
    assert future.result(TIMEOUT_S) == 2
    assert not future.cancel()
    assert future.result() == 2


def test_a_finished_run_is_a_run(client: DaskClient) -> None:
    # The protocol that the adapter relies on, as far as a type checker does not see it.
    for name in ("result", "files", "done", "cancel", "add_done_callback", "add_result_callback", "value"):
        assert hasattr(Run, name)
