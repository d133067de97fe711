"""Workers as Slurm jobs, for real: from a packed environment, with graphs that run while jobs come and go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from dask import delayed
from tests.cluster.graphs import graph, mark, where
from tests.cluster.slurm_jobs import Jobs, is_over
from tests.cluster.slurm_pool import SlurmPool, await_true

import graphvine as gv
from graphvine.deploy.batch import JobState
from graphvine.deploy.cluster import Cluster, SlurmCluster, TemplateCluster
from graphvine.deploy.fleet import Limits

SOON = Limits(ask_s=0.3, ask_most_s=1.0, ask_calm_s=1.0, first_wait_s=0.5)

#: Slurm once more, as somebody might describe it who has nothing but templates.
TEMPLATE = r"""
{
  "name": "slurm by template",
  "naming": "(?P<array>\\d+)_(?P<index>\\d+)",
  "job_id": "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}",
  "prefix": "#SBATCH ",
  "job": "#!/bin/sh\n#SBATCH --mem={{memory_mb}}\n#SBATCH --cpus-per-task={{cores}}\n{{body}}",
  "submit": {
    "command": ["sbatch", "--array={{first}}-{{last}}", "--output=/dev/null", "{{file}}"],
    "id": "Submitted batch job (?P<array>\\d+)",
    "each": "{{array}}_{{index}}"
  },
  "cancel": {"command": ["scancel", "{{jobs}}"], "harmless": "Invalid job id|already completing"},
  "status": [
    {
      "command": ["squeue", "-h", "-r", "-t", "all", "-j", "{{array}}", "-o", "%i %T %r"],
      "harmless": "Invalid job id",
      "job": "{{id}}",
      "fields": {"id": "^(\\S+)", "state": "^\\S+ (\\w+)", "reason": "^\\S+ \\w+ (.+)"}
    }
  ],
  "states": {"PENDING": "pending", "COMPLETED|FAILED": "finished", "CANCELLED": "removed"}
}
"""


def connected(cluster: Cluster) -> list[str]:
    return sorted(job.job for job in cluster.status().jobs if job.state == "connected")


def await_connected(cluster: Cluster, count: int) -> list[str]:
    try:
        await_true(lambda: len(connected(cluster)) >= count, f"{count} workers", within_s=60)
    except RuntimeError as error:
        raise AssertionError(f"{error}: {cluster.status()}") from error
    return connected(cluster)


def started_by(pool: SlurmPool) -> list[str]:
    """What runs in the jobs of a test."""
    found = []
    for process in psutil.process_iter():
        try:
            variables, command = process.environ(), process.cmdline()
        except psutil.Error:
            continue
        job = f"{variables.get('SLURM_ARRAY_JOB_ID')}_{variables.get('SLURM_ARRAY_TASK_ID')}"
        if variables.get("SLURM_CONF") == str(pool.configuration) and job not in {*pool.kept, "None_None"}:
            found.append(" ".join(command))
    return found


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs make their scratch directories."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


@pytest.fixture(autouse=True)
def nothing_left(
    slurm: SlurmPool, tmp_path: Path, scratch: Path, request: pytest.FixtureRequest
) -> Iterator[None]:
    """No process of a job, no scratch directory, no connection file."""
    yield
    try:
        await_true(lambda: not started_by(slurm), "no process of a job is left")
    except RuntimeError as error:
        raise AssertionError(f"{error}: {started_by(slurm)}") from error
    # On a busy machine Slurm does not wait for so long as it takes to remove 31,000 files: the next job does
    # it.
    assert "packed_analysis" in request.fixturenames or list(scratch.iterdir()) == []
    assert list((tmp_path / "state").glob("*")) == []


def test_a_graph_of_two_thousand_tasks_from_a_packed_environment(
    slurm: SlurmPool, packed: Path, node_cache: Path
) -> None:
    with SlurmCluster(
        cores=2,
        memory="500MB",
        disk="1GB",
        environment=str(packed),
        variables={"WORD": "said"},
        limits=SOON,
    ) as cluster:
        cluster.scale(3)
        with gv.Manager(cluster=cluster) as manager:
            jobs = await_connected(cluster, 3)
            assert len({job.partition("_")[0] for job in jobs}) == 1, "one submission"
            total, expected = graph(2000)
            assert total.compute(scheduler=manager.get) == expected
            places = dask.compute(*[delayed(where)(i) for i in range(60)], scheduler=manager.get)
            # Four nodes, but one disk: one unpacked copy is enough for all of them.
            assert len({prefix for prefix, *_ in places}) == 1
            for prefix, module, path, word in places:
                assert prefix.startswith(str(node_cache))
                assert module.startswith(prefix)
                assert (path, word) == ("", "said")
    assert slurm.jobs() == []


def test_jobs_come_and_go(slurm: SlurmPool, packed: Path) -> None:
    """Cancelled, requeued and held ones cost no result, and are replaced, or come back."""
    with SlurmCluster(cores=1, memory="300MB", environment=str(packed), limits=SOON) as cluster:
        cluster.scale(4)
        with gv.Manager(cluster=cluster) as manager:
            first = await_connected(cluster, 4)
            total, expected = graph(2000, 0.01)
            future = manager.compute(total)
            slurm.run("scancel", first[0], first[1])
            slurm.run("scontrol", "requeue", first[2])
            await_true(lambda: "PENDING" in slurm.run("squeue", "-h", "-j", first[2], "-o", "%T"), "requeued")
            slurm.run("scontrol", "hold", first[2])
            assert future.result(120) == expected
            last = await_connected(cluster, 4)
            assert first[3] in last
            assert not {first[0], first[1], first[2]} & set(last)
            assert all(job in last for job in slurm.jobs())


def test_a_requeued_job_is_a_worker_again(slurm: SlurmPool, packed: Path) -> None:
    with SlurmCluster(cores=1, memory="300MB", environment=str(packed), limits=SOON) as cluster:
        cluster.scale(1)
        with gv.Manager(cluster=cluster) as manager:
            job = await_connected(cluster, 1)
            slurm.run("scontrol", "requeue", job[0])
            await_true(lambda: "PENDING" in slurm.run("squeue", "-h", "-j", job[0], "-o", "%T"), "requeued")
            # Slurm itself waits two minutes: in the very second in which it was killed a job can't start.
            slurm.run("scontrol", "update", f"JobId={job[0]}", "StartTime=now+2")
            await_true(lambda: connected(cluster) == job, "it is back")
            total, expected = graph(40)
            assert total.compute(scheduler=manager.get) == expected


def test_running_tasks_end_when_their_job_is_cancelled(
    slurm: SlurmPool, packed: Path, tmp_path: Path
) -> None:
    """Slurm signals all processes of a job, not only the worker."""
    with SlurmCluster(cores=1, memory="300MB", environment=str(packed), limits=SOON) as cluster:
        cluster.scale(1)
        with gv.Manager(cluster=cluster) as manager:
            job = await_connected(cluster, 1)
            begun = tmp_path / "begun"
            future = manager.compute(delayed(mark)(str(begun), 2.0))
            await_true(begun.exists, "it runs")
            slurm.run("scancel", job[0])
            assert future.result(60) == 49


def test_from_a_shell(slurm: SlurmPool, packed: Path, tmp_path: Path) -> None:
    with gv.Manager(name="shell", host="127.0.0.1", local_workers=0) as manager:
        command = [sys.executable, "-m", "graphvine.cli", "submit", "slurm", "-M", "shell", "--cores", "1"]
        command += [
            "--memory",
            "300MB",
            "--environment",
            str(packed),
            "--directory",
            str(tmp_path / "jobs"),
            "3",
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        jobs = done.stdout.split()
        assert len(jobs) == 3
        assert "warning: the manager shell listens on its own machine only" in done.stderr
        assert f"  remove  scancel {jobs[0].partition('_')[0]}" in done.stderr
        total, expected = graph(200)
        assert total.compute(scheduler=manager.get) == expected
        await_true(lambda: manager.stats.workers_connected == 3, "all are there")
    await_true(lambda: not slurm.jobs(), "they end with their manager")


def test_by_a_template(slurm: SlurmPool, packed: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine.json"
    template.write_text(TEMPLATE)
    assert json.loads(TEMPLATE)
    with TemplateCluster(
        str(template), cores=1, memory="300MB", environment=str(packed), limits=SOON
    ) as cluster:
        cluster.scale(2)
        with gv.Manager(cluster=cluster) as manager:
            first = await_connected(cluster, 2)
            slurm.run("scancel", first[0])
            await_true(lambda: first[0] not in connected(cluster), "it is gone")
            await_connected(cluster, 2)
            total, expected = graph(200)
            assert total.compute(scheduler=manager.get) == expected
    await_true(lambda: not slurm.jobs(), "none is left")


def test_a_job_that_can_not_start_a_worker_says_why(
    slurm: SlurmPool, caplog: pytest.LogCaptureFixture
) -> None:
    with SlurmCluster(cores=1, memory="100MB", python="/usr/bin/false", limits=SOON) as cluster:
        cluster.scale(1)
        with gv.Manager(cluster=cluster):
            await_true(lambda: "/usr/bin/false does not start here" in caplog.text, "it is explained")


def test_an_interpreter_that_ends_leaves_no_job(slurm: SlurmPool, packed: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, graphvine as gv\n"
        "from graphvine.deploy.fleet import Limits\n"
        "limits = Limits(ask_s=0.3)\n"
        "cluster = gv.SlurmCluster(cores=1, memory='300MB', environment=sys.argv[1], limits=limits)\n"
        "cluster.scale(3)\n"
        "m = gv.Manager(cluster=cluster)\n"
        "print(sum(m.executor().map(abs, range(-5, 5))))\n"
        "raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, str(script), str(packed)], stdout=subprocess.PIPE, text=True)
    assert (done.stdout, done.returncode) == ("25\n", 3)
    await_true(lambda: not slurm.jobs(), "no job is left")


#: As a user would write it, with a file of events to be made first.
ANALYSIS = """
import json, sys
from pathlib import Path
import dask
import graphvine as gv
from analysis import planned_events, planned_histograms
from make_nanoaod import make_files

