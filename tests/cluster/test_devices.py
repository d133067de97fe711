"""GPUs that real batch systems hand out: jobs get names, and tasks the same. (No device is behind them.)"""

from __future__ import annotations

import os
from pathlib import Path

import dask
import pytest
from dask import delayed
from tests.cluster.htcondor_pool import Pool
from tests.cluster.slurm_pool import SlurmPool
from tests.cluster.test_htcondor_cluster import run
from tests.cluster.test_slurm_workers import SOON, await_connected

import graphvine as gv
from graphvine.deploy.cluster import SlurmCluster


def test_slurms(slurm: SlurmPool, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    # What is set where jobs are submitted is nothing that they are given.
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with SlurmCluster(cores=2, memory="300MB", gpus=1, environment=str(packed), limits=SOON) as cluster:
        cluster.scale(1)
        with gv.Manager(cluster=cluster) as manager:
            await_connected(cluster, 1)
            with dask.annotate(resources={"gpus": 1}):
                with_one = delayed(os.getenv)("CUDA_VISIBLE_DEVICES", dask_key_name="with")
            without = delayed(os.getenv)("CUDA_VISIBLE_DEVICES", dask_key_name="without")
            seen = dask.compute(with_one, without, scheduler=manager.get, optimize_graph=False)
    assert seen == ("0", "-1")


IN_HTCONDOR = """
def names(number, **resources):
    with dask.annotate(resources=resources):
        ask = delayed(os.getenv)
        asked = [ask("CUDA_VISIBLE_DEVICES", dask_key_name=f"t{number}-{i}") for i in range(10)]
    return sorted(set(dask.compute(*asked, scheduler=m.get, optimize_graph=False)))

with gv.HTCondorCluster(
    cores=2, memory="300MB", disk="1GB", gpus=2, environment=ARCHIVE, limits=SOON
) as cluster:
    cluster.scale(1)
    with gv.Manager(cluster=cluster) as m:
        wait_for(cluster, connected(1))
        tell(none=names(0), one=names(1, gpus=1), two=names(2, gpus=2))
"""


def test_htcondors(htcondor: Pool) -> None:
    told = run(htcondor, IN_HTCONDOR)
    assert told["none"] == ["-1"]
    assert set(told["one"]) <= {"GPU-11111111", "GPU-22222222"}
    assert told["two"] == ["GPU-11111111,GPU-22222222"]
