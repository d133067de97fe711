"""HTCondor as a batch system: what becomes of jobs, for real.

What these jobs run is no worker, but a script that does as it is told, so that each state is reached at will.
All of it is called in a process of the user's, as the schedd takes no jobs from root.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cluster.htcondor_pool import Pool
from tests.cluster.packing import copy_distribution

from graphvine.deploy.batch import JobState, JobStatus, Submission
from graphvine.deploy.errors import DeployError

DRIVER = Path(__file__).with_name("htcondor_driver.py")
WITHIN_S = 90.0

#: In place of a Python with graphvine: tells what it was given, then does what its variable DO says.
PYTHON = """\
#!/bin/sh
[ "$1" != -S ] || exit 0
echo "started as $*"
ls -l "$_CONDOR_SCRATCH_DIR"
case $DO in
wait) trap 'echo told to end; exit 7' TERM; while :; do sleep 1 & wait $!; done ;;
kill) kill -KILL $$ ;;
*) exit "$DO" ;;
esac
"""


class Jobs:
    """Submits such jobs, and waits for what becomes of them."""

    def __init__(self, pool: Pool, directory: Path, **variables: str) -> None:
        self.pool = pool
        self._directory = directory
        directory.mkdir()
        (directory / "python").write_text(PYTHON)
        (directory / "python").chmod(0o755)
        (directory / "manager.json").write_text("the secret")
        (directory / "manager.json").chmod(0o600)
        shutil.copy(DRIVER, directory / "driver.py")
        pool.give(directory)
        self._count = 0
        self._process = pool.spawn(
            [str(pool.python), str(directory / "driver.py")],
            variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.call("make")

    def close(self) -> None:
        assert self._process.stdin is not None
        with self._process:
            self._process.stdin.close()

    def call(self, method: str, system: str = "", **arguments: object) -> Any:
        """The result. Raises DeployError as the call there did."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([system, method, arguments]).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise DeployError(answer["error"])
        return answer["result"]

    def submit(self, do: str, count: int = 1, system: str = "", **more: object) -> Submission:
        self._count += 1
        space = "_" if system == "spooling" else " "
        told = {
            "directory": str(self._directory / f"submission{space}{self._count}"),
            "count": count,
            "connection_file": str(self._directory / "manager.json"),
            "python": str(self._directory / "python"),
            "variables": {"DO": do},
            "memory": 100,
            "disk": 100,
        }
        return msgspec.convert(self.call("submit", system, **{**told, **more}), Submission)

    def status(self, jobs: Sequence[str], system: str = "") -> list[JobStatus]:
        return msgspec.convert(self.call("status", system, jobs=list(jobs)), list[JobStatus])

    def wait(
        self, jobs: Sequence[str], until: Callable[[JobStatus], bool], system: str = ""
    ) -> list[JobStatus]:
        """Until that is true of all of them."""
        deadline = time.monotonic() + WITHIN_S
        while not all(map(until, told := self.status(jobs, system))):
            assert time.monotonic() < deadline, f"in vain: {told}\n{self.pool.logs()}"
            time.sleep(0.1)
        return told

    def run(self, do: str, count: int = 1, **more: object) -> Submission:
        """Submitted, and all of them running."""
        submission = self.submit(do, count, **more)
        self.wait(submission.jobs, is_in(JobState.RUNNING))
        return submission


def is_in(*states: JobState) -> Callable[[JobStatus], bool]:
    return lambda told: told.state in states


