"""Workers from HTCondor, by its command-line tools: every site's users have those. Where they are missing,
its Python bindings stand in for them (``deploy.htcondor_bindings``).

What became of a job is read from the job event log, which the schedd writes into the submission's directory
whether anybody reads it or not: it tells of holds, removals and evictions with their reasons, and of jobs
that ended, and asking it costs the schedd nothing, however many jobs there are and however often it is
asked. ``condor_q`` is asked about jobs that no log tells of (of a submission by another process, or one that
was spooled to a schedd elsewhere), and once in a while why a job does not start; ``condor_history`` only
about jobs that are in neither place.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from graphvine.deploy import htcondor_text as texts
from graphvine.deploy.batch import JobState, JobStatus, Submission, read_tail, run_command
from graphvine.deploy.errors import BatchCommandError, DeployError
from graphvine.deploy.htcondor_log import EventLog
from graphvine.deploy.htcondor_text import Files
from graphvine.deploy.inputs import Inputs, place, planned
from graphvine.deploy.script import render_script
from graphvine.deploy.spec import WorkerSpec

_SCRIPT = "graphvine-worker.sh"
_DESCRIPTION = "jobs.sub"
_LOG = "jobs.log"
_OUTPUT = "output"
#: Jobs that one command names: its line has an end.
_JOBS_A_COMMAND = 500
#: A job that waits for so long is asked about, and again after as long: that makes the schedd look at nodes.
_PATIENCE_S = 60.0
_MB = 2**20


class HTCondor:
    """``tools``: the directory with condor_submit and the others, if it is not on PATH. ``config``: the
    site's configuration file (CONDOR_CONFIG), if the tools don't find it by themselves. ``schedd`` and
    ``pool``: where to submit, if not to this machine's own. ``spool``: give the schedd all files with the
    submission, for one that does not see this machine's; what jobs said comes back when they have ended.
    ``stream``: bring back what jobs say while they run; some sites forbid that. ``containers``: the pool
    knows ``container_image``; else the job runs its image by apptainer."""

    name = "htcondor"

    def __init__(
        self,
        *,
        tools: str | os.PathLike[str] = "",
        config: str | os.PathLike[str] = "",
        schedd: str = "",
        pool: str = "",
        spool: bool = False,
        stream: bool = True,
        containers: bool = True,
    ) -> None:
        self._tools = os.fspath(tools)
        self._environment = {"CONDOR_CONFIG": os.fspath(config)} if config else {}
        self._where = [*(["-pool", pool] if pool else []), *(["-name", schedd] if schedd else [])]
        self._spool = spool
        self._stream = stream and not spool
        self._containers = containers
        self._directories: dict[str, Path] = {}
        """Of submissions, by cluster number."""
        self._logs: dict[str, _Log] = {}
        self._ended: dict[str, JobStatus] = {}
        """Of jobs that no log tells of."""
        self._reasons: dict[str, tuple[float, str]] = {}
        """Why nothing of a cluster starts, and when that was asked."""
        self._unanswered: list[Path] = []
        """Directories of submissions that seemed to fail; the schedd may have taken them all the same."""

    # -- submitting -----------------------------------------------------------------------------------------

    def submit(self, spec: WorkerSpec, count: int, directory: Path) -> Submission:
        """What an earlier submission left that seemed to fail comes first. Raises DeployError."""
        for earlier in self._unanswered:
            if late := self._submitted_all_the_same(earlier):
                self._unanswered.remove(earlier)
                return late
        files = self._files(spec, place(spec, directory), directory)
        try:
            Path(files.output).mkdir()
            Path(files.log).touch()
            script = Path(files.script)
            script.write_text(self._script(spec, files), encoding="utf-8")
            script.chmod(0o700)
            description = directory / _DESCRIPTION
            description.write_text(self._description(spec, count, files), encoding="utf-8")
        except OSError as error:
            raise DeployError(f"jobs can't be prepared in {directory}: {error}") from error
        options = ["-terse", *self._where, *(["-spool"] if self._spool else [])]
        try:
            jobs = texts.parse_submitted(self._run("condor_submit", *options, str(description)))
        except DeployError:
            if self._spool:
                self._withdraw(directory)
            elif late := self._submitted_all_the_same(directory):
                return late
            else:
                self._unanswered.append(directory)
            raise
        return self._submitted(jobs, directory)

    def _submitted(self, jobs: tuple[str, ...], directory: Path) -> Submission:
        cluster = _cluster(jobs[0])
        self._directories[cluster] = directory
        if not self._spool:
            self._logs[cluster] = _Log(directory / _LOG)
        self._reasons[cluster] = (time.monotonic(), "")
        return Submission(jobs, str(directory))

    def _submitted_all_the_same(self, directory: Path) -> Submission | None:
        """What the schedd has taken though condor_submit was not told, or told nobody: its log says so."""
        jobs = sorted(_Log(directory / _LOG).read(), key=lambda job: [int(part) for part in job.split(".")])
        return self._submitted(tuple(jobs), directory) if jobs else None

    def _withdraw(self, directory: Path) -> None:
        """The same where the log is the schedd's own: what it has taken is removed, as the jobs' files may
        not have come along. Mostly there is nothing."""
        with contextlib.suppress(DeployError):
            self._run("condor_rm", *self._where, "-constraint", texts.submission_is(str(directory / _OUTPUT)))

    def preview(self, spec: WorkerSpec, count: int, directory: Path) -> str:
        """What ``submit`` would do, to be read; nothing is done. Raises DeployError."""
        files = self._files(spec, planned(spec, directory), directory)
        texts_by_name = {
            _DESCRIPTION: self._description(spec, count, files),
            _SCRIPT: self._script(spec, files),
        }
        shown = [f"# {name}\n{text}" for name, text in texts_by_name.items()]
        return "\n".join([f"# condor_submit {directory / _DESCRIPTION}", *shown])

    def _files(self, spec: WorkerSpec, inputs: Inputs, directory: Path) -> Files:
        directory = directory.absolute()
        try:
            archive_mb = os.path.getsize(spec.archive) / _MB if spec.archive else 0.0
        except OSError as error:
            raise DeployError(f"the environment {spec.archive} can't be read: {error.strerror}") from error
        return Files(
            script=str(directory / _SCRIPT),
            connection_file=inputs.connection_file,
            archive=inputs.archive,
            proxy=inputs.proxy,
            token=inputs.token,
            log=str(directory / _LOG),
            output=str(directory / _OUTPUT),
            archive_mb=archive_mb,
        )

    def _description(self, spec: WorkerSpec, count: int, files: Files) -> str:
        return texts.render_description(
            spec, count, files, streams=self._stream, spools=self._spool, runs_container=self._containers
        )

    def _script(self, spec: WorkerSpec, files: Files) -> str:
        return render_script(spec, texts.surroundings(files, runs_container=self._containers))

    # -- asking ---------------------------------------------------------------------------------------------

    def status(self, jobs: Sequence[str]) -> list[JobStatus]:
        """One for each job, in that order. Raises DeployError."""
        found = {}
        for cluster in {_cluster(job) for job in jobs} & self._logs.keys():
            found.update(self._logs[cluster].read())
        found.update(self._ended)
        unknown = [job for job in jobs if job not in found]
        if unknown:
            asked = self._ask(unknown)
            ended = {job: told for job, told in asked.items() if told.state.is_over}
            self._fetch([job for job, told in ended.items() if told.state is JobState.FINISHED])
            self._ended.update(ended)
            found.update(asked)
        told = [found.get(job) or _gone(job) for job in jobs]
        return self._with_reasons(told)

    def cancel(self, jobs: Sequence[str]) -> None:
        """Raises DeployError."""
        for some in _chunks(jobs):
            try:
                self._run("condor_rm", *self._where, *some)
            except BatchCommandError:
                # It complains of jobs that have gone, too. Their log may not say so: it may be incomplete.
                left = self._queued(some)
                if any(not told.state.is_over for told in left.values()):
                    raise
                self._forget(job for job in some if job not in left)

    def output(self, job: str) -> str:
        """The last lines that it and its worker wrote; of a spooled job once it has ended."""
        directory = self._directories.get(_cluster(job))
        if directory is None:
            return ""
        return read_tail(directory / _OUTPUT / f"{job}.err")

    def _fetch(self, jobs: Sequence[str]) -> None:
        """Bring back what the schedd keeps of jobs that have ended, and let it keep them no longer."""
        ours = [job for job in jobs if _cluster(job) in self._directories]
        if self._spool and ours:
            # They ended all the same; and what cannot be brought back now is of no use later.
            for command in ("condor_transfer_data", "condor_rm"):
                with contextlib.suppress(BatchCommandError):
                    self._run(command, *self._where, *ours)

    def _forget(self, jobs: Iterable[str]) -> None:
        """These have left the queue, whatever their logs say."""
        for told in self.status(list(jobs)):
            if not told.state.is_over:
                self._ended[told.job] = _gone(told.job)

    def _queued(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Those that are in the queue."""
        asked = ["-json", "-attributes", ",".join(texts.ATTRIBUTES)]
        return texts.parse_ads(self._run("condor_q", *self._where, *jobs, *asked))

    def _ask(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """By the schedd: its queue, and its history for what is not there any more."""
        asked = ["-json", "-attributes", ",".join(texts.ATTRIBUTES)]
        found: dict[str, JobStatus] = {}
        for some in _chunks(jobs):
            found.update(self._queued(some))
            left = [job for job in some if job not in found]
            if left:
                most = ["-limit", str(len(left))]
                found.update(texts.parse_ads(self._run("condor_history", *self._where, *left, *most, *asked)))
        return found

    def _with_reasons(self, told: list[JobStatus]) -> list[JobStatus]:
        """Says of jobs that wait for long why they do, as far as HTCondor knows."""
        waiting = {
            _cluster(one.job): one.job
            for one in reversed(told)
            if one.state is JobState.PENDING and not one.reason
        }
        for cluster, job in waiting.items():
            asked, _ = self._reasons.setdefault(cluster, (time.monotonic(), ""))
            if time.monotonic() - asked > _PATIENCE_S:
                self._reasons[cluster] = (time.monotonic(), self.explain(job))
        return [
            JobStatus(one.job, one.state, self._reasons[_cluster(one.job)][1], one.exit_code, one.host)
            if one.state is JobState.PENDING and not one.reason
            else one
            for one in told
        ]

    def explain(self, job: str) -> str:
        """Why a job does not start: which of its wishes no node meets. "" if HTCondor can't say."""
        try:
            return texts.parse_analysis(self._run("condor_q", *self._where, "-better-analyze", job))
        except BatchCommandError:
            return ""

    def _run(self, tool: str, *arguments: str) -> str:
        command = os.path.join(self._tools, tool)
        try:
            return run_command([*self._command(tool), *arguments], environment=self._environment)
        except BatchCommandError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise DeployError(
                    f"{command} is not there: run this where jobs are submitted, name the directory of "
                    "HTCondor's tools (tools=...), or install its Python bindings (pip install htcondor)"
                ) from error
            raise

    def _command(self, tool: str) -> list[str]:
        """The tool, or what stands in for it where there are only the bindings."""
        if not self._tools and shutil.which(tool) is None and importlib.util.find_spec("htcondor2"):
            return [sys.executable, "-m", "graphvine.deploy.htcondor_bindings", tool]
        return [os.path.join(self._tools, tool)]


def make_htcondor(options: Mapping[str, str]) -> HTCondor:
    """HTCondor by options that are words, as a shell gives them. Raises DeployError."""
    texts_of = ("tools", "config", "schedd", "pool")
    switches = ("spool", "stream", "containers")
    unknown = sorted(set(options) - {*texts_of, *switches})
    if unknown:
        raise DeployError(
            f"htcondor has no option {', '.join(unknown)}; there are: {', '.join((*texts_of, *switches))}"
        )
    words = {name: value for name, value in options.items() if name in texts_of}
    chosen = {name: _is_yes(name, value) for name, value in options.items() if name in switches}
    return HTCondor(**words, **chosen)  # type: ignore[arg-type]


def _is_yes(name: str, value: str) -> bool:
    if value.lower() not in ("yes", "no", "true", "false"):
        raise DeployError(f"{name} is yes or no, not {value!r}")
    return value.lower() in ("yes", "true")


class _Log:
    """The event log of one submission, read as far as it was written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._log = EventLog()

    def read(self) -> dict[str, JobStatus]:
        try:
            with open(self._path, "rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            return {}  # somebody tidied up: the schedd knows
        whole = data.rfind(b"\n") + 1
        self._read += whole
        self._log.feed(data[:whole].decode(errors="replace"))
        return self._log.jobs


def _gone(job: str) -> JobStatus:
    return JobStatus(job, JobState.GONE, "HTCondor knows nothing of it any more")


def _cluster(job: str) -> str:
    return job.partition(".")[0]


def _chunks(jobs: Sequence[str]) -> list[Sequence[str]]:
    return [jobs[begin : begin + _JOBS_A_COMMAND] for begin in range(0, len(jobs), _JOBS_A_COMMAND)]
