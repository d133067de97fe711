"""The engines that the adapter's tests run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from graphvine.dask_adapter.client import DaskClient
from graphvine.dask_adapter.inprocess import InProcessEngine


@pytest.fixture(params=["inprocess"])
def client(request: pytest.FixtureRequest) -> Iterator[DaskClient]:
    """Something that runs plans, with its dask face."""
    client = InProcessEngine()
    yield client
    client.close()
