"""dask-awkward and dask-histogram, where they are installed."""

from __future__ import annotations

from typing import Any

import dask
import pytest

from graphvine.dask_adapter.client import DaskClient

dak = pytest.importorskip("dask_awkward")
ak = pytest.importorskip("awkward")
hist = pytest.importorskip("hist")
hist_dask = pytest.importorskip("hist.dask")


@pytest.fixture
def events() -> Any:
    records = [{"x": [float(i)] * (i % 4), "y": i} for i in range(300)]
    return dak.from_awkward(ak.Array(records), npartitions=7)


def test_arrays(client: DaskClient, events: Any) -> None:
    for array in (events.y, events.x[events.y % 2 == 0], ak.num(events.x, axis=1) + events.y):
        assert ak.all(
            ak.flatten(array.compute(scheduler=client.get) == array.compute(scheduler="sync"), axis=None)
        )


def test_reductions(client: DaskClient, events: Any) -> None:
    values = [ak.sum(events.y), ak.max(events.y), ak.min(ak.sum(events.x, axis=1))]
    assert dask.compute(*values, scheduler=client.get) == dask.compute(*values, scheduler="sync")


def test_histograms(client: DaskClient, events: Any) -> None:
    filled = [
        hist_dask.Hist.new.Reg(20, 0, 300).Double().fill(values)
        for values in (ak.flatten(events.x), events.y)
    ]
    found, expected = dask.compute(filled, scheduler=client.get)[0], dask.compute(filled, scheduler="sync")[0]
    for one, other in zip(found, expected, strict=True):
        assert one == other
        assert one.sum() > 0


def test_persisted(client: DaskClient, events: Any) -> None:
    kept = client.persist(events)
    assert ak.sum(kept.y).compute(scheduler=client.get) == sum(range(300))


def test_later(client: DaskClient, events: Any) -> None:
    future = client.compute(ak.sum(events.y))
    assert future.result(60) == sum(range(300))
