"""HTCondor's words: the submit description of a spec, and what its tools print.

Pure. What becomes what:

| of the spec | in the description |
|---|---|
| cores, memory, gpus | ``request_cpus`` (rounded up), ``request_memory``, ``request_gpus`` |
| disk | ``request_disk``, and room for the environment, packed and unpacked |
| wall_time | ``periodic_remove`` once it has run for so long, and what sites match by (``_WALL_TIME``) |
| (always) | ``periodic_remove`` of jobs held for what they bring: nobody may be left to bring it |
| grace | ``job_max_vacate_time`` |
| queue | ``+JobFlavour``, as at CERN |
| account | ``accounting_group`` |
| requirements | ``requirements`` |
| container | ``container_image`` |
| proxy | ``x509userproxy``: HTCondor brings it, and renews it in the job when it is renewed here |
| token | brought as a file |
| directives | as they are, last, so that they win |
"""

from __future__ import annotations

import math
import re
import shlex

import msgspec

from graphvine.deploy.batch import JobState, JobStatus
from graphvine.deploy.errors import DeployError
from graphvine.deploy.script import Surroundings
from graphvine.deploy.spec import WorkerSpec

#: What sites' pools go by when they choose slots for long jobs, and its unit in seconds: CERN; CMS and OSG.
#: Others take no notice. Those that begin with Request (DESY, KIT) are for directives: elsewhere no node has
#: such a resource, and the job would wait for ever.
_WALL_TIME = {"MaxRuntime": 1, "MaxWallTimeMins": 60}
#: How long a spooled job that ended stays in the queue for its output.
_KEPT_S = 3600
#: Held because files could not be brought: nothing releases such a job, if its manager was
#: killed.
_NOT_BROUGHT = "(HoldReasonCode == 12 || HoldReasonCode == 13)"
_HELD_S = 600
#: By this attribute a spooled submission is found again.
_SUBMISSION = "GraphvineSubmission"
#: How much larger an environment is than its archive, roughly.
_EXPANSION = 5
_UNMET = re.compile(r"^\[\d+\] +0 +(\S.*?) *$", re.MULTILINE)
_VERDICTS = re.compile(r"^ *(\d+) ((?:are rejected by|reject|match but).*?)\.? *$", re.MULTILINE)
_LAST_FAILURE = re.compile(r"^Reason for last match failure: (.*)$", re.MULTILINE)
_SUBMITTED = re.compile(r"^(\d+)\.(\d+) - (?:(\d+)\.)?(\d+)\s*$", re.MULTILINE)


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """Of one submission: absolute paths. ``archive_mb``: size of the packed environment."""

    script: str
    connection_file: str
    archive: str = ""
    proxy: str = ""
    token: str = ""
    log: str
    output: str
    """Directory of the jobs' own output."""
    archive_mb: float = 0.0


def render_description(
    spec: WorkerSpec,
    count: int,
    files: Files,
    *,
    streams: bool = True,
    spools: bool = False,
    runs_container: bool = True,
) -> str:
    """The submit description: one submission of ``count`` jobs. ``streams``: what a job says comes back while
    it runs. ``spools``: the schedd keeps it until it is fetched. ``runs_container``: the pool knows
    ``container_image``. Raises DeployError."""
    _check(files, spools)
    brought = [path for path in (files.connection_file, files.archive, files.token) if path]
    secret = [path for path in (files.connection_file, files.token) if path]
    settings = {
        "universe": "vanilla",
        "executable": files.script,
        "transfer_executable": "True",
        "environment": '"GRAPHVINE_JOB=$(ClusterId).$(ProcId)"',
        "batch_name": spec.name,
        "log": files.log,
        # The script sends all it has to say, and all the worker says, to standard error.
        "error": f"{files.output}/$(ClusterId).$(ProcId).err",
        "stream_error": str(streams),
        "should_transfer_files": "YES",
        "when_to_transfer_output": "ON_EXIT",
        "transfer_output_files": '""',
        "transfer_input_files": ", ".join(brought),
        "encrypt_input_files": ", ".join(_file_name(path) for path in secret),
        "notification": "Never",
        "want_graceful_removal": "True",
        **_resources(spec, files),
        **_policy(spec),
    }
    if spec.proxy:
        settings |= {"use_x509userproxy": "True", "x509userproxy": files.proxy}
    if spools:
        settings[f"+{_SUBMISSION}"] = f'"{files.output}"'
        # It would stay for ten days, if nobody came for its output.
        settings["leave_in_queue"] = f"JobStatus == 4 && time() - CompletionDate < {_KEPT_S}"
    if spec.container and runs_container:
        settings |= {"universe": "container", "container_image": spec.container}
    lines = [f"{name} = {value}" for name, value in settings.items()]
    return "\n".join([*lines, *spec.directives, f"queue {count}", ""])


