"""What is said to Slurm, and what Slurm says: directives, lists of jobs, and the output of its tools, as
text.

Only forms that have been the same from Slurm 20 to 24 are used: ``squeue --format`` (its JSON is a plugin
that not every site has built, and looks different in each release), ``scontrol --oneliner`` and ``sacct
--parsable2``. Every job is an element of an array ("17_4"), also where there is one only: so its name in the
script, in squeue and in scancel is always made of the same two numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from graphvine.deploy.batch import JobState, JobStatus
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec

#: How long before its wall time is over a job is told, where its grace is not stated; Slurm may do it up to
#: a minute earlier. A job that would then have hardly begun is not told: its worker knows its wall time, too.
WALL_TIME_WARNING_S = 60
_EARLY_S = 60
_HARDLY_S = 30
SQUEUE_FORMAT = "%i|%T|%B|%r"
SACCT_FORMAT = "JobID,State,ExitCode,NodeList"
#: What a job is called in its own environment.
JOB_ID = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"

#: Variables by which users change what the tools show, and by which sbatch changes what a script says.
_OF_SBATCH = "ERROR INPUT OUTPUT OPEN_MODE ARRAY_INX SIGNAL WAIT"
PERSONAL = rf"SQUEUE_\w+|SCANCEL_\w+|SACCT_\w+|SLURM_TMPDIR|SBATCH_({_OF_SBATCH.replace(' ', '|')})"
#: Jobs have the variables of who submits them; which GPUs those may use says nothing of the job's node.
_DEVICES = r"(CUDA|ROCR|HIP)_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|ZE_AFFINITY_MASK"
#: The latter, for what a spec may leave open: then they hold, as a user or a site means them to.
_DEFAULTS = {
    "account": "SBATCH_ACCOUNT",
    "queue": "SBATCH_PARTITION",
    "requirements": "SBATCH_CONSTRAINT",
    "wall_time_s": "SBATCH_TIMELIMIT",
    "memory_mb": r"SBATCH_MEM_\w+",
    "gpus": "SBATCH_GRES",
}

_RUNNING = frozenset(
    {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING", "RESIZING", "UPDATE_DB"}
)
_PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "LAUNCH_FAILED", "RECONFIG_FAIL"})
_HELD = frozenset({"RESV_DEL_HOLD", "REQUEUE_HOLD", "SPECIAL_EXIT"})
_FINISHED = frozenset({"COMPLETED", "FAILED"})
#: Why Slurm has ended a job, in its word and ours.
_REMOVED = {
    "CANCELLED": "cancelled",
    "REVOKED": "revoked: another cluster of the federation runs it",
    "TIMEOUT": "its wall time was over",
    "DEADLINE": "its deadline was over",
    "OUT_OF_MEMORY": "it used more memory than it had asked for",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "other work was more important (preempted)",
}
#: Reasons of waiting that do not say by themselves what they mean.
_EXPLAINED = {
    "Resources": "no node is free",
    "Priority": "other jobs come first",
    "JobHeldUser": "held by its user",
    "JobHeldAdmin": "held by an administrator",
    "BadConstraints": "no node has what it asks for",
    "PartitionConfig": "no node of the partition has what it asks for",
    "PartitionTimeLimit": "the partition does not allow so much wall time",
    "PartitionNodeLimit": "the partition does not allow this",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "AssocGrpCPUMinutesLimit": "the account's budget of CPU time is used up",
    "AssocGrpBillingMinutes": "the account's budget is used up",
    "QOSMaxJobsPerUserLimit": "as many of this user's jobs run as may",
    "QOSMaxCpuPerUserLimit": "as many cores of this user's are busy as may be",
    "AssocMaxJobsLimit": "as many of this account's jobs run as may",
    "Licenses": "it waits for a licence",
    "BeginTime": "it may not begin yet; after a requeue Slurm waits two minutes or so",
}
#: What squeue says first where a cluster was named.
_CLUSTER = re.compile(r"\s*CLUSTER: ")
_ID = re.compile(r"\d+(?:_\d+)?")
_BRACKETS = re.compile(r"(\d+)_\[([\d,\-:]+)(?:%\d+)?\]")
_FIELD = re.compile(r"(?:^|\s)(\w+)=(\S*)")


# -- what is asked for --------------------------------------------------------------------------------------


def render_directives(spec: WorkerSpec, output: str, directory: str) -> list[str]:
    """The ``#SBATCH`` lines of a job; ``output`` is a pattern of Slurm's, ``directory`` where it begins. How
    many there are is said when they are submitted. Raises DeployError."""
    asked: dict[str, str | int | None] = {
        "job-name": spec.name,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": math.ceil(spec.cores),
        "mem": spec.memory_mb and f"{spec.memory_mb}M",
        "tmp": spec.disk_mb and f"{spec.disk_mb}M",
        "gres": spec.gpus and f"gpu:{spec.gpus}",
        "time": spec.wall_time_s and render_time(spec.wall_time_s),
        "signal": _signal(spec),
        "account": spec.account,
        "partition": spec.queue,
        "constraint": spec.requirements,
        "chdir": directory,
        "output": output,
        "open-mode": "append",  # what a job said before it was requeued stays
        "requeue": True,
    }
    lines = [f"#SBATCH --{key}{_value(key, value)}" for key, value in asked.items() if value]
    return lines + [directive(line) for line in spec.directives]


def overridden(spec: WorkerSpec) -> str:
    """A pattern of the variables that sbatch must not see: they count for more than a script's lines."""
    stated = [pattern for field, pattern in _DEFAULTS.items() if getattr(spec, field)]
    return "|".join([PERSONAL, _DEVICES, *stated])


