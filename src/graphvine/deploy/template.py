"""Any batch system as data: commands to submit, ask and cancel, patterns to read what they print, and a job's
text.

``templates/*.toml`` are those that come with graphvine; a user's own is a TOML or JSON file with the same
fields, or a ``Template`` made in Python. All here is pure, but for ``load_template``, which reads the file.
What stands in texts:

- ``{{name}}`` is a value (``job_values`` lists them, ``[options]`` adds more). A line, or an argument of a
  command, in which a value is not stated is left out. ``{{before|name|behind}}`` is left out alone, with what
  is around it.
- In commands ``{{jobs}}`` stands for all jobs, one argument each, and ``{{job}}`` or a part of its name (a
  group of ``naming``) for one: such a command is run once for each different form it takes.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import msgspec

from graphvine.deploy.batch import JobState, JobStatus
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec

_FIELD = re.compile(r"\{\{(?:([^{}|]*)\|(\w+)\|([^{}|]*)|(\w+))\}\}")
#: So many names on one command line.
JOBS_AT_ONCE = 200
_ABOUT_JOBS = frozenset({"state", "reason", "host", "exit_code"})


class Submit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``id`` is looked for in what the command prints. Its groups name the jobs by ``each`` (``{{index}}``
    counts from ``first``); or its group ``jobs`` is a list of them all."""

    command: tuple[str, ...]
    id: str
    each: str = ""
    first: int = 0
    one: Submit | None = None
    """For a single job, where the system has no arrays of one."""
    stdin: bool = False
    """The command reads the job's text from standard input."""


class Cancel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``harmless``: what the command complains of when a job is over already."""

    command: tuple[str, ...]
    harmless: str = ""


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way to ask for jobs. The output, without what ``unwrap`` finds, is cut before each ``split``; in each
    part ``fields`` are looked for: "state", "reason", "host", "exit_code", and those that make up
    ``job``."""

    command: tuple[str, ...]
    job: str
    fields: dict[str, str]
    split: str = "\n"
    unwrap: str = ""
    harmless: str = ""
    """What the command complains of when it knows none of the jobs."""
    state: str = ""
    """The state of all jobs that it knows, where it does not say."""
    only: str = ""
    """It says why jobs that an earlier query has found in this state are in it, and no more."""


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prints what a job wrote; ``harmless``: what it complains of when there is nothing."""

    command: tuple[str, ...]
    harmless: str = ""


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``job``: the job's text; the part that starts the worker goes where ``{{body}}`` stands, or into a file
    of its own, ``{{script}}``. ``states``: the system's words (patterns) to ours, the first that fits."""

    name: str
    submit: Submit
    cancel: Cancel
    status: tuple[Query, ...]
    job: str
    states: dict[str, str]
    naming: str
    """Matches the name of a job; its groups are parts of it."""
    job_id: str
    """What a job is called, as its own shell puts it together."""
    file: str = "job.sh"
    prefix: str = ""
    """What a user's extra line begins with."""
    output: Output | None = None
    """Where the submission's directory is not shared."""
    shared: bool = True
    """Nodes see the submission's directory. If not, the system carries ``{{inputs}}`` to where jobs begin."""
    scratch: str = ""
    """A directory that is each job's own, as its shell puts it together; "" for one that the script makes."""
    options: dict[str, str] = {}
    """More values, which users may change."""

    def __post_init__(self) -> None:
        problems = list(_complaints(self))
        if problems:
            raise ValueError("; ".join(problems))


def shipped() -> list[str]:
    """Names of the templates that come with graphvine."""
    found = resources.files(__package__) / "templates"
    return sorted(entry.name[: -len(".toml")] for entry in found.iterdir() if entry.name.endswith(".toml"))


def load_template(name: str) -> Template:
    """A template that comes with graphvine, or the one in a .toml or .json file. Raises DeployError."""
    try:
        if name in shipped():
            data = (resources.files(__package__) / "templates" / f"{name}.toml").read_bytes()
            return parse_template(data, f"{name}.toml")
        if not name.endswith((".toml", ".json")):
            raise DeployError(
                f"no template {name!r}: there are {', '.join(shipped())}, or name a .toml or .json file"
            )
        return parse_template(Path(name).read_bytes(), name)
    except OSError as error:
        raise DeployError(f"cannot read the template {name}: {error.strerror}") from error


