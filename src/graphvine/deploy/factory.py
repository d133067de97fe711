"""A factory: keeps workers for a manager in another process, or on another machine, and for the next one.

It waits for a manager of its name, hears from it what its work asks for, and has a supervisor keep as many
workers. When that manager ends, its jobs are cancelled, and the next manager of that name is waited for.

For what a directory holds (connection files of managers, the configuration file) it looks whenever it is
awake, and is awake every two seconds at least: these directories often lie on network file systems, where
the kernel tells nobody of what other machines write.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zmq

from graphvine.deploy.attendant import Attendant
from graphvine.deploy.batch import BatchSystem
from graphvine.deploy.cluster import LOCAL_LIMITS, JobsDirectory
from graphvine.deploy.errors import DeployError
from graphvine.deploy.factory_options import FactoryOptions, make_options, parse_config
from graphvine.deploy.fleet import Limits
from graphvine.deploy.local import Local
from graphvine.deploy.options import add_job_options
from graphvine.deploy.spec import WorkerSpec, parse_s
from graphvine.deploy.supervisor import Supervisor
from graphvine.deploy.systems import make_system, names
from graphvine.protocol.connection import (
    Connection,
    ConnectionFileError,
    connection_files,
    read_connection,
    sweep_connections,
)
from graphvine.protocol.messages import Demand
from graphvine.protocol.node import process_exists
from graphvine.protocol.stopping import catch_signals
from graphvine.protocol.usage import Parser

log = logging.getLogger("graphvine.factory")

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: What TaskVine calls batch systems.
_TASKVINES = {"condor": "htcondor", "uge": "sge", "moab": "torque"}
_LOOK_S = 2.0
#: A manager that has ended, or can't be reached, is left alone for so long, if its file is still there.
_AVOID_S = 60.0


class Factory:
    """``said``: the options, by name, without those of the configuration file. ``ends`` are descriptors that
    end it when they can be read. ``stays``: asked at each look whether to go on."""

    def __init__(
        self,
        said: Mapping[str, Any],
        config_file: str = "",
        ends: Sequence[int] = (),
        stays: Callable[[], bool] = lambda: True,
    ) -> None:
        """Raises DeployError."""
        self._said = dict(said)
        self._config_file = config_file
        self._config_seen: object = None
        self._ends = ends
        self._stays = stays
        self.options = self._read_options()
        self._system, self._limits = system_for(self.options)
        self._spec = prepared(self.options)  # packing may take a while
        self._session: _Session | None = None
        self._avoided: dict[tuple[object, ...], float] = {}
        """Managers that could not be served, and until when they are left alone."""
        self._told: set[str] = set()
        self._waiting = False
        """For a manager, and it was said."""
        self._seen_at = time.monotonic()

    def run(self) -> str:
        """Until it is told to end, or no manager was seen for the stated time. Returns why it ended."""
        try:
            why = self._look_for_manager(time.monotonic())
            while why is None:
                why = self._turn()
            return why
        finally:
            self._end_session()

    def _turn(self) -> str | None:
        ended = self._wait()
        now = time.monotonic()
        if ended or not self._stays():
            return "it was told to end"
        self._look_at_config()
        if self._session is None:
            return self._look_for_manager(now)
        ending = self._session.turn(now)
        if ending is not None:
            log.info("manager %s: %s", self._session.name, ending)
            self._end_session()
            self._seen_at = now
        return None

    def _wait(self) -> bool:
        """Until something is to be seen to. True when it is to end."""
        poller = zmq.Poller()
        for descriptor in self._ends:
            poller.register(descriptor, zmq.POLLIN)
        due_s = _LOOK_S
        if self._session is not None:
            for source in self._session.attendant.sources():
                poller.register(source, zmq.POLLIN)
            deadline = self._session.attendant.deadline()
            if deadline is not None:
                due_s = min(due_s, max(0.0, deadline - time.monotonic()))
        return any(source in self._ends for source, _ in poller.poll(int(due_s * 1000) + 1))

    # -- options ---------------------------------------------------------------------------------------

    def _read_options(self) -> FactoryOptions:
        said = dict(self._said)
        if self._config_file:
            self._config_seen = _state_of(self._config_file)
            try:
                text = Path(self._config_file).read_text(encoding="utf-8")
            except (OSError, UnicodeError) as error:
                raise DeployError(f"can't read {self._config_file}: {error}") from None
            said.update(parse_config(text, self._config_file))
        return make_options(said)

    def _look_at_config(self) -> None:
        """Read the configuration file again when it has changed."""
        if not self._config_file or _state_of(self._config_file) == self._config_seen:
            return
        before = self.options
        try:
            options = self._read_options()
            self._spec = prepared(options)
        except DeployError as error:
            log.warning("the configuration stays as it was: %s", error)
            return
        if options == before:
            return
        self.options = options
        log.info("%s has changed", self._config_file)
        for name in ("batch_type", "scratch_dir", "option", "not_shared"):
            if getattr(before, name) != getattr(self.options, name):
                log.warning("%s can't be changed while a factory runs", name.replace("_", "-"))
        session = self._session
        if session is None:
            return
        whose = ("manager_name", "connection_file")
        if any(getattr(before, name) != getattr(self.options, name) for name in whose):
            log.info("another manager is wanted")
            self._end_session()
            self._avoided.clear()
        else:
            session.plan(self.options, self._spec, self._limits)

    # -- managers --------------------------------------------------------------------------------------

    def _look_for_manager(self, now: float) -> str | None:
        for path, connection in self._candidates():
            if now < self._avoided.get(_identity(connection), now):
                continue
            log.info("manager %s on %s port %d", connection.name, connection.host, connection.port)
            if self.options.batch_type != "local" and all(host in _LOOPBACK for host in connection.hosts):
                log.warning(
                    "manager %s listens on its own machine only: make it with name= or port=",
                    connection.name,
                )
            try:
                self._session = _Session(
                    self._system, path, connection, self.options, self._spec, self._limits
                )
            except DeployError as error:
                self._warn_once(f"manager {connection.name} can't be served yet: {error}")
                self._avoided[_identity(connection)] = now + _AVOID_S
                continue
            self._waiting = False
            return None
        if not self._waiting:
            self._waiting = True
            log.info("waiting for %s", self.options.whose())
        patience = self.options.factory_timeout
        if patience is not None and now - self._seen_at >= parse_s(patience):
            return f"no manager was there for {parse_s(patience):g} s"
        return None

    def _candidates(self) -> Iterator[tuple[Path, Connection]]:
        """Connection files of managers that are meant, the latest first."""
        if self.options.connection_file:
            paths = [Path(self.options.connection_file)]
        else:
            sweep_connections()
            paths = [path for path in connection_files() if self.options.matches(path.stem)]
        for path in paths:
            try:
                yield path, read_connection(path)
            except ConnectionFileError as error:
                if path.exists():
                    self._warn_once(str(error))

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._avoided[session.key] = time.monotonic() + _AVOID_S
            session.close()


class _Session:
    """One manager, while it is there."""

    def __init__(
        self,
        system: BatchSystem,
        path: Path,
        connection: Connection,
        options: FactoryOptions,
        spec: WorkerSpec,
        limits: Limits,
    ) -> None:
        self.name, self.key = connection.name, _identity(connection)
        self._path, self._connection = path, connection
        self._home = JobsDirectory(options.scratch_dir or None, keep=False)
        self.attendant = Attendant(
            connection, f"factory-{os.getpid()}", time.monotonic(), self._on_demand, self._on_lost
        )
        self._supervisor = Supervisor(
            system,
            self._connected(spec),
            self._home.path,
            self.attendant,
            limits=options.limits(limits),
            tasks_per_worker=options.tasks_per_worker,
        )
        self._supervisor.start()
        self._supervisor.adapt(options.policy())

    def turn(self, now: float) -> str | None:
        """See to all that has happened. Why it is over, if it is."""
        self.attendant.turn(now)
        if self.attendant.ending is None and self.attendant.alone and self._is_dead():
            return "its process has ended without a word"
        return self.attendant.ending

    def _is_dead(self) -> bool:
        """Whether the manager, if it was on this machine, was killed."""
        return self._connection.host == socket.gethostname() and not process_exists(self._connection.pid)

    def plan(self, options: FactoryOptions, spec: WorkerSpec, limits: Limits) -> None:
        """Other options, from now on."""
        self._supervisor.replan(
            self._connected(spec), options.limits(limits), options.policy(), options.tasks_per_worker
        )

    def close(self) -> None:
        """Cancel all jobs, and part from the manager."""
        try:
            self._supervisor.close()
        finally:
            self.attendant.close()
            self._home.remove()

    def _connected(self, spec: WorkerSpec) -> WorkerSpec:
        return msgspec.structs.replace(spec, connection_file=str(self._path))

    def _on_demand(self, demand: Demand) -> None:
        self._supervisor.on_demand(demand)

    def _on_lost(self) -> None:
        log.warning("lost the connection to manager %s; trying again", self.name)
        self._supervisor.on_manager_lost()


def prepared(options: FactoryOptions) -> WorkerSpec:
    """What each worker is, with the environment that it starts from. Raises DeployError."""
    spec = options.spec()
    if options.batch_type == "local" and not options.environment and not spec.python:
        return msgspec.structs.replace(spec, python=sys.executable)
    from graphvine.deploy.environments import prepared as with_environment

    return with_environment(spec)


def system_for(options: FactoryOptions) -> tuple[BatchSystem, Limits]:
    """The batch system of that name, and how patient to be with it. Raises DeployError."""
    if options.batch_type == "local":
        return Local(bound=True), LOCAL_LIMITS
    name = _TASKVINES.get(options.batch_type, options.batch_type)
    return make_system(name, options.option, shared=not options.not_shared), Limits()


def _identity(connection: Connection) -> tuple[object, ...]:
    """What tells one manager from all others."""
    return connection.manager_public, connection.secret, connection.host, connection.port, connection.pid


def _state_of(path: str) -> object:
    """What tells whether a file has changed."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


