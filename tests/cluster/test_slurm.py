"""Slurm as a batch system: what becomes of jobs, for real. What the jobs run here is no worker, but a script
that does as it is told, so that each state is reached at will."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.cluster.slurm_jobs import Jobs, is_over, runs
from tests.cluster.slurm_pool import NODES, SlurmPool, await_true

from graphvine.deploy import slurm as slurm_module
from graphvine.deploy.batch import JobState
from graphvine.deploy.errors import BatchCommandError, DeployError
from graphvine.deploy.slurm import Slurm
from graphvine.deploy.spec import make_spec


@pytest.fixture
def jobs(slurm: SlurmPool, tmp_path: Path) -> Jobs:
    return Jobs(tmp_path)


@pytest.fixture(autouse=True)
def early(long_jobs: object) -> None:
    """They begin before anything else does."""


def test_many_workers_are_one_submission(slurm: SlurmPool, jobs: Jobs) -> None:
    submission = jobs.submit("wait", NODES, cores=4)
    assert submission.jobs == tuple(f"{submission.jobs[0].partition('_')[0]}_{i}" for i in range(NODES))
    told = jobs.wait(submission.jobs, runs)
    assert [status.job for status in told] == list(submission.jobs)
    assert {status.host for status in told} == {"n1", "n2", "n3", "n4"}
    jobs.await_start(submission.jobs)
    jobs.system.cancel(submission.jobs)
    jobs.wait(submission.jobs, is_over)


def test_more_than_an_array_may_hold(slurm: SlurmPool, jobs: Jobs) -> None:
    submission = jobs.submit("0", 130, memory=10, cores=1, queue="short")
    assert len(set(submission.jobs)) == 130
    assert len({job.partition("_")[0] for job in submission.jobs}) == 2
    jobs.system.cancel(submission.jobs)
    jobs.wait(submission.jobs, is_over)


def test_how_jobs_end(jobs: Jobs) -> None:
    ends = {do: jobs.submit(do).jobs[0] for do in ("0", "3", "kill")}
    told = dict(zip(ends, jobs.wait(list(ends.values()), is_over), strict=True))
    assert told["0"].state is told["3"].state is JobState.FINISHED
    assert (told["0"].exit_code, told["0"].reason) == (0, "")
    assert (told["3"].exit_code, told["3"].reason) == (3, "exit code 3")
    assert told["kill"].exit_code == 137, "the job's shell passes it on"
    # Another process that asks hears the same.
    assert Slurm().status(list(ends.values())) == list(told.values())


def test_cancelled_while_it_runs_and_before(jobs: Jobs) -> None:
    submission = jobs.submit("wait", NODES + 2, cores=4)
    running, waiting = submission.jobs[:NODES], submission.jobs[NODES:]
    jobs.await_start(running)
    assert {status.reason.partition(" ")[0] for status in jobs.system.status(waiting)} <= {
        "Resources",
        "Priority",
    }
    jobs.system.cancel(submission.jobs)
    told = jobs.wait(submission.jobs, is_over)
    assert {status.state for status in told} == {JobState.REMOVED}
    assert "told to end" in jobs.system.output(running[0])
    jobs.system.cancel(submission.jobs)  # nothing to do, and no error


def test_held_and_released(slurm: SlurmPool, jobs: Jobs) -> None:
    job = jobs.submit("wait", directives=["--hold"]).jobs
    told = jobs.wait(job, lambda status: status.state is JobState.HELD)
    assert told[0].reason == "JobHeldUser (held by its user)"
    slurm.run("scontrol", "release", job[0])
    jobs.wait(job, runs)
    jobs.system.cancel(job)
    jobs.wait(job, is_over)


def test_requeued(slurm: SlurmPool, jobs: Jobs) -> None:
    job = jobs.submit("wait").jobs
    jobs.await_start(job)
    slurm.run("scontrol", "requeue", job[0])
    told = jobs.wait(job, lambda status: status.state is JobState.PENDING)
    assert told[0].reason
    await_true(lambda: slurm.run("squeue", "-h", "-j", job[0], "-o", "%T").strip() == "PENDING", "it is back")
    # Slurm itself waits two minutes: in the very second in which it was killed a job can't start.
    slurm.run("scontrol", "update", f"JobId={job[0]}", "StartTime=now+2")
    jobs.wait(job, runs)
    await_true(lambda: jobs.system.output(job[0]).count("started as") == 2, "both starts are in its output")
    jobs.system.cancel(job)
    jobs.wait(job, is_over)


def test_all_that_is_asked_for(slurm: SlurmPool, jobs: Jobs) -> None:
    job = jobs.submit(
        "wait",
        cores=3,
        memory="1GB",
        disk="2GB",
        gpus=1,
        wall_time="5m",
        queue="short",
        requirements="odd",
        name="analysis",
        directives="--comment='said by the user'",
    ).jobs
    jobs.wait(job, runs)
    told = slurm.run("scontrol", "--oneliner", "show", "job", job[0])
    for field in (
        "JobName=analysis",
        "NumCPUs=3",
        "MinMemoryNode=1G",
        "MinTmpDiskNode=2G",
        "TresPerNode=gres:gpu:1",
        "TimeLimit=00:05:00",
        "Partition=short",
        "Features=odd",
        "Comment=said by the user",
        "Requeue=1",
    ):
        assert field in told
    jobs.system.cancel(job)
    jobs.wait(job, is_over)


def test_what_can_never_run_says_why(jobs: Jobs) -> None:
    job = jobs.submit("0", queue="short", wall_time="1h").jobs
    told = jobs.wait(job, lambda status: status.reason.startswith("PartitionTimeLimit"))
    assert told[0].state is JobState.PENDING
    assert told[0].reason.endswith("(the partition does not allow so much wall time)")
    jobs.system.cancel(job)
    jobs.wait(job, is_over)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"queue": "nowhere"}, "invalid partition specified: nowhere"),
        ({"disk": "10TB"}, r"asked for as --tmp=10485760M, .* leave disk out there"),
        ({"directives": ["--nonsense=1"]}, "unrecognized option '--nonsense=1'"),
    ],
)
def test_what_slurm_refuses(jobs: Jobs, more: dict[str, object], complaint: str) -> None:
    with pytest.raises(DeployError, match=complaint):
        jobs.submit("0", **more)


def test_jobs_that_nobody_knows(jobs: Jobs) -> None:
    known = jobs.submit("0").jobs
    jobs.wait(known, is_over)
    told = jobs.system.status(["4000_1", *known, "4001_0"])
    assert [status.state for status in told] == [JobState.GONE, JobState.FINISHED, JobState.GONE]
    assert jobs.system.output("4000_1") == ""
    jobs.system.cancel(["4000_1"])


def test_nobody_else_can_read_the_secret(slurm: SlurmPool, jobs: Jobs) -> None:
    submission = jobs.submit("wait")
    jobs.wait(submission.jobs, runs)
    directory = Path(submission.directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "connection.json").stat().st_mode) == 0o600
    for text in (
        (directory / "job.sh").read_text(),
        slurm.run("scontrol", "show", "job", submission.jobs[0]),
        slurm.run("scontrol", "write", "batch_script", submission.jobs[0], "-"),
        jobs.system.output(submission.jobs[0]),
    ):
        assert "the secret" not in text
    jobs.system.cancel(submission.jobs)
    jobs.wait(submission.jobs, is_over)


def test_nodes_that_share_nothing(slurm: SlurmPool, jobs: Jobs, tmp_path: Path) -> None:
    """The script carries the connection; the job's own disk has it while it runs, and for its owner only."""
    system = jobs.system = Slurm(shared=False)
    submission = system.submit(jobs.spec("wait"), 1, jobs.directory())
    jobs.wait(submission.jobs, runs)
    script = slurm.run("scontrol", "write", "batch_script", submission.jobs[0], "-")
    assert "the secret" in script
    output = Path(f"/tmp/graphvine-{submission.jobs[0]}.out")
    await_true(lambda: output.exists() and "graphvine-connection.json" in output.read_text(), "it has begun")
    written = Path(output.read_text().split("--connection-file ")[1].split()[0])
    assert written.read_text() == "the secret\n"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert system.output(submission.jobs[0]) == ""
    system.cancel(submission.jobs)
    jobs.wait(submission.jobs, is_over)
    assert not written.parent.exists()
    output.unlink()
    spec = make_spec(environment="/some/env.tar.gz", connection_file=str(jobs.connection))
    with pytest.raises(DeployError, match="can't bring archive"):
        system.submit(spec, 1, jobs.directory())