def parse_template(data: bytes, origin: str) -> Template:
    """Raises DeployError, with ``origin`` and what is wrong."""
    decode = msgspec.json.decode if origin.endswith(".json") else msgspec.toml.decode
    try:
        return decode(data, type=Template)
    except (msgspec.DecodeError, ValueError) as error:
        raise DeployError(f"{origin} is no template: {error}") from error


# -- values -------------------------------------------------------------------------------------------------


def job_values(template: Template, spec: WorkerSpec) -> dict[str, str]:
    """What is asked for, by the names that templates use, as text; "" where it is not stated."""
    cores = math.ceil(spec.cores)
    memory = spec.memory_mb or 0
    wall_s = spec.wall_time_s or 0
    values = {
        "cores": cores,
        "memory_mb": memory,
        "memory_gb": math.ceil(memory / 1024),
        "memory_kb": memory * 1024,
        "memory_bytes": memory * 2**20,
        "memory_mb_per_core": math.ceil(memory / cores),
        "disk_mb": spec.disk_mb,
        "disk_gb": math.ceil((spec.disk_mb or 0) / 1024),
        "gpus": spec.gpus,
        "wall_time": f"{wall_s // 3600:02}:{wall_s // 60 % 60:02}:{wall_s % 60:02}" if wall_s else "",
        "wall_time_s": wall_s,
        "wall_time_min": math.ceil(wall_s / 60),
        "cpu_time_s": wall_s * cores,
        "container": spec.container,
        "account": spec.account,
        "queue": spec.queue,
        "requirements": spec.requirements,
        "name": spec.name,
        "directives": "\n".join(_prefixed(template.prefix, line) for line in spec.directives),
    }
    stated = {key: str(value) if value else "" for key, value in values.items()}
    return {**template.options, **stated}


def submit_values(submit: Submit, count: int) -> dict[str, str]:
    """How many, and the numbers of an array."""
    return {"count": str(count), "first": str(submit.first), "last": str(submit.first + count - 1)}


def _prefixed(prefix: str, line: str) -> str:
    return line if not prefix or line.startswith(prefix.strip()) else f"{prefix}{line}"


def render(text: str, values: Mapping[str, str], prefix: str = "") -> str:
    """A text with its values, line by line; in lines that begin with ``prefix``, which systems take apart as
    shells do, words with blanks in them are quoted. Raises DeployError for a value that nobody knows."""
    lines = (
        _filled(line, values, quotes=bool(prefix) and line.startswith(prefix))
        for line in text.strip("\n").splitlines()
    )
    return "".join(f"{line}\n" for line in lines if line is not None)


def render_command(command: Iterable[str], values: Mapping[str, str], jobs: Sequence[str] = ()) -> list[str]:
    """Raises DeployError."""
    arguments: list[str] = []
    for argument in command:
        if argument == "{{jobs}}":
            arguments += jobs
        elif (filled := _filled(argument, values)) is not None:
            arguments.append(filled)
    return arguments


def render_commands(
    command: Sequence[str], jobs: Sequence[str], naming: str, values: Mapping[str, str]
) -> list[tuple[list[str], dict[str, str]]]:
    """The commands that together are for all these jobs, and for each of them the parts of its (first) job's
    name. Raises DeployError."""
    if "{{jobs}}" in command:
        starts = range(0, len(jobs), JOBS_AT_ONCE)
        return [(render_command(command, values, jobs[i : i + JOBS_AT_ONCE]), {}) for i in starts]
    made: dict[tuple[str, ...], dict[str, str]] = {}
    for job in jobs:
        parts = {"job": job, **parts_of(job, naming)}
        made.setdefault(tuple(render_command(command, {**values, **parts})), parts)
    return [(list(words), parts) for words, parts in made.items()]


def parts_of(job: str, naming: str) -> dict[str, str]:
    """What a job's name is made of. Raises DeployError."""
    match = re.fullmatch(naming, job)
    if match is None:
        raise DeployError(f"{job!r} is no name of a job here")
    return match.groupdict(default="")


def _filled(line: str, values: Mapping[str, str], quotes: bool = False) -> str | None:
    """None if a value in it is not stated."""
    found = [match[2] or match[4] for match in _FIELD.finditer(line)]
    unknown = [name for name in found if name not in values]
    if unknown:
        raise DeployError(
            f"a template names {{{{{unknown[0]}}}}}, which is none of {', '.join(sorted(values))}"
        )
    if any(match[4] and not values[match[4]] for match in _FIELD.finditer(line)):
        return None
    if not quotes:
        return _FIELD.sub(lambda match: _value(match, values), line)
    return "".join(_quoted(word, values) for word in re.split(r"(\s+)", line))


