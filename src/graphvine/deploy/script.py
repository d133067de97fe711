"""The script of a job: text for a POSIX shell that starts one worker on a bare node.

What a spec says becomes a few assignments in front of ``job.sh``, which is the same for all jobs; the user's
own lines, and the start of the worker, come after it. What a node must have is a shell, and tar and gzip
where the job brings an environment; nothing else is assumed:

- No PATH and no HOME: what is missing is set. Nothing is written outside the scratch directory, but for the
  node's cache (``envs.cache``) where the spec lets a node keep anything: there jobs of one user share one
  copy of the environment they bring. Whatever is in the way of that, a job unpacks its own.
- Where the batch system gives no scratch directory, the script makes one and removes it at the end; then its
  shell stays and hands signals on. Otherwise the worker takes the shell's place, and its signals with it.
- A brought environment is made fit for its path and activated; then come the user's own lines and variables,
  so that those count.
- Nothing secret passes here where that can be helped: the connection file is named, not quoted.
- Whatever is missing is one line on standard error, and an exit code of ``EXIT_CODES``.
"""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Mapping
from pathlib import Path

import msgspec

from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec

#: What the exit codes of ``job.sh`` mean. The worker's own are 0, 1 and those of signals.
EXIT_CODES = {
    70: "a program that the job needs is not on its node",
    71: "the environment did not arrive, or could not be unpacked",
    72: "there is no scratch directory that can be written to",
    73: "there is no Python that starts",
    74: "the connection file did not arrive",
    75: "the wall time was over before the worker could start",
}

_BODY = Path(__file__).with_name("job.sh")
#: Variables that count before the user's own lines have run, too.
_EARLY = frozenset({"GRAPHVINE_CACHE_DIR", "GRAPHVINE_CACHE_MB"})


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch system promises a script: each a word of shell, quoted as it has to be, expanded in the
    job. Paths are absolute: the script changes to its scratch directory."""

    connection_file: str
    connection_text: str = ""
    """All of it, where the batch system brings nothing but the script: written into the scratch directory."""
    job: str = ""
    """The job's name, as the batch system's own module calls it."""
    scratch: str = ""
    """A directory of the job's own; "" where there is none."""
    archive: str = ""
    proxy: str = ""
    token: str = ""
    memory_mb: str = ""
    """What was granted, for where the spec leaves that to the batch system. So, too, ``disk_mb``."""
    disk_mb: str = ""
    grace_s: str = ""
    """How long a job may go on that is told to end, where the spec leaves that to the batch system."""
    archive_is_a_copy: bool = False
    """The job's own: removed once it is unpacked."""
    runs_container: bool = False
    """The batch system runs the image; else the script does, by apptainer."""


def render_script(spec: WorkerSpec, around: Surroundings) -> str:
    """The whole script. Raises DeployError for a spec that brings no environment and names no Python."""
    if not spec.archive and not spec.python:
        raise DeployError("a job needs an environment to bring, or python=: an interpreter that its node has")
    return "\n".join(
        [
            "#!/bin/sh",
            *(f"gv_{name}={word}" for name, word in _words(spec, around).items()),
            *_exports({name: value for name, value in spec.environment.items() if name in _EARLY}),
            "",
            _BODY.read_text(encoding="utf-8"),
            *spec.prologue,
            *_exports(spec.environment),
            "gv_start " + shlex.join(worker_options(spec)),
            "",
        ]
    )


def worker_options(spec: WorkerSpec) -> list[str]:
    """Options of ``python -m graphvine.worker`` but for those that only the job itself knows."""
    options = ["--cores", f"{spec.cores:g}"]
    for name, value in (("--timeout", spec.idle_s), ("--grace", spec.grace_s)):
        if value is not None:
            options += [name, f"{value:g}"]
    for feature in spec.features:
        options += ["--feature", feature]
    return [*options, *spec.worker_options]


def _exports(variables: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]


def _user() -> str:
    """Whose jobs these are: a node's cache is shared by those that run as the same user. "" if it has no
    name: then none is."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


def _words(spec: WorkerSpec, around: Surroundings) -> dict[str, str]:
    """The variables that ``job.sh`` goes by."""
    return {
        "connection_file": around.connection_file,
        "connection_text": around.connection_text,
        "job": around.job,
        "scratch": around.scratch,
        "archive": around.archive if spec.archive else "",
        # The user's own lines may run anything that is in the environment.
        "front": str(spec.archive_front) if spec.archive and spec.archive_front and not spec.prologue else "",
        "name": shlex.quote(spec.archive_name) if spec.archive and spec.node_cache else "",
        "keeps": "1" if spec.node_cache else "",
        "user": shlex.quote(_user() or "?"),
        "archive_is_a_copy": "1" if around.archive_is_a_copy else "",
        "python": shlex.quote(spec.python) if spec.python else "",
        "image": shlex.quote(spec.container) if spec.container and not around.runs_container else "",
        "gpus": str(spec.gpus),
        "proxy": around.proxy if spec.proxy else "",
        "token": around.token if spec.token else "",
        "memory_mb": around.memory_mb if spec.memory_mb is None else str(spec.memory_mb),
        "disk_mb": around.disk_mb if spec.disk_mb is None else str(spec.disk_mb),
        "grace_s": around.grace_s if spec.grace_s is None else "",
        "wall_time_s": "" if spec.wall_time_s is None else str(spec.wall_time_s),
    }