@pytest.fixture
def jobs(htcondor: Pool, tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(htcondor, htcondor.home / tmp_path.name)
    try:
        yield jobs
    finally:
        left = htcondor.jobs()
        if left:
            jobs.call("cancel", jobs=left)
            jobs.wait(left, lambda told: told.state.is_over)
        jobs.close()


def test_many_jobs_are_one_submission_and_each_ends_as_it_does(jobs: Jobs) -> None:
    ended = jobs.submit("3", 3)
    killed = jobs.submit("kill")
    cluster = ended.jobs[0].partition(".")[0]
    assert ended.jobs == tuple(f"{cluster}.{proc}" for proc in range(3))
    for told in jobs.wait(ended.jobs, is_in(JobState.FINISHED)):
        assert (told.exit_code, bool(told.host)) == (3, True)
    assert jobs.wait(killed.jobs, is_in(JobState.FINISHED))[0].exit_code == -9


def test_what_a_job_says_comes_back_and_what_it_brings_arrives(jobs: Jobs) -> None:
    job = jobs.submit("0", cores=2, wall_time="1h", features=["big"]).jobs[0]
    jobs.wait([job], is_in(JobState.FINISHED))
    said = jobs.call("output", job=job)
    assert "started as -m graphvine.worker --connection-file " in said
    for words in (f"--job {job}", "--cores 2", "--memory 100", "--disk 100", "--feature big"):
        assert words in said
    # The secret is its owner's alone there, too.
    line = next(line for line in said.splitlines() if line.endswith("connection.json") and "-rw" in line)
    assert line.startswith("-rw-------")


def test_a_job_is_heard_while_it_runs_and_told_to_end_before_it_is_ended(jobs: Jobs) -> None:
    job = jobs.run("wait").jobs[0]
    deadline = time.monotonic() + WITHIN_S
    while "started as" not in jobs.call("output", job=job):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    jobs.call("cancel", jobs=[job])
    told = jobs.wait([job], lambda told: told.state.is_over)[0]
    assert told.state is JobState.REMOVED
    assert "via condor_rm" in told.reason
    assert "told to end" in jobs.call("output", job=job)
    # Once more is no mistake.
    jobs.call("cancel", jobs=[job])


def test_held_released_and_removed(jobs: Jobs) -> None:
    held, removed = jobs.run("wait", 2).jobs
    jobs.pool.run(["condor_hold", held])
    jobs.pool.run(["condor_rm", "-reason", "somebody did not like it", removed])
    told = jobs.wait([held], is_in(JobState.HELD))[0]
    assert "via condor_hold" in told.reason
    told = jobs.wait([removed], is_in(JobState.REMOVED))[0]
    assert "somebody did not like it" in told.reason
    jobs.pool.run(["condor_release", held])
    jobs.wait([held], is_in(JobState.RUNNING))


def test_an_evicted_job_waits_and_runs_again(jobs: Jobs) -> None:
    job = jobs.run("wait").jobs[0]
    jobs.pool.run(["condor_vacate_job", job])
    deadline = time.monotonic() + WITHIN_S
    log = next(iter((jobs.pool.home).rglob(f"*/output/{job}.err"))).parents[1] / "jobs.log"
    while log.read_text().count("Job executing on host") < 2:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    assert "Job was evicted" in log.read_text()
    jobs.wait([job], is_in(JobState.RUNNING))


def test_the_pools_own_rules_are_told(jobs: Jobs) -> None:
    rule = "periodic_remove = JobStatus == 2 && time() - JobCurrentStartDate > 1"
    job = jobs.submit("wait", directives=[rule]).jobs[0]
    told = jobs.wait([job], is_in(JobState.REMOVED))[0]
    assert "PeriodicRemove" in told.reason


def test_another_process_can_ask_too(jobs: Jobs) -> None:
    waiting = jobs.run("wait").jobs[0]
    ended = jobs.submit("3").jobs[0]
    jobs.wait([ended], is_in(JobState.FINISHED))
    jobs.call("make", "another")
    told = {one.job: one for one in jobs.status([waiting, ended, "99999.0"], "another")}
    assert told[waiting].state is JobState.RUNNING
    assert (told[ended].state, told[ended].exit_code) == (JobState.FINISHED, 3)
    assert told["99999.0"].state is JobState.GONE
    assert jobs.call("output", "another", job=waiting) == ""


def test_why_a_job_does_not_start(jobs: Jobs) -> None:
    job = jobs.submit("0", memory="900GB").jobs[0]
    deadline = time.monotonic() + WITHIN_S
    while "TARGET.Memory >= RequestMemory" not in (why := jobs.call("explain", job=job)):
        assert time.monotonic() < deadline, why
        time.sleep(0.2)
    assert "no node meets TARGET.Memory >= RequestMemory" in why
    assert jobs.status([job])[0].state is JobState.PENDING


def test_what_jobs_say_comes_back_from_a_schedd_that_keeps_it(jobs: Jobs) -> None:
    jobs.call("make", "spooling", spool=True, schedd=jobs.pool.schedd())
    job = jobs.submit("5", system="spooling").jobs[0]
    told = jobs.wait([job], is_in(JobState.FINISHED), "spooling")[0]
    assert told.exit_code == 5
    assert f"--job {job}" in jobs.call("output", "spooling", job=job)
    jobs.pool.await_empty()


def test_where_there_are_no_tools_the_bindings_will_do(htcondor: Pool, tmp_path: Path) -> None:
    if importlib.util.find_spec("htcondor2") is None:
        pytest.skip("needs HTCondor's Python bindings: pip install htcondor")
    home = htcondor.home / tmp_path.name
    packages = home.with_name("bindings")
    copy_distribution("htcondor", packages)
    htcondor.give(packages)
    jobs = Jobs(htcondor, home, PATH="/usr/bin:/bin", PYTHONPATH=str(packages))
    try:
        ended, removed = jobs.submit("3").jobs[0], jobs.submit("wait").jobs[0]
        jobs.wait([removed], is_in(JobState.RUNNING))
        assert jobs.wait([ended], is_in(JobState.FINISHED))[0].exit_code == 3
        assert f"--job {ended}" in jobs.call("output", job=ended)
        jobs.call("make", "another")
        told = {one.job: one.state for one in jobs.status([ended, removed], "another")}
        assert told == {ended: JobState.FINISHED, removed: JobState.RUNNING}
        jobs.call("cancel", jobs=[removed])
        jobs.call("cancel", jobs=[removed])
        assert "via condor_rm" in jobs.wait([removed], is_in(JobState.REMOVED))[0].reason
        with pytest.raises(DeployError, match=r"condor_submit: .*Parse error"):
            jobs.submit("0", requirements="this is no expression (")
        jobs.call("make", "spooling", spool=True, schedd=htcondor.schedd())
        spooled = jobs.submit("5", system="spooling").jobs[0]
        jobs.wait([spooled], is_in(JobState.FINISHED), "spooling")
        assert f"--job {spooled}" in jobs.call("output", "spooling", job=spooled)
        htcondor.await_empty()
    finally:
        jobs.close()


def test_tools_under_a_prefix(jobs: Jobs) -> None:
    jobs.call("make", "elsewhere", tools=str(jobs.pool.bin), config=jobs.pool.variables["CONDOR_CONFIG"])
    job = jobs.submit("0", system="elsewhere").jobs[0]
    jobs.wait([job], is_in(JobState.FINISHED), "elsewhere")


def test_what_htcondor_refuses_is_told_in_its_own_words(jobs: Jobs) -> None:
    with pytest.raises(DeployError, match=r"(?s)condor_submit failed with exit code 1: .*Requirements = "):
        jobs.submit("0", requirements="this is no expression (")
    jobs.call("make", "nowhere", tools="/no/such/directory")
    with pytest.raises(DeployError, match="name the directory of HTCondor's tools"):
        jobs.submit("0", system="nowhere")
    assert jobs.pool.jobs() == []