def directive(line: str) -> str:
    """A user's own line, written with or without ``#SBATCH``."""
    text = line.strip()
    text = text if text.startswith("#SBATCH") else f"#SBATCH {text}"
    return text


def as_pattern(path: str) -> str:
    """A path where Slurm reads a file name pattern."""
    return path.replace("%", "%%")


def render_time(seconds: int) -> str:
    """Days-hours:minutes:seconds."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}-{hour:02}:{minute:02}:{second:02}"


def _signal(spec: WorkerSpec) -> str:
    warning_s = WALL_TIME_WARNING_S if spec.grace_s is None else max(1, math.ceil(spec.grace_s))
    if (spec.wall_time_s or 0) - warning_s - _EARLY_S < _HARDLY_S:
        return ""
    return f"B:TERM@{min(warning_s, 65535)}"


def _value(key: str, value: str | int) -> str:
    """``=value``, quoted as sbatch reads its own lines. Raises DeployError."""
    if value is True:
        return ""
    text = str(value)
    if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
        return f"={text}"
    quote = "'" if "'" not in text else '"'
    if quote in text or "\n" in text or "\\" in text:
        raise DeployError(f"{key}={text!r}: Slurm can't be told this: quotes of both kinds, or a backslash")
    return f"={quote}{text}{quote}"


# -- jobs' names --------------------------------------------------------------------------------------------


def parse_submitted(text: str) -> str:
    """The array's number, of what ``sbatch --parsable`` printed. Raises DeployError."""
    for line in reversed(text.splitlines()):  # sites' plugins print words of their own before it
        match = re.fullmatch(r"(\d+)(?:;\S+)?", line.strip())
        if match is not None:
            return match[1]
    raise DeployError(f"sbatch named no job; it said: {text.strip() or 'nothing'}")


def array_of(job: str) -> str:
    """The number that all jobs of one submission share. Raises DeployError."""
    if not _ID.fullmatch(job):
        raise DeployError(f"{job!r} is no name of a Slurm job, like 17_4")
    return job.partition("_")[0]


def arrays_of(jobs: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(array_of, jobs)))


def expand(name: str) -> list[str]:
    """The jobs that one name stands for: "17_[3-5,8%2]" is four of them. Empty for steps ("17_4.batch")."""
    match = _BRACKETS.fullmatch(name)
    if match is None:
        return [name] if _ID.fullmatch(name) else []
    found = []
    for part in match[2].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        found += [f"{match[1]}_{i}" for i in range(int(first), int(last or first) + 1, int(step or 1))]
    return found


def contract(jobs: Iterable[str]) -> list[str]:
    """As few names as will do for these jobs: the reverse of ``expand``."""
    elements: dict[str, list[int]] = {}
    alone = []
    for job in dict.fromkeys(jobs):
        array, _, index = job.partition("_")
        if index:
            elements.setdefault(array, []).append(int(index))
        else:
            alone.append(job)
    return alone + [f"{array}_[{_spans(sorted(found))}]" for array, found in elements.items()]


