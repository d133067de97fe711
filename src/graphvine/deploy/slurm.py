"""Workers as jobs of Slurm, by its command-line tools.

- One submission is one array (or as few as Slurm's MaxArraySize allows); the text of it all is in
  ``slurm_text``.
- What a job brings lies in the submission's own directory, which nodes must see, as they do at nearly every
  site with Slurm; only its owner may enter it. The connection file is never on a command line and not in the
  script either: slurmctld keeps scripts, and sites may keep them in the accounting database for years. Where
  nodes share nothing (``shared=False``) there is no other way, and the script carries it: only its owner and
  Slurm's administrators can read that, and the keys in it are worth nothing once the manager has ended.
- Without accounting (slurmdbd) slurmctld itself remembers ended jobs, for MinJobAge seconds; with it sacct
  does.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from graphvine.deploy import slurm_text
from graphvine.deploy.batch import JobState, JobStatus, Submission, read_tail, run_command, run_leniently
from graphvine.deploy.errors import BatchCommandError, DeployError
from graphvine.deploy.inputs import around, place, planned
from graphvine.deploy.script import Surroundings, render_script
from graphvine.deploy.spec import WorkerSpec

_SCRIPT = "job.sh"
_OUTPUT = "%A_%a.out"
#: Some sites give each job a directory of its own on the node's disk; a plain TMPDIR is looked at by the
#: script.
_SCRATCH = '"${SLURM_TMPDIR:-}"'
_MAX_ARRAY_SIZE = 1001
_KILL_WAIT_S = 30
#: A worker should be gone so long before Slurm kills it.
_MARGIN_S = 5
#: So many names on one command line.
_NAMES_AT_ONCE = 500
_UNKNOWN = "invalid job id"
_NO_ACCOUNTING = re.compile(r"accounting storage is disabled", re.IGNORECASE)
_OVER_ALREADY = r"already completing or completed|invalid job id|no change in job state"
#: sbatch got no answer: the jobs may be there all the same.
_UNANSWERED = re.compile(
    r"timed out|did not answer|zero bytes were transmitted|connection reset", re.IGNORECASE
)


class _Unanswered(msgspec.Struct, frozen=True):
    """An array that Slurm may have taken. ``others``: arrays of the same submission that it has told of."""

    directory: Path
    size: int
    others: tuple[str, ...]


class Slurm:
    """``shared``: nodes see the directory of a submission. ``cluster``: another one than the default."""

    name = "slurm"

    def __init__(self, *, shared: bool = True, cluster: str = "") -> None:
        self._shared = shared
        self._which = [f"--clusters={cluster}"] if cluster else []
        self._config: dict[str, str] = {}
        self._has_accounting = True
        self._ended: dict[str, JobStatus] = {}
        """How jobs ended, once all that can be known of it is known."""
        self._cancelled: set[str] = set()
        self._directories: dict[str, Path] = {}
        """Of submissions, by array."""
        self._unanswered: list[_Unanswered] = []

    # -- submitting -----------------------------------------------------------------------------------------

    def submit(self, spec: WorkerSpec, count: int, directory: Path) -> Submission:
        """As one array, or several where there may not be so many jobs in one. What an earlier submission
        left that nobody told of comes first. Raises DeployError, and then there is none, as far as Slurm
        tells."""
        self._learn_config()
        if late := self._late():
            return late
        spec = self._with_grace(spec)
        if self._shared:
            place(spec, directory)
        script = directory / _SCRIPT
        script.write_text(self._render(spec, directory), encoding="utf-8")
        script.chmod(0o600)
        arrays: list[str] = []
        jobs: list[str] = []
        try:
            for size in self._sizes(count):
                array = self._submit_array(script, size, arrays, slurm_text.overridden(spec))
                arrays.append(array)
                jobs += _elements(array, size)
        except DeployError as error:
            with contextlib.suppress(DeployError):
                self.cancel(jobs)
            raise _explained(error, spec) from error
        self._directories.update((array, directory) for array in arrays)
        return Submission(tuple(jobs), str(directory))

    def preview(self, spec: WorkerSpec, count: int, directory: Path) -> str:
        """What ``submit`` would do, to be read; nothing is done. Raises DeployError."""
        self._learn_config()
        spec = self._with_grace(spec)
        commands = [self._sbatch(directory / _SCRIPT, size) for size in self._sizes(count)]
        return "\n".join(
            [*(f"# {shlex.join(command)}" for command in commands), self._render(spec, directory)]
        )

    def _render(self, spec: WorkerSpec, directory: Path) -> str:
        """The batch script: directives behind the first line, then what every job does."""
        job = f'"{slurm_text.JOB_ID}"'
        if self._shared:
            output, begin = f"{slurm_text.as_pattern(str(directory))}/{_OUTPUT}", str(directory)
            told = around(planned(spec, directory), job=job, scratch=_SCRATCH)
        else:
            # Nothing of ours is there; the output stays on the node, for those who can look there.
            _check_alone(spec)
            output, begin = f"/tmp/graphvine-{_OUTPUT}", "/tmp"
            text = self._connection_text(spec) if directory.exists() else "(the text of the connection file)"
            told = Surroundings(
                job=job, scratch=_SCRATCH, connection_file="", connection_text=shlex.quote(text)
            )
        first, _, rest = render_script(spec, told).partition("\n")
        return "\n".join([first, *slurm_text.render_directives(spec, output, begin), rest])

    def _connection_text(self, spec: WorkerSpec) -> str:
        try:
            return Path(spec.connection_file).read_text(encoding="utf-8")
        except OSError as error:
            raise DeployError(f"can't read {spec.connection_file}: {error.strerror}") from error

    def _submit_array(self, script: Path, size: int, others: Sequence[str], without: str) -> str:
        """The array's number."""
        try:
            return slurm_text.parse_submitted(run_command(self._sbatch(script, size), without=without))
        except DeployError as error:
            if isinstance(error, BatchCommandError) and not _UNANSWERED.search(str(error)):
                raise
            asked = _Unanswered(script.parent, size, tuple(others))
            with contextlib.suppress(DeployError):
                if found := _find(asked, self._begun()):
                    return found
            self._unanswered.append(asked)
            raise

    def _late(self) -> Submission | None:
        """What became of submissions that Slurm did not answer. Raises DeployError while it answers nobody:
        each further one might add to what nobody knows of."""
        begun = self._begun() if self._unanswered else {}
        for asked in self._unanswered:
            if array := _find(asked, begun):
                self._unanswered.remove(asked)
                self._directories[array] = asked.directory
                return Submission(_elements(array, asked.size), str(asked.directory))
        return None

    def _begun(self) -> dict[str, str]:
        """Where this user's jobs begin, by array."""
        told = self._run(
            "squeue", "--noheader", "--all", "--states=all", f"--user={os.getuid()}", "--format=%F|%Z"
        )
        pairs = (line.strip().partition("|") for line in told.splitlines())
        return {array: begin for array, _, begin in pairs}

    def _sbatch(self, script: Path, size: int) -> list[str]:
        return ["sbatch", *self._which, "--parsable", f"--array=0-{size - 1}", str(script)]

    def _sizes(self, count: int) -> list[int]:
        """Of the arrays. Their indices have to be below MaxArraySize."""
        most = max(1, self._limit("MaxArraySize", _MAX_ARRAY_SIZE))
        return [min(most, count - begun) for begun in range(0, count, most)]

    def _with_grace(self, spec: WorkerSpec) -> WorkerSpec:
        """The worker knows how long Slurm waits before it kills."""
        if spec.grace_s is not None:
            return spec
        grace_s = max(1, self._limit("KillWait", _KILL_WAIT_S) - _MARGIN_S)
        return msgspec.structs.replace(spec, grace_s=grace_s)

    def _learn_config(self) -> None:
        if not self._config:
            with contextlib.suppress(BatchCommandError):
                self._config = slurm_text.parse_config(self._run("scontrol", "show", "config"))

    def _limit(self, key: str, otherwise: int) -> int:
        """A number of slurm.conf, without the unit that may stand behind it."""
        number = re.match(r"\d+", self._config.get(key, ""))
        return int(number[0]) if number else otherwise

    # -- asking ---------------------------------------------------------------------------------------------

    def status(self, jobs: Sequence[str]) -> list[JobStatus]:
        """One for each job, in that order. Raises DeployError."""
        listed = self._squeue(slurm_text.arrays_of(jobs))
        self._learn_ends({job: listed[job] for job in jobs if job in listed and listed[job].state.is_over})
        missing = [job for job in jobs if job not in listed and job not in self._ended]
        if missing:
            self._ended.update(self._sacct(missing))
        return [self._told(job, listed) for job in jobs]

    def cancel(self, jobs: Sequence[str]) -> None:
        """Raises DeployError."""
        for names in _portions(slurm_text.contract(jobs)):
            run_leniently(["scancel", *self._which, *names], _OVER_ALREADY, slurm_text.PERSONAL)
        self._cancelled.update(jobs)

    def output(self, job: str) -> str:
        """The last lines of what it wrote; "" when that is on a node's own disk."""
        directory = self._directories.get(slurm_text.array_of(job))
        if directory is not None:
            return read_tail(directory / f"{job}.out")
        try:
            told = self._run("scontrol", "--oneliner", "show", "job", job)
        except BatchCommandError:
            return ""
        path = slurm_text.parse_output_paths(told).get(job)
        return read_tail(path) if path else ""

    def _told(self, job: str, listed: dict[str, JobStatus]) -> JobStatus:
        told = listed.get(job)
        if told is not None and not told.state.is_over:
            self._ended.pop(job, None)  # it was requeued
            return told
        if job in self._ended:
            return self._ended[job]
        if job in self._cancelled:
            # Elements of an array that have not begun leave nothing behind.
            return JobStatus(job, JobState.REMOVED, "cancelled")
        why = "Slurm knows nothing of it: it was cancelled before it began, or ended some time ago"
        return JobStatus(job, JobState.GONE, why)

    def _squeue(self, arrays: Sequence[str]) -> dict[str, JobStatus]:
        options = ["--noheader", "--array", "--all", "--states=all", f"--format={slurm_text.SQUEUE_FORMAT}"]
        found = {}
        for names in _portions(arrays):
            command = ["squeue", *self._which, *options, f"--jobs={','.join(names)}"]
            told = run_leniently(command, _UNKNOWN, slurm_text.PERSONAL)
            found.update(slurm_text.parse_squeue(told))
        return found

    def _learn_ends(self, over: dict[str, JobStatus]) -> None:
        """How jobs ended, with the exit codes that squeue does not tell."""
        news = [job for job in over if job not in self._ended]
        for array in slurm_text.arrays_of(news):
            told: dict[str, JobStatus] = {}
            with contextlib.suppress(BatchCommandError):  # forgotten just now
                told = slurm_text.parse_scontrol(self._run("scontrol", "--oneliner", "show", "job", array))
            for job in news:
                if slurm_text.array_of(job) == array:
                    self._ended[job] = told[job] if job in told and told[job].state.is_over else over[job]

    def _sacct(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """What accounting, where there is any, says of jobs that slurmctld has forgotten."""
        wanted = set(jobs)
        options = ["--noheader", "--parsable2", "--allocations", f"--format={slurm_text.SACCT_FORMAT}"]
        found = {}
        for names in _portions(slurm_text.arrays_of(jobs)) if self._has_accounting else ():
            try:
                told = self._run("sacct", *options, f"--jobs={','.join(names)}")
            except BatchCommandError as error:
                self._has_accounting = not _NO_ACCOUNTING.search(error.output)
                break
            found.update(slurm_text.parse_sacct(told))
        return {job: told for job, told in found.items() if job in wanted and told.state.is_over}

    def _run(self, tool: str, *arguments: str) -> str:
        return run_command([tool, *self._which, *arguments], without=slurm_text.PERSONAL)


def _find(asked: _Unanswered, begun: Mapping[str, str]) -> str:
    """The array that begins in its directory; "" if there is none."""
    found = (array for array, begin in begun.items() if begin == str(asked.directory))
    return next((array for array in found if array not in asked.others), "")


def _elements(array: str, size: int) -> tuple[str, ...]:
    return tuple(f"{array}_{index}" for index in range(size))


def _portions(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[i : i + _NAMES_AT_ONCE] for i in range(0, len(names), _NAMES_AT_ONCE))


def _check_alone(spec: WorkerSpec) -> None:
    """Where nothing is shared a script can carry a few lines, but no environment. Raises DeployError."""
    named = [name for name in ("archive", "proxy", "token") if getattr(spec, name)]
    if named:
        raise DeployError(
            f"without a file system that nodes see Slurm can't bring {' and '.join(named)}: name python=, an "
            "interpreter that nodes have (CVMFS, a container), or a shared directory"
        )


def _explained(error: DeployError, spec: WorkerSpec) -> DeployError:
    if spec.disk_mb and "Requested node configuration is not available" in str(error):
        return DeployError(
            f"{error} (disk was asked for as --tmp={spec.disk_mb}M, and nodes whose TmpDisk the site has not "
            "stated refuse that: leave disk out there)"
        )
    return error
