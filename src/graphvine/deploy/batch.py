"""What every batch system can do for us: `BatchSystem`, and how its commands are run.

- Methods block, and raise DeployError; the supervisor's thread calls them, and nobody else.
- Many workers are one submission. A job has a name ("12.3", "17_4") that says all: a system made anew, in
  another process, can ask for the state of any job of this user.
- Whatever decides (rendering a submission, reading what a tool printed) is a pure function in the system's
  module; a system's class only runs commands.
"""

from __future__ import annotations

import enum
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from graphvine.deploy.errors import BatchCommandError
from graphvine.deploy.spec import WorkerSpec

#: How long a command of a batch system may take: a busy schedd or slurmctld answers after tens of seconds.
COMMAND_S = 120.0
#: How much of a job's output is of interest.
OUTPUT_BYTES = 8_000
_TOLD_CHARACTERS = 2_000


class JobState(enum.Enum):
    PENDING = "pending"
    RUNNING = "running"
    HELD = "held"
    """Put aside, by its user or by the system: it does not start by itself."""
    FINISHED = "finished"
    """It ended by itself, well or not: see its exit code."""
    REMOVED = "removed"
    """It was taken out, by its user or by the system, or ran out of something."""
    GONE = "gone"
    """The batch system knows nothing of it any more."""

    @property
    def is_over(self) -> bool:
        return self in (JobState.FINISHED, JobState.REMOVED, JobState.GONE)


class JobStatus(msgspec.Struct, frozen=True):
    """``reason``: why it is in that state, in the batch system's own words, "" when there is nothing to say.
    ``exit_code``: of a job that finished; -N where signal N ended it."""

    job: str
    state: JobState
    reason: str = ""
    exit_code: int | None = None
    host: str = ""


class Submission(msgspec.Struct, frozen=True):
    """``directory``: where scripts, outputs and logs of these jobs lie."""

    jobs: tuple[str, ...]
    directory: str


class BatchSystem(Protocol):
    """HTCondor, Slurm, processes of this machine, or a site's own."""

    name: str

    def submit(self, spec: WorkerSpec, count: int, directory: Path) -> Submission:
        """Submit ``count`` workers in one go. ``directory`` is there, empty, and this submission's own."""
        ...

    def status(self, jobs: Sequence[str]) -> list[JobStatus]:
        """One for each job, in that order; also of jobs that ended lately, with the reason."""
        ...

    def cancel(self, jobs: Sequence[str]) -> None:
        """Take these out of the system; those that are over already are no error."""
        ...

    def output(self, job: str) -> str:
        """The last lines of the job's own output, "" if there are none yet."""
        ...


def run_command(
    command: Sequence[str],
    *,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    without: str = "",
    directory: str | os.PathLike[str] | None = None,
    time_limit_s: float = COMMAND_S,
) -> str:
    """What a command of a batch system printed. ``environment``: variables beside our own; ``without``: a
    pattern of those of ours that it should not see.

    Raises BatchCommandError when it is not there, fails, or takes too long; then it and all that it started
    are ended."""
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_ours(without), **(environment or {})},
            cwd=directory,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us to answer; and a time-out ends the whole group
        )
    except OSError as error:
        raise BatchCommandError(f"can't run {command[0]}: {error.strerror}") from error
    with process:
        try:
            printed, complained = process.communicate(stdin, timeout=time_limit_s)
        except BaseException as error:
            _kill(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise BatchCommandError(f"{command[0]} did not answer in {time_limit_s:g} s") from error
            raise
    if process.returncode != 0:
        output = complained.strip() or printed.strip()
        said = tail(output, _TOLD_CHARACTERS) or "it said nothing"
        message = f"{command[0]} failed with exit code {process.returncode}: {said}"
        raise BatchCommandError(message, output, printed)
    return printed


def run_leniently(command: Sequence[str], harmless: str, without: str = "") -> str:
    """Like ``run_command``; a command that fails and complains of nothing but what is ``harmless`` (a
    pattern, looked for in each line) is taken at what it printed. Raises BatchCommandError."""
    try:
        return run_command(command, without=without)
    except BatchCommandError as error:
        complaints = [line for line in error.output.splitlines() if line.strip()]
        if harmless and complaints and all(re.search(harmless, line, re.IGNORECASE) for line in complaints):
            return error.printed
        raise


def read_tail(path: str | os.PathLike[str], most_bytes: int = OUTPUT_BYTES) -> str:
    """The end of a file of a job's output, whole lines; "" if it is not there (yet) or empty."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return text if size <= most_bytes else text.partition("\n")[2] or text


def tail(text: str, most: int) -> str:
    """The last ``most`` characters."""
    return text if len(text) <= most else "..." + text[-most:]


def _ours(without: str) -> dict[str, str]:
    """This process's variables."""
    return {name: text for name, text in os.environ.items() if not re.fullmatch(without, name)}


def _kill(process: subprocess.Popen[str]) -> None:
    """End a command and all of its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
