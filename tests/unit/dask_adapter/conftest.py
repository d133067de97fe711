"""What the adapter's tests run on. With ``GRAPHVINE_TEST_ENGINE=manager`` that is a real manager."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from graphvine.dask_adapter.client import DaskClient
from graphvine.dask_adapter.inprocess import InProcessEngine

ENGINE = os.environ.get("GRAPHVINE_TEST_ENGINE", "inprocess")


def make_client() -> DaskClient:
    if ENGINE == "inprocess":
        return InProcessEngine()
    from graphvine import Manager

    return Manager(local_workers=2)


@pytest.fixture(scope="session")
def _shared_client() -> Iterator[DaskClient]:
    client = make_client()
    yield client
    client.close()


@pytest.fixture
def client(_shared_client: DaskClient) -> DaskClient:
    """Something that runs plans, with its dask face."""
    return _shared_client


@pytest.fixture
def local() -> Iterator[InProcessEngine]:
    """An engine in this process, whose plans can be looked at."""
    engine = InProcessEngine()
    yield engine
    engine.close()
