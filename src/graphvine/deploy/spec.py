"""What one job asks for and brings: `WorkerSpec`, and `make_spec`, which makes one of what users write.

A spec is plain data: each batch system renders it in its own words (`deploy.htcondor`, `deploy.slurm`,
`deploy.template`), and the job's script is a function of it (`deploy.script`). Rules:

- One job is one worker. What is asked of the batch system is what the worker offers.
- Megabytes are 2**20 bytes, and gigabytes 1024 of them, as in HTCondor, Slurm and the worker itself.
- Every path in a spec is one on the machine that submits, but for ``python`` and ``container``.
- Nothing secret is in a spec: it names the files that hold it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from graphvine.deploy.errors import DeployError
from graphvine.protocol import quantities

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

_Parsed = TypeVar("_Parsed")


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What one job asks for and brings. Make one with ``make_spec``, which checks it."""

    cores: float = 1.0
    memory_mb: int | None = None
    """None: not asked for; the worker takes what it finds. So, too, for ``disk_mb``."""
    disk_mb: int | None = None
    gpus: int = 0
    wall_time_s: int | None = None
    """The longest a job may run."""
    idle_s: float | None = None
    """A worker that had nothing to do for so long leaves."""
    grace_s: float | None = None
    """How long the batch system lets a job that it has asked to end go on."""
    features: tuple[str, ...] = ()
    archive: str = ""
    """The environment that the job brings: a tar.gz once ``deploy.environments`` has seen to it, until then
    what that is made from."""
    archive_name: str = ""
    """What its content is called (``PackedEnvironment.name``): by that a node shares one unpacked copy."""
    archive_front: int = 0
    """So many bytes of it are its front (``envs.front``), from which workers start; 0: it has none."""
    node_cache: bool = True
    """A node may keep what jobs have unpacked there for those that come later, up to a cap."""
    python: str = ""
    """Or: an interpreter with graphvine that the nodes see (shared file system, CVMFS, container)."""
    container: str = ""
    """An image, run by the batch system where it can do that, else by apptainer."""
    connection_file: str = ""
    """Brought with the job's inputs, never on a command line."""
    name: str = "graphvine"
    """What the batch system's own tools call the jobs."""
    prologue: tuple[str, ...] = ()
    """Lines of shell that run before the worker, in its own shell."""
    environment: dict[str, str] = {}
    """Variables that the worker and its tasks see."""
    directives: tuple[str, ...] = ()
    """More lines for the batch system, in its own words."""
    worker_options: tuple[str, ...] = ()
    """More options for ``python -m graphvine.worker``."""
    account: str = ""
    queue: str = ""
    """Queue, partition, or the site's word for how long jobs may be."""
    requirements: str = ""
    """Which nodes will do: ClassAd expression, constraint."""
    proxy: str = ""
    """An X.509 proxy that tasks use (X509_USER_PROXY)."""
    token: str = ""
    """A file with a bearer token that tasks use (BEARER_TOKEN_FILE)."""


def make_spec(
    *,
    cores: float = 1,
    memory: float | str | None = None,
    disk: float | str | None = None,
    gpus: int = 0,
    wall_time: float | str | None = None,
    idle: float | str | None = None,
    grace: float | str | None = None,
    features: Iterable[str] = (),
    environment: str | os.PathLike[str] = "",
    variables: Mapping[str, str] | None = None,
    prologue: str | Iterable[str] = (),
    directives: str | Iterable[str] = (),
    worker_options: str | Iterable[str] = (),
    node_cache: bool = True,
    python: str = "",
    container: str = "",
    connection_file: str = "",
    name: str = "graphvine",
    account: str = "",
    queue: str = "",
    requirements: str = "",
    proxy: str = "",
    token: str = "",
) -> WorkerSpec:
    """The spec of what a user wrote: "8GB", "2h", one line or several. Numbers alone are MB and seconds.

    ``environment``: what jobs bring: "current", an archive, a prefix; packed when it is needed
    (``deploy.environments``). ``variables``: for the worker and its tasks. ``node_cache``: whether a node may
    keep anything of it when the jobs are over.

    Raises DeployError, with everything that is wrong in one message."""
    problems = _Problems()
    spec = WorkerSpec(
        cores=problems.of("cores", parse_cores, cores) or 1.0,
        memory_mb=problems.of("memory", parse_mb, memory),
        disk_mb=problems.of("disk", parse_mb, disk),
        gpus=problems.of("gpus", _parse_count, gpus) or 0,
        wall_time_s=_whole(problems.of("wall_time", parse_s, wall_time)),
        idle_s=problems.of("idle", parse_s, idle),
        grace_s=problems.of("grace", parse_s, grace),
        features=lines(features),
        archive=os.fspath(environment),
        node_cache=node_cache,
        python=python,
        container=container,
        connection_file=connection_file,
        name=name,
        prologue=lines(prologue),
        environment={key: str(value) for key, value in (variables or {}).items()},
        directives=lines(directives),
        worker_options=(worker_options,) if isinstance(worker_options, str) else tuple(worker_options),
        account=account,
        queue=queue,
        requirements=requirements,
        proxy=proxy,
        token=token,
    )
    problems.found += [f"variable {key} is None" for key, value in (variables or {}).items() if value is None]
    problems.found += complaints(spec)
    if problems.found:
        raise DeployError("; ".join(problems.found))
    return spec


