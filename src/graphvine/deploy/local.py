"""Workers as processes of this machine, with the interface of a batch system.

A job is a process, named by its number, in a session of its own: Ctrl-C at the terminal is for the user's
process. It is asked to end by SIGTERM, and killed when it takes too long, as a batch system would do it.
Nobody enforces what it asks for; a worker keeps to its own limits."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from graphvine.deploy.batch import JobState, JobStatus, Submission, read_tail
from graphvine.deploy.errors import DeployError
from graphvine.deploy.inputs import around, place, planned
from graphvine.deploy.script import render_script
from graphvine.deploy.spec import WorkerSpec
from graphvine.protocol import lifelines
from graphvine.protocol.interpreter import own_environment

#: How long a worker has to end after it was asked to, where the spec does not say.
KILL_WAIT_S = 10.0
_SCRIPT = "job.sh"
#: Says to a worker which share of the machine's GPUs is its own (``worker.options``).
_PLACE = "GRAPHVINE_PLACE"


class _Job(msgspec.Struct):
    process: subprocess.Popen[bytes]
    output: Path
    scratch: Path
    grace_s: float
    place: int
    """Which share of the machine's GPUs is its own."""
    cancelled: bool = False


class Local:
    """Processes of this machine. ``bound``: each ends by itself when this process does, whatever way."""

    def __init__(self, *, bound: bool = False) -> None:
        self.name = "local"
        self._bound = bound
        self._jobs: dict[str, _Job] = {}

    def submit(self, spec: WorkerSpec, count: int, directory: Path) -> Submission:
        """Raises DeployError, and then no process is left."""
        place(spec, directory)
        script = directory / _SCRIPT
        script.write_text(self.render(spec, directory), encoding="utf-8")
        jobs: list[str] = []
        try:
            for index in range(count):
                jobs.append(self._start(spec, directory, index))
        except OSError as error:
            self.cancel(jobs)
            raise DeployError(f"can't start a worker: {error}") from error
        return Submission(tuple(jobs), str(directory))

    def preview(self, spec: WorkerSpec, count: int, directory: Path) -> str:
        """What ``submit`` would do, to be read; nothing is done. Raises DeployError."""
        return f"# sh {directory / _SCRIPT}  ({count} times)\n{self.render(spec, directory)}"

    def render(self, spec: WorkerSpec, directory: Path) -> str:
        """What each of these processes runs. Raises DeployError."""
        if not spec.python and not spec.archive:
            spec = msgspec.structs.replace(spec, python=sys.executable)
        options = [*spec.worker_options]
        options += ["--lifeline"] if self._bound else []
        options += ["--gpus", str(spec.gpus)] if spec.gpus else []
        spec = msgspec.structs.replace(spec, worker_options=tuple(options))
        # The worker takes the shell's place, and so has its number.
        return render_script(spec, around(planned(spec, directory), job="$$", scratch='"$1"'))

    def status(self, jobs: Sequence[str]) -> list[JobStatus]:
        """One for each job, in that order."""
        return [self._told(job) for job in jobs]

    def cancel(self, jobs: Sequence[str]) -> None:
        """Ask them to end, and wait for that; kill those that take too long."""
        asked = [self._jobs[job] for job in jobs if job in self._jobs]
        for job in asked:
            if job.process.poll() is None:
                job.cancelled = True
                job.process.terminate()
        began = time.monotonic()
        for job in asked:
            try:
                job.process.wait(max(0.0, began + job.grace_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            _let_go(job)

    def output(self, job: str) -> str:
        """The last lines of what it wrote."""
        return read_tail(self._jobs[job].output) if job in self._jobs else ""

    def _start(self, spec: WorkerSpec, directory: Path, index: int) -> str:
        scratch = directory / f"scratch-{index}"
        scratch.mkdir()
        output = directory / f"worker-{index}.out"
        place = self._free_place()
        with open(output, "wb") as log:
            process = subprocess.Popen(
                ["/bin/sh", str(directory / _SCRIPT), str(scratch)],
                stdin=subprocess.PIPE if self._bound else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=own_environment() | {_PLACE: str(place)},
                start_new_session=True,
            )
        if self._bound:
            lifelines.hold(process)
        grace_s = KILL_WAIT_S if spec.grace_s is None else spec.grace_s
        self._jobs[str(process.pid)] = _Job(process, output, scratch, grace_s, place)
        return str(process.pid)

    def _free_place(self) -> int:
        taken = {job.place for job in self._jobs.values() if job.process.poll() is None}
        return min(set(range(len(taken) + 1)) - taken)

    def _told(self, name: str) -> JobStatus:
        job = self._jobs.get(name)
        if job is None:
            return JobStatus(name, JobState.GONE, "no process of this one's")
        code = job.process.poll()
        if code is None:
            return JobStatus(name, JobState.RUNNING, host="localhost")
        _let_go(job)
        if job.cancelled:
            return JobStatus(name, JobState.REMOVED, "cancelled", code, "localhost")
        why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" if code else ""
        return JobStatus(name, JobState.FINISHED, why, code, "localhost")


def _let_go(job: _Job) -> None:
    """A process has ended."""
    if job.process.stdin is not None:
        job.process.stdin.close()
    shutil.rmtree(job.scratch, ignore_errors=True)