def test_a_submission_whose_answer_was_lost_is_found(
    slurm: SlurmPool, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "bin" / "sbatch"
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\nPATH={os.environ["PATH"]} sbatch "$@" >/dev/null\n'
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\n"
        "exit 1\n"
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    jobs.directory()  # the name of the next one needs quotes
    submission = jobs.submit("wait", 2)
    assert len(slurm.jobs()) == 2
    jobs.wait(submission.jobs, runs)
    jobs.system.cancel(submission.jobs)
    jobs.wait(submission.jobs, is_over)


def test_no_controller(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        "ClusterName=none\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=9\nAuthType=auth/none\n"
        "PlugStackConfig=/dev/null\nMessageTimeout=2\nNodeName=x\nPartitionName=y Nodes=x\n"
    )
    with monkeypatch.context() as patch:
        patch.setenv("SLURM_CONF", str(conf))
        with pytest.raises(BatchCommandError, match="squeue failed"):
            jobs.system.status(["1_0"])


def test_no_slurm(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        with pytest.raises(DeployError, match="can't run sbatch: No such file or directory"):
            jobs.submit("0")


def test_an_array_that_is_refused_takes_the_others_with_it(
    slurm: SlurmPool, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = slurm_module.run_command
    calls = []

    def second_fails(command: Sequence[str], **more: object) -> str:
        calls.append(command)
        if command[0] == "sbatch" and len([c for c in calls if c[0] == "sbatch"]) == 2:
            raise BatchCommandError("sbatch failed with exit code 1: too many jobs", "too many jobs")
        return submitted(command, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(slurm_module, "run_command", second_fails)
    with pytest.raises(BatchCommandError, match="too many jobs"):
        jobs.submit("wait", 102, memory=10)
    await_true(lambda: not slurm.jobs(), "the first array is gone")