files = make_files(Path(sys.argv[1]), 3000, files=2, seed=7)
planned = planned_histograms(planned_events(files, 4))
with gv.SlurmCluster(cores=2, memory="3GB", environment=sys.argv[2]) as cluster:
    cluster.scale(2)
    with gv.Manager(cluster=cluster) as m:
        (found,) = dask.compute(planned, scheduler=m.get)
(expected,) = dask.compute(planned, scheduler="sync")
print(json.dumps([found[key] == expected[key] and bool(found[key].sum(flow=True)) for key in expected]))
"""


def test_the_coffea_example(slurm: SlurmPool, packed_analysis: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(ANALYSIS)
    example = Path(__file__).resolve().parents[2] / "examples" / "adl"
    path = os.pathsep.join([str(example), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "nano"), str(packed_analysis)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0
    same = json.loads(done.stdout.splitlines()[-1])
    assert len(same) >= 8
    assert all(same)
    # Cancelled they are; but they tidy up, which takes a while with so many files.
    await_true(lambda: not slurm.jobs(), "none is left", within_s=60)


def test_wall_time(jobs_that_ran_long: tuple[Jobs, Sequence[str]]) -> None:
    """The last one, as it takes longest."""
    jobs, names = jobs_that_ran_long
    ended, stayed = jobs.wait(names, is_over)
    assert (ended.state, ended.exit_code) == (JobState.FINISHED, 7)
    assert stayed.state is JobState.REMOVED
    assert stayed.reason == "TIMEOUT: its wall time was over"
    for job in names:
        assert "told to end" in jobs.system.output(job)


@pytest.fixture
def jobs_that_ran_long(slurm: SlurmPool, long_jobs: Any) -> tuple[Jobs, Sequence[str]]:
    return long_jobs
