"""Real batch systems: started once, used by all tests of theirs, and empty after each."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.cluster import install_htcondor, slurm_pool
from tests.cluster.htcondor_pool import Pool, running_pool
from tests.cluster.packing import pack_graphvine
from tests.cluster.slurm_jobs import Jobs
from tests.cluster.slurm_pool import SlurmPool

from graphvine.envs.unpack import unpack_to


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


@pytest.fixture(scope="session", autouse=True)
def node_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What Slurm's nodes keep: its jobs have the variables of who submits them."""
    directory = tmp_path_factory.mktemp("node-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHVINE_CACHE_DIR", str(directory))
        yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """graphvine, what it needs, and a Python: an archive for jobs, which has nothing else in it."""
    return pack_graphvine(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="session")
def packed_analysis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole environment that runs this, coffea and all: an archive for jobs."""
    if importlib.util.find_spec("coffea") is None:
        pytest.skip("needs coffea: pip install '.[hep]'")
    directory = tmp_path_factory.mktemp("analysis")
    archive = directory / "analysis.tar.gz"
    variables = os.environ | {"GRAPHVINE_CACHE_DIR": str(directory / "cache")}
    command = [sys.executable, "-m", "graphvine.cli", "env", "pack", "-o", str(archive)]
    subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)
    return archive


@pytest.fixture(scope="session")
def slurm_pool_running() -> Iterator[SlurmPool]:
    missing = slurm_pool.why_not()
    if missing:
        pytest.skip(missing)
    with slurm_pool.pool() as pool:
        yield pool


@pytest.fixture(scope="session")
def long_jobs(
    slurm_pool_running: SlurmPool, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Jobs, Sequence[str]]:
    """Two that run into their wall time, which can't be less than a minute, while other tests run: one ends
    when it is told to, the other does not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(slurm_pool_running.configuration))
        jobs = Jobs(tmp_path_factory.mktemp("long"))
        found = (
            *jobs.submit("wait", wall_time="2m", grace=30).jobs,
            *jobs.submit("stay", wall_time="1m").jobs,
        )
    slurm_pool_running.kept.update(found)
    return jobs, found


@pytest.fixture
def slurm(slurm_pool_running: SlurmPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmPool]:
    """A Slurm that our commands find, in which the test leaves no job."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_pool_running.configuration))
    yield slurm_pool_running
    assert slurm_pool_running.drain() == []


@pytest.fixture(scope="session")
def htcondor_running(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Where there is none, nothing is packed either."""
    if install_htcondor.root() is None:
        pytest.skip("there is no HTCondor here: python tests/cluster/install_htcondor.py")
    packed: Path = request.getfixturevalue("packed")
    with running_pool() as pool:
        unpack_to(str(packed), str(pool.home / "python"))
        pool.archive = pool.home / packed.name
        pool.archive.write_bytes(packed.read_bytes())
        pool.give(pool.home)
        yield pool


@pytest.fixture
def htcondor(htcondor_running: Pool) -> Iterator[Pool]:
    """A pool that a test finds empty, and has to leave empty: no jobs, no processes."""
    before = htcondor_running.processes()
    yield htcondor_running
    assert htcondor_running.drain(before) == ([], [])
