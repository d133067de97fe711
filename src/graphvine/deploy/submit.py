"""One submission of workers from a shell: ``graphvine submit``.

What it submits stays until its manager ends, or it has been idle for long enough: nobody watches over these
jobs (``graphvine factory`` does that). Names of jobs go to standard output, one a line; what to do next to
standard error."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from graphvine.deploy.environments import prepared
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec, make_spec
from graphvine.deploy.systems import System, by_hand, make_system, names
from graphvine.protocol.connection import Connection, read_connection, state_directory

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_MOST = 100_000


def main(argv: Sequence[str]) -> int:
    """Returns the exit code. Raises DeployError, ConnectionFileError, PackedEnvironmentError."""
    options = _parser().parse_intermixed_args(argv)
    system = make_system(options.system, options.option, shared=not options.not_shared)
    path = find_connection_file(options.manager, options.connection_file)
    connection = read_connection(path)
    spec = prepared(spec_of(options, str(path), system.name))
    if options.dry_run:
        print(system.preview(spec, options.count, _parent(options.directory) / f"{connection.name}-XXXXXXXX"))
        return 0
    _warn_of_loopback(connection, system.name)
    submission = system.submit(spec, options.count, _make_directory(options.directory, connection.name))
    print("\n".join(submission.jobs), flush=True)
    print(_advice(system, submission.jobs, submission.directory, connection.name), file=sys.stderr)
    return 0


# -- the manager --------------------------------------------------------------------------------------------


def find_connection_file(manager: str | None, stated: str | None) -> Path:
    """The connection file that was stated, or that of this user's manager of that name, or of the only one
    there is. Raises DeployError."""
    if stated:
        return Path(stated).absolute()
    directory = state_directory()
    running = sorted(path.stem for path in directory.glob("*.json"))
    if manager is None and len(running) == 1:
        return directory / f"{running[0]}.json"
    if manager is not None and manager in running:
        return directory / f"{manager}.json"
    asked = "which manager? Give --manager NAME" if manager is None else f"no manager is named {manager!r}"
    known = f"there are {', '.join(running)}" if running else f"there is none in {directory}"
    raise DeployError(
        f"{asked}; {known}. If it runs elsewhere, copy its connection file and give --connection-file"
    )


def _warn_of_loopback(connection: Connection, system: str) -> None:
    if system != "local" and all(host in _LOOPBACK for host in connection.hosts):
        print(
            f"graphvine: warning: the manager {connection.name} listens on its own machine only; make it "
            "with name= or port= for workers on others",
            file=sys.stderr,
        )


# -- the jobs -----------------------------------------------------------------------------------------------


def spec_of(options: argparse.Namespace, connection_file: str, system: str) -> WorkerSpec:
    """What ``add_job_options`` made of a command line. Raises DeployError."""
    variables = [text.partition("=") for text in options.env]
    wrong = [text for text, (_, equals, _) in zip(options.env, variables, strict=True) if not equals]
    if wrong:
        raise DeployError(f"--env takes NAME=VALUE, not {wrong[0]!r}")
    python = options.python
    if system == "local" and not options.environment:
        python = python or sys.executable
    return make_spec(
        cores=options.cores,
        memory=options.memory,
        disk=options.disk,
        gpus=options.gpus,
        wall_time=options.wall_time,
        idle=options.idle,
        grace=options.grace,
        features=options.feature,
        environment=options.environment or ("" if python else "current"),
        variables={name: value for name, _, value in variables},
        prologue=options.prologue,
        directives=options.directive,
        python=python,
        container=options.container,
        connection_file=connection_file,
        name=options.name,
        account=options.account,
        queue=options.queue,
        requirements=options.requirements,
        proxy=_existing(options.proxy),
        token=_existing(options.token),
    )


def _existing(path: str) -> str:
    if path and not Path(path).is_file():
        raise DeployError(f"there is no file {path}")
    return str(Path(path).absolute()) if path else ""


def _parent(stated: str | None) -> Path:
    return Path(stated).absolute() if stated else state_directory() / "jobs"


def _make_directory(stated: str | None, manager: str) -> Path:
    """A new directory that only its owner may enter. Raises DeployError."""
    parent = _parent(stated)
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{manager}-", dir=parent))
    except OSError as error:
        raise DeployError(f"can't make a directory for the jobs in {parent}: {error.strerror}") from error


def _advice(system: System, jobs: Sequence[str], directory: str, manager: str) -> str:
    look, remove = by_hand(system, jobs)
    count = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    lines = [f"{count} for the manager {manager}, with which they end"]
    lines += [f"  state   {look}"] if look else []
    lines += [f"  remove  {remove}"] if remove else []
    lines.append(f"  files   {directory}")
    return "\n".join(lines)


# -- options ------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="graphvine submit",
        description="Submit workers for a manager that runs to a batch system, all in one submission.",
        epilog="example: graphvine submit slurm --manager analysis --cores 4 --memory 8GB --wall-time 2h 50",
    )
    parser.add_argument("system", metavar="SYSTEM", help=f"{', '.join(names())}, or a template's file")
    parser.add_argument(
        "count", metavar="COUNT", nargs="?", type=_count, default=1, help="how many (default: 1)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted")
    add_job_options(parser)
    return parser


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """What is asked of a batch system and brought to it: see ``spec_of``."""
    manager = parser.add_argument_group("manager")
    manager.add_argument("-M", "--manager", metavar="NAME", help="default: the only one that runs")
    manager.add_argument("--connection-file", metavar="FILE", help="instead of a name")
    asked = parser.add_argument_group("asked for, and offered by each worker")
    asked.add_argument("--cores", metavar="N", default=1, help="default: 1")
    for name, text in (("--memory", "such as 8GB; a number alone is MB"), ("--disk", "likewise")):
        asked.add_argument(name, metavar="SIZE", help=text)
    asked.add_argument("--gpus", metavar="N", type=int, default=0)
    asked.add_argument("--wall-time", metavar="TIME", help="such as 2h; the longest a job may run")
    asked.add_argument("--idle", "--timeout", metavar="TIME", help="a worker without work for so long leaves")
    asked.add_argument("--grace", metavar="TIME", help="how long the system waits before it kills a job")
    asked.add_argument(
        "--feature", metavar="NAME", action="append", default=[], help="what tasks may ask for"
    )
    brought = parser.add_argument_group("brought")
    brought.add_argument(
        "--environment", metavar="WHAT", default="", help="archive, prefix, or current (the default)"
    )
    brought.add_argument("--python", metavar="PATH", default="", help="instead: one that nodes have")
    brought.add_argument("--container", metavar="IMAGE", default="", help="run in this image")
    brought.add_argument("--prologue", metavar="LINE", action="append", default=[], help="of shell, before")
    brought.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], help="for the worker")
    brought.add_argument("--proxy", metavar="FILE", default="", help="X.509 proxy for tasks")
    brought.add_argument("--token", metavar="FILE", default="", help="bearer token for tasks")
    site = parser.add_argument_group("what sites need")
    for name in ("--account", "--queue", "--requirements"):
        site.add_argument(name, default="", metavar=name[2:].upper())
    site.add_argument(
        "--directive", metavar="LINE", action="append", default=[], help="in the system's words"
    )
    site.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], help="of a template")
    site.add_argument("--name", default="graphvine", help="what the system calls the jobs")
    site.add_argument("--directory", metavar="DIR", help="for scripts and outputs; nodes must see it")
    site.add_argument("--not-shared", action="store_true", help="nodes see nothing of it (Slurm; see docs)")


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST}")
    return int(text)
