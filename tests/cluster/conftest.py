"""Real batch systems: started once, used by all tests of theirs, and empty after each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import slurm_pool
from tests.cluster.slurm_pool import SlurmPool


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Connection files of this test are its own."""
    directory = tmp_path / "state"
    monkeypatch.setenv("GRAPHVINE_STATE", str(directory))
    return directory


@pytest.fixture(scope="session")
def slurm_pool_running() -> Iterator[SlurmPool]:
    missing = slurm_pool.why_not()
    if missing:
        pytest.skip(missing)
    with slurm_pool.pool() as pool:
        yield pool


@pytest.fixture
def slurm(slurm_pool_running: SlurmPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmPool]:
    """A Slurm that our commands find, in which the test leaves no job."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_pool_running.configuration))
    yield slurm_pool_running
    assert slurm_pool_running.drain() == []
