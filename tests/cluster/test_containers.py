"""Workers in containers, by a real Apptainer, in jobs of real batch systems: Slurm's, where the script starts
it, and HTCondor's, which does that itself, or has the script do it.

The image has a shell and no Python: a worker that runs in it has come there with what the job brought."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask import delayed
from tests.cluster import install_apptainer
from tests.cluster.graphs import graph, hold, look
from tests.cluster.htcondor_pool import Pool
from tests.cluster.image import MARK, build_image
from tests.cluster.slurm_pool import SlurmPool, await_true
from tests.cluster.test_htcondor_cluster import run
from tests.cluster.test_slurm_workers import SOON, await_connected, started_by

import graphvine as gv
from graphvine.deploy.cluster import Cluster, SlurmCluster
from graphvine.deploy.slurm import Slurm

TEXT = "this is the image"


@pytest.fixture(scope="session")
def apptainer() -> Path:
    program = install_apptainer.program()
    if program is None:
        pytest.skip("there is no Apptainer here: python tests/cluster/install_apptainer.py")
    return program


@pytest.fixture(scope="session")
def image(apptainer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_image(apptainer, tmp_path_factory.mktemp("image") / "an image", TEXT)


@pytest.fixture
def nodes(apptainer: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nodes that have Apptainer, and keep what jobs write in one place; its path. Where root has not all of
    root's powers, which Apptainer wants to hand to its containers, they go without."""
    monkeypatch.setenv("PATH", str(apptainer.parent), prepend=os.pathsep)
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
    slurm: SlurmPool, packed: Path, image: Path, nodes: Path, tmp_path: Path
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


#: Of a container of HTCondor's own only the job's scratch directory is seen outside.
IN_HTCONDOR = """
import glob

def look(mark):
    import graphvine
    with open("/" + mark) as file:
        return file.read(), os.path.exists("/usr/bin"), graphvine.__file__, os.environ["TMPDIR"]

def hold():
    told = os.path.join(os.environ["TMPDIR"], "told")
    os.mkfifo(told + ".new")
    os.rename(told + ".new", told)
    with open(told) as file:
        return file.read()

def await_true(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, (said, os.path.exists(said) and open(said).read())
        time.sleep(0.1)

def heard(path):
    return os.path.exists(path) and "leaving within" in open(path).read()

options = json.loads(os.environ["OPTIONS"])
with gv.HTCondorCluster(
    cores=2, memory="500MB", disk="1GB", environment=ARCHIVE, container=os.environ["IMAGE"], limits=SOON,
    **options,
) as cluster:
    cluster.scale(1)
    with gv.Manager(cluster=cluster) as m:
        (job,) = [one.job for one in wait_for(cluster, connected(1)).jobs]
        seen = delayed(look)(os.environ["MARK"]).compute(scheduler=m.get)
        cores = m.stats.total_cores
        asked = ["condor_q", job, "-af", "Err"]
        said = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
        held = m.compute(delayed(hold)())
        pipes = os.path.join(os.environ["HOME"], "execute", "*", "told")
        await_true(lambda: glob.glob(pipes))
        (pipe,) = glob.glob(pipes)
        subprocess.run(["condor_vacate_job", job], check=True, stdout=subprocess.DEVNULL)
        await_true(lambda: heard(said))
        with open(pipe, "w") as file:
            file.write("the same process")
        tell(seen=seen, cores=cores, held=held.result(60), said=open(said).read())
"""


@pytest.mark.parametrize("by", ["htcondor", "script"])
def test_an_htcondor_jobs_worker_runs_in_the_image(htcondor: Pool, apptainer: Path, by: str) -> None:
    """What it holds when its job is evicted is its own result: the signal has come as far as the worker."""
    image = htcondor.home / f"an_image_for_{by}"
    htcondor.give(build_image(apptainer, image, TEXT))
    # As on CVMFS: nodes have it.
    options: dict[str, Any] = {"directives": ["transfer_container = False"]}
    if by == "script":
        path = f"PATH={apptainer.parent}:/usr/bin:/bin"
        job = "GRAPHVINE_JOB=$(ClusterId).$(ProcId)"
        options = {"containers": False, "directives": [f'environment = "{job} {path}"']}
    told = run(htcondor, IN_HTCONDOR, IMAGE=f"{image}/", MARK=MARK, OPTIONS=json.dumps(options))
    text, host, module, scratch = told["seen"]
    assert (text, host, told["cores"]) == (TEXT, False, 2)
    assert scratch.startswith(str(htcondor.home / "execute"))
    assert module.startswith(scratch)
    assert told["held"] == "the same process"
    # The pool waits for 20 s.
    assert "leaving within 15 s" in told["said"]