def complaints(spec: WorkerSpec) -> list[str]:
    """What is wrong with a spec, in words; nothing of it is looked up on a file system."""
    found = []
    if spec.archive and spec.python:
        found.append("give an environment that the job brings, or python= that is there, not both")
    found += [
        f"{key!r} is no name for a variable" for key in spec.environment if not _VARIABLE.fullmatch(key)
    ]
    found += [f"{name!r} is no name for a feature" for name in spec.features if not _NAME.fullmatch(name)]
    if not _NAME.fullmatch(spec.name):
        found.append(f"{spec.name!r} is no name for jobs: letters, digits and . _ + - only")
    for field in ("account", "queue", "requirements", "python", "container", "proxy", "token"):
        if _has_control(getattr(spec, field)):
            found.append(f"{field} has a line break or another control character in it")
    found += [f"variable {key} holds a NUL byte" for key, value in spec.environment.items() if "\0" in value]
    found += [f"{what} holds bytes that are no text in UTF-8" for what, text in _texts(spec) if _is_odd(text)]
    if spec.wall_time_s is not None and spec.wall_time_s < 60:
        found.append(f"wall_time: {spec.wall_time_s} s is too short for any work (numbers alone are seconds)")
    return found


def parse_mb(text: float | str) -> int:
    """Megabytes (2**20 bytes), rounded up: 8000, "8000", "8GB", "8 GiB", "500M". Raises DeployError."""
    megabytes = _read(quantities.parse_mb, text)
    if not (math.isfinite(megabytes) and megabytes > 0):
        raise DeployError(f"{text!r} is no size")
    return math.ceil(megabytes)


def parse_s(text: float | str) -> float:
    """Seconds: 7200, "2h", "90 min", "1d", "01:30:00", "1-12:00:00". Raises DeployError."""
    seconds = _read(quantities.parse_s, text)
    if not (math.isfinite(seconds) and seconds > 0):
        raise DeployError(f"{text!r} is no time")
    return seconds


def parse_cores(text: float | str) -> float:
    """A number of cores above 0. Raises DeployError."""
    try:
        cores = float(text)
    except ValueError:
        cores = 0.0
    if not (math.isfinite(cores) and cores > 0):
        raise DeployError(f"{text!r} is no number of cores")
    return cores


def lines(text: str | Iterable[str]) -> tuple[str, ...]:
    """The lines of a text, or of several; empty ones are left out."""
    parts = [text] if isinstance(text, str) else list(text)
    return tuple(line for part in parts for line in part.splitlines() if line.strip())


def _read(parse: Callable[[str], float], written: float | str) -> float:
    if not isinstance(written, str):
        return float(written)
    try:
        return parse(written)
    except ValueError as error:
        raise DeployError(str(error)) from None


def _parse_count(text: float | str) -> int:
    number = float(text)
    if number != int(number) or number < 0:
        raise DeployError(f"{text!r} is no count")
    return int(number)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)


def _texts(spec: WorkerSpec) -> Iterator[tuple[str, str]]:
    """All that is written into scripts and submissions, and what it is."""
    for name, value in msgspec.structs.asdict(spec).items():
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, tuple):
            yield from ((name, text) for text in value)
    yield from ((f"variable {name}", value) for name, value in spec.environment.items())


def _is_odd(text: str) -> bool:
    """Whether it has halves of characters in it, as Python makes them of bytes that are no UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _has_control(text: str) -> bool:
    return any(character < " " or character == "\x7f" for character in text)


class _Problems:
    """Collects what is wrong, so that a user hears all of it at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def of(
        self, what: str, parse: Callable[[float | str], _Parsed], value: float | str | None
    ) -> _Parsed | None:
        if value is None:
            return None
        try:
            return parse(value)
        except (DeployError, TypeError, ValueError) as error:
            self.found.append(f"{what}: {error}")
            return None
