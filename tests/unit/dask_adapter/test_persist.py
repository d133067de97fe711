"""Results that stay on the workers."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import dask
import dask.bag as db
import pytest

from graphvine.dask_adapter.client import DaskClient
from graphvine.dask_adapter.inprocess import InProcessEngine
from graphvine.dask_adapter.requests import Stated, keep_graph
from graphvine.dask_adapter.surroundings import Surroundings

da = pytest.importorskip("dask.array")
np = pytest.importorskip("numpy")


def inc(x: int) -> int:
    return x + 1


class Bad(Exception):
    pass


def boom(x: int) -> int:
    raise Bad(x)


def test_what_is_built_on_them_starts_from_there(local: InProcessEngine) -> None:
    x = da.arange(100, chunks=10)
    kept = local.persist(x + 1)
    count = len(local.plans)
    assert (kept + 1).sum().compute(scheduler=local.get) == sum(range(2, 102))
    plan = local.plans[-1]
    assert len(local.plans) == count + 1
    assert len(plan.externals) == 10
    assert all(any(need < 0 for need in needs) or len(needs) > 1 for needs in plan.inputs)
    assert not any(b"fetch" in blob or b"Kept" in blob for blob in plan.blobs)


@pytest.mark.parametrize("optimize", [True, False])
def test_arrays(client: DaskClient, optimize: bool) -> None:
    x = da.arange(100, chunks=10)
    kept = client.persist(x * 2, optimize_graph=optimize)
    assert isinstance(kept, da.Array)
    assert kept.chunks == x.chunks
    assert (kept.compute(scheduler=client.get) == np.arange(100) * 2).all()
    assert (kept[::3] + kept[0]).sum().compute(scheduler=client.get, optimize_graph=optimize) == sum(
        range(0, 200, 6)
    )


def test_any_other_scheduler_gets_the_values(client: DaskClient) -> None:
    kept = client.persist(da.arange(100, chunks=10))
    for name in ("sync", "threads"):
        assert kept.sum().compute(scheduler=name) == 4950


def test_another_manager_gets_the_values(client: DaskClient, local: InProcessEngine) -> None:
    kept = client.persist(da.arange(100, chunks=10))
    assert kept.sum().compute(scheduler=local.get) == 4950


def test_pickling_one_takes_its_value_along(local: InProcessEngine) -> None:
    kept = local.persist(dask.delayed(inc)(1))
    again = pickle.loads(pickle.dumps(kept))
    local.files.clear()
    assert again.compute(scheduler="sync") == 2


def test_persist_what_is_persisted(local: InProcessEngine) -> None:
    first = local.persist(da.arange(100, chunks=10))
    second = local.persist(first)
    third = local.persist(first + second)
    del first
    gc.collect()
    assert third.sum().compute(scheduler=local.get) == 9900
    assert second.sum().compute(scheduler=local.get) == 4950


def test_released_with_the_last_reference(local: InProcessEngine) -> None:
    kept = local.persist(da.arange(100, chunks=10))
    assert len(local.files) == 10
    total = kept.sum()
    del kept
    gc.collect()
    assert total.compute(scheduler=local.get) == 4950
    del total
    gc.collect()
    assert local.files == {}


def test_other_collections(client: DaskClient) -> None:
    bag = client.persist(db.from_sequence(range(10), npartitions=3).map(inc))
    assert bag.sum().compute(scheduler=client.get) == 55
    one = client.persist(dask.delayed(inc)(1))
    assert dask.delayed(inc)(one).compute(scheduler=client.get) == 3
    assert one.compute(scheduler=client.get) == 2


def test_literals(client: DaskClient) -> None:
    assert client.persist(dask.delayed(5)).compute(scheduler=client.get) == 5


def test_dataframes(client: DaskClient) -> None:
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    data = pd.DataFrame({"k": np.arange(100) % 3, "x": np.arange(100.0)})
    kept = client.persist(dd.from_pandas(data, npartitions=5))
    pd.testing.assert_frame_equal(kept.compute(scheduler=client.get), data)
    assert kept.x.sum().compute(scheduler=client.get) == 4950
    found = kept.groupby("k").x.sum().compute(scheduler=client.get).sort_index()
    pd.testing.assert_series_equal(found, data.groupby("k").x.sum())


def test_one_or_several(client: DaskClient) -> None:
    x, y = da.ones(5), da.zeros(5)
    assert isinstance(client.persist(x), da.Array)
    assert [type(one) for one in client.persist(x, y)] == [da.Array, da.Array]
    several = client.persist([x, y])
    assert isinstance(several, tuple)
    assert len(several) == 2


def test_by_dask(local: InProcessEngine) -> None:
    x, y = dask.persist(da.arange(10, chunks=5), 7, scheduler=local.get)
    assert y == 7
    assert x.sum().compute(scheduler="sync") == 45
    if hasattr(dask.base, "collections_to_expr"):
        # From dask 2025.4 on it asks the owner of ``get`` for its ``persist``.
        assert len(local.files) == 2
    assert x.persist(scheduler=local.get).sum().compute(scheduler=local.get) == 45


def test_an_error_is_met_by_whoever_asks(client: DaskClient) -> None:
    kept = client.persist(dask.delayed(boom)(1))
    with pytest.raises(Bad):
        kept.compute(scheduler=client.get)
    with pytest.raises(Bad):
        dask.delayed(inc)(kept).compute(scheduler=client.get)
    with pytest.raises(Bad):
        kept.compute(scheduler="sync")


def test_unknown_options(client: DaskClient) -> None:
    with pytest.raises(TypeError, match="unknown option colour"):
        client.persist(da.ones(5), colour="red")


def test_last_steps_stay_in_the_graph(client: DaskClient) -> None:
    graph: dict[Any, Any] = {"x": (inc, 1), "finalize-x": (sum, ["x"])}
    nodes = keep_graph(client, graph, ["finalize-x"], Stated(_default(), Surroundings()))
    assert client.get(nodes, "finalize-x") == 2


def _default() -> Any:
    from graphvine.manager.plan import TaskOptions

    return TaskOptions()


def test_dasks_own_comparison_works_on_what_is_kept(client: DaskClient) -> None:
    from dask.array.utils import assert_eq

    x = da.arange(20, chunks=5) + 1
    assert_eq(x, np.arange(20) + 1, scheduler=client.get)
    kept = client.persist(x)
    assert_eq(kept, np.arange(20) + 1, scheduler=client.get)
    assert_eq(kept * 2, (np.arange(20) + 1) * 2, scheduler=client.get)


def test_dasks_own_comparison_works_on_kept_data_frames(client: DaskClient) -> None:
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    from dask.dataframe.utils import assert_eq

    frame = pd.DataFrame({"a": range(10), "b": 1.5})
    kept = client.persist(dd.from_pandas(frame, npartitions=3))
    assert_eq(kept, frame, scheduler=client.get)
    assert_eq(kept.a + 1, frame.a + 1, scheduler=client.get)


def test_a_kept_node_has_its_result(client: DaskClient) -> None:
    kept = client.persist(da.arange(4, chunks=2) + 1)
    node = kept.__dask_graph__()[(kept.name, 1)]
    assert node.result().tolist() == [3, 4]
    assert pickle.loads(pickle.dumps(node)).result().tolist() == [3, 4]
