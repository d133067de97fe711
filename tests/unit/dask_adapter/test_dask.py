"""dask's own collections, against dask's synchronous scheduler."""

from __future__ import annotations

from typing import Any

import dask
import dask.bag as db
import pytest

from graphvine.dask_adapter.client import DaskClient

da = pytest.importorskip("dask.array")
np = pytest.importorskip("numpy")


def agree(client: DaskClient, x: Any) -> None:
    np.testing.assert_allclose(x.compute(scheduler=client.get), x.compute(scheduler="sync"))


def base() -> Any:
    return da.from_array(np.arange(10_000.0).reshape(100, 100), chunks=(30, 40))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x + x.T[:100, :100],
        lambda x: x.sum(),
        lambda x: x.mean(axis=0),
        lambda x: x @ x,
        lambda x: x.rechunk((50, 10)).std(axis=1),
        lambda x: x[::3, x[0] > 50],
        lambda x: da.linalg.svd(x.rechunk((100, 25)))[1],
        lambda x: x.map_blocks(lambda block: block * 2),
        lambda x: x.map_overlap(lambda block: block + 1, depth=1),
        lambda x: da.stack([x, x + 1]).max(axis=0),
        lambda x: da.histogram(x, bins=10, range=(0, 10_000))[0],
        lambda x: da.random.RandomState(1).random((20, 20), chunks=7),
        lambda x: x.reshape(-1).cumsum(axis=0),
    ],
)
def test_arrays(client: DaskClient, function: Any) -> None:
    agree(client, function(base()))


@pytest.mark.parametrize("optimize", [True, False])
def test_several_at_once(client: DaskClient, optimize: bool) -> None:
    x = base()
    found = dask.compute(x.sum(), {"mean": x.mean()}, 7, scheduler=client.get, optimize_graph=optimize)
    assert found == dask.compute(x.sum(), {"mean": x.mean()}, 7, scheduler="sync")


def test_bags(client: DaskClient) -> None:
    bag = db.from_sequence(range(1000), npartitions=7)
    for x in (bag.map(lambda n: n % 7).frequencies(), bag.filter(lambda n: n % 2).sum(), bag.topk(3)):
        expected = x.compute(scheduler="sync")
        assert x.compute(scheduler=client.get) == expected
    groups = bag.groupby(lambda n: n % 5)
    found = {key: sorted(values) for key, values in groups.compute(scheduler=client.get)}
    assert found == {key: list(range(key, 1000, 5)) for key in range(5)}


def test_delayed(client: DaskClient) -> None:
    @dask.delayed
    def add(*args: Any, more: Any = 0) -> Any:
        return sum(args) + more

    @dask.delayed(nout=2)
    def two(x: int) -> tuple[int, int]:
        return x, x + 1

    a, b = two(3)
    c = add(a, b, add(a, more=b), more=add(1))
    assert c.compute(scheduler=client.get) == c.compute(scheduler="sync")
    nested = dask.delayed({"a": [a, (b, c)], "s": {a}})
    assert nested.compute(scheduler=client.get) == nested.compute(scheduler="sync")
    assert dask.delayed([1, 2]).compute(scheduler=client.get) == [1, 2]
    assert dask.delayed(np.arange(5)).sum().compute(scheduler=client.get) == 10


def test_delayed_to_array_and_back(client: DaskClient) -> None:
    x = da.from_delayed(dask.delayed(np.ones)(5), (5,), dtype=float)
    agree(client, da.concatenate([x, x]))
    parts = base().to_delayed().ravel().tolist()
    total = dask.delayed(sum)([part.sum() for part in parts])
    assert total.compute(scheduler=client.get) == total.compute(scheduler="sync")


class TestDataframes:
    @pytest.fixture
    def frame(self) -> Any:
        pd = pytest.importorskip("pandas")
        dd = pytest.importorskip("dask.dataframe")
        data = pd.DataFrame({"k": np.arange(1000) % 13, "x": np.arange(1000.0)})
        return dd.from_pandas(data, npartitions=9)

    def agree(self, client: DaskClient, x: Any, sort: bool = False) -> None:
        pd = pytest.importorskip("pandas")
        found, expected = x.compute(scheduler=client.get), x.compute(scheduler="sync")
        if sort:
            found, expected = found.sort_index(), expected.sort_index()
        if isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(found, expected)
        elif isinstance(expected, pd.Series):
            pd.testing.assert_series_equal(found, expected)
        else:
            assert found == expected

    def test_frames(self, client: DaskClient, frame: Any) -> None:
        self.agree(client, frame)
        self.agree(client, frame.x.sum())
        self.agree(client, frame[frame.x > 500])
        self.agree(client, frame.groupby("k").x.mean(), sort=True)
        self.agree(client, frame.merge(frame.groupby("k").x.max().reset_index(), on="k"), sort=False)

    @pytest.mark.filterwarnings("ignore:Passing more than 2 positional:DeprecationWarning")
    def test_shuffles_are_made_of_tasks(self, client: DaskClient, frame: Any) -> None:
        shuffled = frame.shuffle("k")
        assert not any("partd" in str(key) for key in shuffled.optimize().__dask_graph__())
        self.agree(client, shuffled, sort=True)
        self.agree(client, frame.set_index("k").x.sum())


def test_a_manager_is_a_scheduler_itself(client: DaskClient) -> None:
    assert client({"a": (sum, [1, 2])}, "a") == 3
    with dask.config.set(scheduler=client):
        assert dask.delayed(sum)([1, 2]).compute() == 3
    assert dask.delayed(sum)([1, 2]).compute(scheduler=client, resources={"cores": 1}) == 3