def submission_is(output: str) -> str:
    """What is true of the jobs of one spooled submission, by the directory of its output."""
    return f'{_SUBMISSION} == "{output}"'


def _resources(spec: WorkerSpec, files: Files) -> dict[str, str]:
    asked = {"request_cpus": str(math.ceil(spec.cores))}
    if spec.memory_mb is not None:
        asked["request_memory"] = f"{spec.memory_mb}M"
    room_mb = math.ceil(files.archive_mb * (1 + _EXPANSION))
    if spec.disk_mb is not None or room_mb:
        # By default a job is given room for what it brings, packed.
        asked["request_disk"] = f"{(spec.disk_mb or 1024) + room_mb}M"
    if spec.gpus:
        asked["request_gpus"] = str(spec.gpus)
    return asked


def _policy(spec: WorkerSpec) -> dict[str, str]:
    ends = [f"JobStatus == 5 && {_NOT_BROUGHT} && time() - EnteredCurrentStatus > {_HELD_S}"]
    if spec.wall_time_s is not None:
        ends.append(f"JobStatus == 2 && time() - JobCurrentStartDate > {spec.wall_time_s}")
    settings = {"periodic_remove": " || ".join(f"({end})" for end in ends)}
    if spec.wall_time_s is not None:
        for name, unit_s in _WALL_TIME.items():
            settings[f"+{name}"] = str(math.ceil(spec.wall_time_s / unit_s))
    if spec.grace_s is not None:
        settings["job_max_vacate_time"] = str(math.ceil(spec.grace_s))
    if spec.account:
        settings["accounting_group"] = spec.account
    if spec.queue:
        settings["+JobFlavour"] = f'"{spec.queue}"'
    if spec.requirements:
        settings["requirements"] = spec.requirements
    return settings


def _check(files: Files, spools: bool) -> None:
    # condor_submit -spool takes a path up to its first space.
    forbidden = r'[,"\n$ ]' if spools else r'[,"\n$]'
    for path in msgspec.structs.astuple(files):
        if isinstance(path, str) and re.search(forbidden, path):
            raise DeployError(
                f"HTCondor takes no file whose path has a comma, quote or dollar sign in it"
                f"{', or, with spool, a space' if spools else ''}: {path}"
            )


def surroundings(files: Files, *, runs_container: bool = True) -> Surroundings:
    """What HTCondor promises a job's script: all that it brings lies in its scratch directory."""
    here = '"$_CONDOR_SCRATCH_DIR"'
    granted = 'sed -n "s/^Memory = //p" "$_CONDOR_MACHINE_AD"'
    # An expression: ten minutes are "10 * 60". Of a longer one nothing is known.
    product = r"[0-9][0-9]*\( \* [0-9][0-9]*\)*"
    grace = rf'sed -n "s/^MachineMaxVacateTime = \({product}\)\$/\1/p" "$_CONDOR_MACHINE_AD"'
    return Surroundings(
        job='"$GRAPHVINE_JOB"',
        scratch=here,
        connection_file=f"{here}/{_word(files.connection_file)}",
        archive=f"{here}/{_word(files.archive)}",
        token=f"{here}/{_word(files.token)}",
        # HTCondor itself names the proxy that it keeps fresh.
        proxy='"${X509_USER_PROXY:-}"',
        memory_mb=f"$({granted})",
        grace_s=f"$({grace})",
        archive_is_a_copy=True,
        runs_container=runs_container,
    )