def _value(match: re.Match[str], values: Mapping[str, str]) -> str:
    if match[4]:
        return values[match[4]]
    value = values[match[2]]
    return f"{match[1]}{value}{match[3]}" if value else ""


def _quoted(word: str, values: Mapping[str, str]) -> str:
    """A word of a template, filled, and quoted if it would be taken apart else. (Requirements that are all of
    a word may be several, and more options.)"""
    filled = _FIELD.sub(lambda match: _value(match, values), word)
    if filled == word or word == "{{requirements}}" or not re.search(r"\s", filled):
        return filled
    mark = "'" if '"' in filled else '"'
    return f"{mark}{filled}{mark}"


# -- what commands print ------------------------------------------------------------------------------------


def parse_submitted(submit: Submit, text: str, count: int) -> list[str]:
    """The names of the jobs. Raises DeployError."""
    match = re.search(submit.id, text, re.MULTILINE)
    if match is None:
        raise DeployError(f"{submit.command[0]} named no job; it said: {text.strip() or 'nothing'}")
    parts = match.groupdict(default="")
    if "jobs" in parts:
        return re.findall(r"[^\s,]+", parts["jobs"])
    indices = range(submit.first, submit.first + count)
    return [render_command([submit.each], {**parts, "index": str(index)})[0] for index in indices]


def parse_status(
    template: Template, query: Query, text: str, asked: Mapping[str, str]
) -> dict[str, JobStatus]:
    """The jobs that a query's output tells of, by name. ``asked``: parts of the name that was asked for."""
    if query.unwrap:
        text = re.sub(query.unwrap, "", text)
    cuts = [0, *(match.start() for match in re.finditer(query.split, text, re.MULTILINE)), len(text)]
    parts = (_parse_part(template, query, text[begin:end], asked) for begin, end in itertools.pairwise(cuts))
    return {told.job: told for told in parts if told is not None}


def _parse_part(template: Template, query: Query, part: str, asked: Mapping[str, str]) -> JobStatus | None:
    fields = {name: _search(pattern, part) for name, pattern in query.fields.items()}
    if any(value is None for name, value in fields.items() if name not in _ABOUT_JOBS):
        return None
    known = {name: value or "" for name, value in fields.items()}
    job = render_command([query.job], {**asked, **known})
    state = state_of(template, known.get("state", ""), query.state or query.only)
    if not job or state is None:
        return None
    code = _exit_code(known.get("exit_code", "")) if state.is_over else None
    return JobStatus(job[0], state, known.get("reason", "").strip(), code, known.get("host", ""))


def state_of(template: Template, word: str, otherwise: str) -> JobState | None:
    """None for a word that stands for no job at all, as the row of a whole array does."""
    if not word:
        return JobState(otherwise) if otherwise else None
    for pattern, state in template.states.items():
        if re.fullmatch(pattern, word):
            return JobState(state) if state else None
    # A word that the template does not know: the job is there, and that is all that is certain.
    return JobState.RUNNING


def _search(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return None if match is None else (match[1] or "")


def _exit_code(text: str) -> int | None:
    """PBS adds 256 to the number of a signal; what it has below 0 are notes of its own."""
    code = int(text) if text.isdigit() else None
    return code if code is None or code <= 256 else 256 - code


# -- checks -------------------------------------------------------------------------------------------------


def _complaints(template: Template) -> Iterable[str]:
    patterns = [template.naming, template.cancel.harmless, *template.states]
    submits = [template.submit, *([template.submit.one] if template.submit.one else [])]
    patterns += [submit.id for submit in submits]
    for query in template.status:
        patterns += [query.split, query.unwrap, query.harmless, *query.fields.values()]
        for name, pattern in query.fields.items():
            if _compiles(pattern) and not re.compile(pattern).groups:
                yield f"status: the pattern of {name} has no group"
    yield from (f"{pattern!r} is no pattern" for pattern in patterns if not _compiles(pattern))
    states = [
        *template.states.values(),
        *(word for query in template.status for word in (query.state, query.only)),
    ]
    known = {state.value for state in JobState}
    yield from (
        f"{state!r} is none of {', '.join(sorted(known))}" for state in states if state and state not in known
    )
    for submit in submits:
        if not submit.command:
            yield "submit: no command"
        if _compiles(submit.id) and not submit.each and "jobs" not in re.compile(submit.id).groupindex:
            yield "submit: say how jobs are named: each, or a group (?P<jobs>...) in id"
    if not template.status:
        yield "there is no command to ask for the status of jobs"


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
