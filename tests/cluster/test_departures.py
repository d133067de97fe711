"""Workers that a real Slurm tells to end: what they hold and what they run is not lost."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from dask.delayed import Delayed
from tests.cluster.slurm_pool import SlurmPool, await_true

import graphvine
from graphvine.deploy.cluster import SlurmCluster
from graphvine.deploy.fleet import Limits
from graphvine.manager.manager import Manager

SOON = Limits(ask_s=0.3, ask_most_s=1.0, ask_calm_s=1.0, first_wait_s=0.5)
LARGE = 100_000


def make(directory: str, number: int) -> Any:
    """A large value; how often it was made can be seen."""
    with open(Path(directory, str(number)), "a") as mark:
        mark.write("x")
    return numpy.full(LARGE, number)


def make_when_told(directory: str, number: int) -> Any:
    with open(Path(directory, "begun"), "a") as mark:
        mark.write("x")
    while not Path(directory, "go on").exists():
        threading.Event().wait(0.01)
    return make(directory, number)


@pytest.fixture
def cluster(slurm: SlurmPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    monkeypatch.setenv("GRAPHVINE_STATE", str(tmp_path / "state"))
    source = str(Path(graphvine.__file__).parents[1])
    with SlurmCluster(
        cores=1,
        memory="500MB",
        python=sys.executable,
        variables={"PYTHONPATH": source},
        scratch_dir=tmp_path / "jobs",
        limits=SOON,
    ) as made:
        yield made


def said(directory: Path) -> str:
    """All that jobs said."""
    return "".join(path.read_text(errors="replace") for path in directory.rglob("*") if path.is_file())


def connected(cluster: SlurmCluster) -> list[str]:
    return [job.job for job in cluster.status().jobs if job.state == "connected"]


def test_a_cancelled_job_hands_over_what_it_holds_and_ends_what_it_runs(
    slurm: SlurmPool, cluster: SlurmCluster, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    cluster.scale(1)
    with Manager(cluster=cluster) as manager:
        await_true(lambda: connected(cluster), "a worker", within_s=60)
        (first,) = connected(cluster)
        kept = [manager.persist(Delayed("a", {"a": (make, str(marks), number)})) for number in range(4)]
        assert [int(value.compute(scheduler=manager.get)[0]) for value in kept] == list(range(4))
        running = manager.compute(Delayed("slow", {"slow": (make_when_told, str(marks), 4)}))
        await_true((marks / "begun").exists, "the task has begun")
        cluster.scale(2)
        await_true(lambda: len(connected(cluster)) == 2, "another worker", within_s=60)
        slurm.run("scancel", first)
        await_true(lambda: "leaving within" in said(tmp_path / "jobs"), "it leaves")
        (marks / "go on").touch()
        assert int(running.result(60)[0]) == 4
        await_true(lambda: first not in connected(cluster), "it has left", within_s=60)
        assert [int(value.compute(scheduler=manager.get)[0]) for value in kept] == list(range(4))
    assert {path.name: path.read_text() for path in marks.iterdir() if path.name.isdigit()} == {
        str(number): "x" for number in range(5)
    }, "each was made once"
    assert (marks / "begun").read_text() == "x", "the signal went to its process, too"