# -- the command ----------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """``graphvine factory``, ``vine_factory``. Returns the exit code. Raises DeployError."""
    arguments = vars(_parser().parse_args(argv))
    config_file = arguments.pop("config_file") or ""
    parent_death = arguments.pop("parent_death")
    lifeline = arguments.pop("lifeline")
    level = logging.WARNING if arguments.pop("quiet") else logging.INFO
    arguments["variables"] = dict(_variable(text) for text in arguments["variables"] or ()) or None
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    parent = os.getppid()
    ends = [sys.stdin.fileno()] if lifeline else []
    stays = (lambda: os.getppid() == parent) if parent_death else (lambda: True)
    factory = Factory(arguments, config_file, ends, stays)
    # While it packs an environment a signal ends it as it would any program: there is nothing to see to yet.
    ends.append(catch_signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    log.info("factory %d (%s) begins", os.getpid(), factory.options.batch_type)
    log.info("factory %d ends: %s", os.getpid(), factory.run())
    return 0


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    return (name, value) if sign else (name, os.environ.get(name, ""))


def _parser() -> Parser:
    parser = Parser(
        prog="graphvine factory",
        description="Keep as many workers as a manager's work asks for, from a batch system; when that "
        "manager has ended, for the next one of its name. Ends, with its jobs, on SIGTERM and Ctrl-C.",
    )
    add = parser.add_argument
    add(
        "-M",
        "--manager",
        "--manager-name",
        dest="manager_name",
        metavar="NAME",
        help="may be a regular expression",
    )
    add("--connection-file", metavar="FILE", help="of the manager, instead of its name")
    add(
        "-T",
        "--batch-type",
        metavar="TYPE",
        help=f"{', '.join(names())}, or a template's file",
    )
    add(
        "-C",
        "--config",
        "--config-file",
        dest="config_file",
        metavar="FILE",
        help="JSON; read again when it changes",
    )
    add("-S", "--scratch-dir", metavar="DIR", help="where submissions and their output lie")
    add("--factory-timeout", metavar="TIME", help="end after so long without a manager")
    add("--parent-death", action="store_true", help="end when the parent process does")
    add("--quiet", action="store_true", help="say only what is wrong")
    add("--lifeline", action="store_true", help=argparse.SUPPRESS)
    _add_numbers(parser.add_argument_group("how many"))
    add_job_options(parser)
    add("--condor-requirements", metavar="TEXT", action="append", help="as --requirements; all must hold")
    return parser


def _add_numbers(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("-w", "--min", "--min-workers", dest="min_workers", type=int, metavar="N", help="default: 0")
    add("-W", "--max", "--max-workers", dest="max_workers", type=int, metavar="N", help="default: 100")
    add(
        "--workers-per-cycle",
        type=int,
        metavar="N",
        help="at most so many new ones in 30 s (default: any number)",
    )
    add("--tasks-per-worker", type=int, metavar="N", help="default: as many as it can run at once")
    add(
        "--target-duration",
        metavar="TIME",
        help="as many as finish all known work in so long (default: 60 s)",
    )
    add("--hold", metavar="TIME", help="let a worker go that was not needed for so long (default: 60 s)")
    add("--lull", metavar="TIME", help="... or for so long, while much work waits (default: 600 s)")