def _spans(numbers: Sequence[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in spans)


# -- what Slurm says ----------------------------------------------------------------------------------------


def parse_squeue(text: str) -> dict[str, JobStatus]:
    """Jobs by name, of ``squeue --noheader --array --format SQUEUE_FORMAT``. Raises DeployError when it says
    something else only: then nothing is known, not even that there are no jobs."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 3)
        if len(parts) == 4:
            for job in expand(parts[0]):
                found[job] = status_of(job, parts[1], reason=parts[3], host=parts[2])
    odd = [line for line in text.splitlines() if line.strip() and not _CLUSTER.match(line)]
    if odd and not found:
        raise DeployError(f"squeue's answer is not understood: {odd[0][:200]!r}")
    return found


def parse_scontrol(text: str) -> dict[str, JobStatus]:
    """Jobs by name, of ``scontrol --oneliner show job``."""
    found = {}
    for line in text.splitlines():
        fields = dict(_FIELD.findall(line))
        name = fields.get("JobId", "")
        if "ArrayTaskId" in fields:
            index = fields["ArrayTaskId"]
            name = f"{fields.get('ArrayJobId', '')}_" + (index if index.isdigit() else f"[{index}]")
        for job in expand(name):
            found[job] = status_of(
                job,
                fields.get("JobState", ""),
                reason=fields.get("Reason", ""),
                host=fields.get("BatchHost", ""),
                exit_code=fields.get("ExitCode", ""),
            )
    return found


def parse_sacct(text: str) -> dict[str, JobStatus]:
    """Jobs by name, of ``sacct --noheader --parsable2 --allocations --format SACCT_FORMAT``."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 4:
            for job in expand(parts[0]):
                found[job] = status_of(job, parts[1], host=parts[3], exit_code=parts[2])
    return found


def parse_config(text: str) -> dict[str, str]:
    """What ``scontrol show config`` says, by name."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def parse_output_paths(text: str) -> dict[str, str]:
    """Where jobs write their output, of ``scontrol --oneliner show job``: it is the line's last but few
    fields, and may hold blanks."""
    found = {}
    for line in text.splitlines():
        fields = dict(_FIELD.findall(line))
        path = re.search(r"\sStdOut=(.*?)(?=\s+[A-Z]\w*=|\s*$)", line)
        if path is not None and "ArrayTaskId" in fields:
            found[f"{fields.get('ArrayJobId')}_{fields['ArrayTaskId']}"] = path[1]
    return found


def status_of(job: str, word: str, *, reason: str = "", host: str = "", exit_code: str = "") -> JobStatus:
    """One job, from Slurm's words; ``exit_code`` as Slurm writes it: "code:signal"."""
    state, _, more = word.partition(" ")  # "CANCELLED by 1000"
    state = state.rstrip("+")
    reason = "" if reason in ("None", "(null)") else reason.strip("()")
    host = "" if host in ("n/a", "None", "None assigned", "(null)") else host
    if state in _FINISHED:
        return _finished(job, state, host, exit_code)
    if state in _REMOVED:
        why = f"{state}: {_REMOVED[state]}" if state != "CANCELLED" else f"cancelled {more}".strip()
        return JobStatus(job, JobState.REMOVED, why, _code(exit_code), host)
    if state in _HELD or _is_hold(state, reason):
        return JobStatus(job, JobState.HELD, _explained(reason or state))
    if state in _PENDING:
        return JobStatus(job, JobState.PENDING, _explained(reason or ("" if state == "PENDING" else state)))
    # A word of a later release: such a job is there, and that is all that is certain.
    told = "" if state == "RUNNING" else state.lower()
    return JobStatus(job, JobState.RUNNING, told, host=host)


def _is_hold(state: str, reason: str) -> bool:
    return state == "PENDING" and re.search(r"^JobHeld|\bheld\b", reason, re.IGNORECASE) is not None


def _finished(job: str, state: str, host: str, exit_code: str) -> JobStatus:
    code = _code(exit_code)
    if state == "COMPLETED":
        return JobStatus(job, JobState.FINISHED, "", 0 if code is None else code, host)
    if code is None:
        return JobStatus(job, JobState.FINISHED, "it failed", None, host)
    why = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return JobStatus(job, JobState.FINISHED, why, code, host)


def _code(text: str) -> int | None:
    code, _, signal = text.partition(":")
    if not code.isdigit() or not (signal or "0").isdigit():
        return None
    return -int(signal) if int(signal or 0) else int(code)


def _explained(reason: str) -> str:
    """Slurm's word for why a job waits, and what it means where we know; a word may be followed by
    details."""
    word = re.split(r"[,:(]", reason, maxsplit=1)[0].strip()
    meaning = _EXPLAINED.get(word)
    return f"{reason} ({meaning})" if meaning else reason
