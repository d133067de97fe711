"""Workers in containers, by a real Apptainer, in jobs of real batch systems.

The image has a shell and no Python: a worker that runs in it has come there with what the job brought."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask import delayed
from tests.cluster import install_apptainer
from tests.cluster.graphs import graph, hold, look
from tests.cluster.image import MARK, make_image
from tests.cluster.slurm_pool import SlurmPool, await_true
from tests.cluster.test_slurm_workers import SOON, await_connected, started_by

import graphvine as gv
from graphvine.deploy.cluster import Cluster, SlurmCluster
from graphvine.deploy.slurm import Slurm

TEXT = "this is the image"


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if install_apptainer.program() is None:
        pytest.skip("there is no Apptainer here: python tests/cluster/install_apptainer.py")
    return make_image(tmp_path_factory.mktemp("image") / "an image", TEXT)


@pytest.fixture(autouse=True)
def nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nodes that have Apptainer, and keep what jobs write in one place; its path. Where root has not all of
    root's powers, which Apptainer wants to hand to its containers, they go without."""
    program = install_apptainer.program()
    if program is not None:
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("APPTAINER_NO_PRIVS", "1")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    yield scratch
    assert list(scratch.iterdir()) == []


def cluster_in(image: Path, packed: Path, **more: Any) -> Cluster:
    return SlurmCluster(
        cores=2,
        memory="500MB",
        environment=str(packed),
        container=str(image),
        variables={"WORD": "said"},
        limits=SOON,
        **more,
    )


def test_a_slurm_jobs_worker_runs_in_the_image(
    slurm: SlurmPool, packed: Path, image: Path, nodes: Path
) -> None:
    with cluster_in(image, packed) as cluster:
        cluster.scale(2)
        with gv.Manager(cluster=cluster) as manager:
            await_connected(cluster, 2)
            seen = delayed(look)(MARK).compute(scheduler=manager.get)
            total, expected = graph(200)
            assert total.compute(scheduler=manager.get) == expected
            cores = manager.stats.total_cores
    assert (seen["mark"], seen["host"], seen["word"]) == (TEXT, False, "said")
    assert seen["scratch"].startswith(str(nodes))
    assert seen["module"].startswith(seen["scratch"])
    assert cores == 4
    await_true(lambda: not started_by(slurm), "no process is left")


def test_a_worker_in_the_image_hears_that_its_job_is_to_end(
    slurm: SlurmPool, packed: Path, image: Path, tmp_path: Path
) -> None:
    """The running task ends, and its result arrives: the signal has come as far as the worker."""
    os.mkfifo(tmp_path / "told")
    with cluster_in(image, packed) as cluster:
        cluster.scale(1)
        with gv.Manager(cluster=cluster) as manager:
            (job,) = await_connected(cluster, 1)
            begun = tmp_path / "begun"
            future = manager.compute(delayed(hold)(str(begun), str(tmp_path / "told")))
            await_true(begun.exists, "it runs")
            # To the script alone, as at the end of the wall time.
            slurm.run("scancel", "--signal=TERM", "--batch", job)
            await_true(lambda: "leaving within" in Slurm().output(job), "it has heard")
            (tmp_path / "told").write_text("go on")
            assert future.result(60) == 7
