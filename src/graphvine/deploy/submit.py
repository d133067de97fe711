"""One submission of workers from a shell: ``graphvine submit``.

What it submits stays until its manager ends, or it has been idle for long enough: nobody watches over these
jobs (``graphvine factory`` does that). Names of jobs go to standard output, one a line; what to do next to
standard error."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from graphvine.deploy.credentials import look_at
from graphvine.deploy.environments import prepared
from graphvine.deploy.errors import DeployError
from graphvine.deploy.leftovers import sweep_submissions
from graphvine.deploy.options import OF_SPEC, add_job_options
from graphvine.deploy.spec import WorkerSpec, make_spec
from graphvine.deploy.systems import System, by_hand, make_system, names
from graphvine.protocol.connection import Connection, read_connection, state_directory
from graphvine.protocol.usage import Parser

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_MOST = 100_000


def main(argv: Sequence[str]) -> int:
    """Returns the exit code. Raises DeployError, ConnectionFileError, PackedEnvironmentError."""
    options = _parser().parse_intermixed_args(argv)
    system = make_system(options.system, options.option or (), shared=not options.not_shared)
    if options.dry_run:
        return _show(system, options)
    path = find_connection_file(options.manager, options.connection_file)
    connection = read_connection(path)
    spec = prepared(spec_of(options, str(path), system.name))
    _warn_of_loopback(connection, system.name)
    for text in look_at(spec):
        print(f"graphvine: warning: {text}", file=sys.stderr)
    directory = _make_directory(options.directory, connection.name)
    try:
        submission = system.submit(spec, options.count, directory)
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise DeployError(f"jobs can't be prepared in {directory}: {error}") from error
        raise
    print("\n".join(submission.jobs), flush=True)
    print(_advice(system, submission.jobs, submission.directory, connection.name), file=sys.stderr)
    return 0


def _show(system: System, options: argparse.Namespace) -> int:
    """Print what would be submitted; the manager need not be there yet. Raises DeployError."""
    try:
        path = find_connection_file(options.manager, options.connection_file)
    except DeployError as error:
        path = state_directory() / f"{options.manager or 'MANAGER'}.json"
        print(f"graphvine: {error}", file=sys.stderr)
    spec = prepared(spec_of(options, str(path), system.name))
    print(system.preview(spec, options.count, _parent(options.directory) / f"{path.stem}-XXXXXXXX"))
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
    said = {name: value for name, value in vars(options).items() if name in OF_SPEC and value is not None}
    if "variables" in said:
        said["variables"] = dict(_variable(text) for text in said["variables"])
    if "worker_options" in said:
        said["worker_options"] = shlex.split(said["worker_options"])
    for name in ("proxy", "token"):
        said[name] = _existing(said.get(name, ""))
    if not (said.get("python") or said.get("environment")):
        said |= {"python": sys.executable} if system == "local" else {"environment": "current"}
    return make_spec(connection_file=connection_file, **said)


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise DeployError(f"--env takes NAME=VALUE, not {text!r}")
    return name, value


def _existing(path: str) -> str:
    if path and not Path(path).is_file():
        raise DeployError(f"there is no file {path}")
    return str(Path(path).absolute()) if path else ""


def _parent(stated: str | None) -> Path:
    return Path(stated).absolute() if stated else state_directory() / "jobs"


def _make_directory(stated: str | None, manager: str) -> Path:
    """A new directory that only its owner may enter; those that nobody needs any more go. Raises
    DeployError."""
    parent = _parent(stated)
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep_submissions(parent, time.time())
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


def _parser() -> Parser:
    parser = Parser(
        prog="graphvine submit",
        description="Submit workers for a manager that runs to a batch system, all in one submission.",
        epilog="example: graphvine submit slurm --manager analysis --cores 4 --memory 8GB --wall-time 2h 50",
    )
    parser.add_argument("system", metavar="SYSTEM", help=f"{', '.join(names())}, or a template's file")
    parser.add_argument(
        "count", metavar="COUNT", nargs="?", type=_count, default=1, help="how many (default: 1)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted")
    manager = parser.add_argument_group("manager")
    manager.add_argument("-M", "--manager", metavar="NAME", help="default: the only one that runs")
    manager.add_argument("--connection-file", metavar="FILE", help="instead of a name")
    parser.wanted = "SYSTEM, and how many"
    add_job_options(parser)
    parser.add_argument("--directory", metavar="DIR", help="for scripts and outputs; nodes must see it")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST}")
    return int(text)