def _word(path: str) -> str:
    return shlex.quote(_file_name(path)) if path else ""


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


# -- what the tools print -----------------------------------------------------------------------------------

#: JobStatus of the job's ad. 6 is transferring output, 7 suspended.
_STATES = {
    1: JobState.PENDING,
    2: JobState.RUNNING,
    3: JobState.REMOVED,
    4: JobState.FINISHED,
    5: JobState.HELD,
    6: JobState.RUNNING,
    7: JobState.RUNNING,
}
#: A job is held with this code while its files are on their way to the schedd.
_SPOOLING = 16
#: What is asked of the schedd, and nothing more.
ATTRIBUTES = (
    "ClusterId",
    "ProcId",
    "JobStatus",
    "HoldReason",
    "HoldReasonCode",
    "RemoveReason",
    "RemoteHost",
    "LastRemoteHost",
    "ExitCode",
    "ExitBySignal",
    "ExitSignal",
)


class _Ad(msgspec.Struct, rename=lambda name: "".join(part.title() for part in name.split("_"))):
    """A job's ad, the part of it that was asked for. Expressions that are not known come as text."""

    cluster_id: int
    proc_id: int
    job_status: int
    hold_reason: str | None = None
    hold_reason_code: int | None = None
    remove_reason: str | None = None
    remote_host: str | None = None
    last_remote_host: str | None = None
    exit_code: int | None = None
    exit_by_signal: bool | None = None
    exit_signal: int | None = None


def parse_submitted(text: str) -> tuple[str, ...]:
    """The jobs that ``condor_submit -terse`` named: "12.0 - 12.49". Raises DeployError."""
    found = _SUBMITTED.search(text)
    if found is None:
        raise DeployError(f"condor_submit did not say which jobs it submitted: {text.strip()[-500:]!r}")
    first, last = int(found[2]), int(found[4])
    return tuple(f"{found[1]}.{proc}" for proc in range(first, last + 1))


def parse_ads(text: str) -> dict[str, JobStatus]:
    """States by ``condor_q -json`` and ``condor_history -json``: nothing at all where there are no jobs.
    Raises DeployError."""
    if not text.strip():
        return {}
    try:
        ads = msgspec.json.decode(text, type=list[_Ad])
    except msgspec.DecodeError as error:
        raise DeployError(f"HTCondor's answer is not understood: {error}") from error
    return {told.job: told for told in map(_status, ads)}


def _status(ad: _Ad) -> JobStatus:
    state = _STATES.get(ad.job_status, JobState.PENDING)
    if state is JobState.HELD and ad.hold_reason_code == _SPOOLING:
        state = JobState.PENDING
    reasons = {JobState.HELD: ad.hold_reason, JobState.REMOVED: ad.remove_reason}
    code = None
    if state is JobState.FINISHED:
        code = -ad.exit_signal if ad.exit_by_signal and ad.exit_signal is not None else ad.exit_code
    host = (ad.remote_host or ad.last_remote_host or "").rpartition("@")[2]
    return JobStatus(f"{ad.cluster_id}.{ad.proc_id}", state, reasons.get(state) or "", code, host)


def parse_analysis(text: str) -> str:
    """Why a job does not start, of what ``condor_q -better-analyze`` found out; "" if it found nothing."""
    unmet = [f"no node meets {condition}" for condition in _UNMET.findall(text)]
    told = [f"{count} nodes {what}" for count, what in _VERDICTS.findall(text) if count != "0"]
    failure = _LAST_FAILURE.search(text)
    return "; ".join([*unmet, *told, *([failure[1].strip()] if failure else [])])
