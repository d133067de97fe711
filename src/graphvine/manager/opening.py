"""The parts of an open manager (gate, connection file, core, loop, embedded worker), put together.

Makes sure that nothing stays behind when the manager is closed, no longer used, or the interpreter ends.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import msgspec

from graphvine.manager.core import Core
from graphvine.manager.descriptors import no_room
from graphvine.manager.embedded import Embedded
from graphvine.manager.gate import Gate, Port
from graphvine.manager.local import LocalWish, LocalWorker
from graphvine.manager.loop import Loop
from graphvine.manager.settings import Settings
from graphvine.observe.printer import Printer
from graphvine.protocol.addresses import host_addresses
from graphvine.protocol.connection import (
    Connection,
    ConnectionFileError,
    make_connection,
    state_directory,
    sweep_connections,
    write_connection,
)
from graphvine.protocol.directories import OwnedDirectory
from graphvine.protocol.errors import NoWorkerError
from graphvine.protocol.node import node_id
from graphvine.protocol.passwords import Keys, derive

_counter = itertools.count(1)
#: A local worker may take so long to start (a cold file system, a busy machine) before anybody is alarmed.
_LOCAL_WORKER_S = 30.0
#: Batch systems take their time, and a cluster says itself when nothing starts.
_CLUSTER_S = 300.0
_LOOPBACK = "127.0.0.1"
_NO_SECURITY = (
    'security="none" was asked for: whoever reaches port %d of this machine can join as a worker, read and '
    "change all data, and have this process run what it likes"
)

log = logging.getLogger("graphvine.manager")


class Opening:
    """What ``Manager`` stands on: ``loop``, ``embedded``, ``connection``, ``connection_files``."""

    def __init__(
        self,
        port: Port,
        name: str | None,
        host: str | None,
        public: bool,
        wish: LocalWish,
        worker: LocalWorker,
        scratch: OwnedDirectory,
        settings: Settings | None,
        show_output: bool,
        secure: bool,
        encrypted: bool,
        password: str = "",
        clustered: bool = False,
    ) -> None:
        """Arguments as those of ``Manager``; ``public``: other machines can reach it; ``worker`` may be
        launched already; ``clustered``: a cluster starts workers. Raises PortInUseError, ValueError,
        NoWorkerError when this process may not have files enough open to be connected to any."""
        if reason := no_room(0):
            raise NoWorkerError(reason)
        keys = derive(password) if password else None
        self._listen_on = host or ("*" if public else _LOOPBACK)
        gate = self._open_gate(port, secure, keys)
        hosts = _reachable_hosts() if public and host in (None, "*") else (host or _LOOPBACK,)
        name = name or f"graphvine-{os.getpid()}-{next(_counter)}"
        self.connection = _with_keys(make_connection(name, hosts, gate.port, gate.manager_public), keys)
        if secure:
            gate.admit(self.connection)
        else:
            log.warning(_NO_SECURITY, gate.port)
        try:
            self.connection_files = [_announce(self.connection)]
        except BaseException:
            gate.close()
            raise
        settings = msgspec.structs.replace(
            self._advised(settings or Settings(), public, wish, clustered),
            encrypted=encrypted,
            # Who has a password instead of a connection file does not know it either.
            told_secret=self.connection.secret,
        )
        trees = os.path.join(scratch.path, "trees")
        self.loop = Loop(gate, Core(settings), node_id(), self.connection.secret, trees)
        self.embedded = Embedded(self.loop, self.connection, wish, worker)
        printer = Printer()
        if show_output:
            self.loop.on_output = lambda said: printer.put(said.stream, said.data, said.left_out)
            self.loop.flush_output = printer.flush
        #: What else is to be closed, once the workers were told to leave.
        self.at_close: list[Callable[[], None]] = []
        self._closer = weakref.finalize(
            self,
            _close,
            self.loop,
            self.embedded,
            printer,
            self.connection_files,
            scratch,
            os.getpid(),
            self.at_close,
        )
        # Ours to run, before threads are joined and modules taken apart.
        self._closer.atexit = False
        atexit.register(self._closer)
        self.loop.start()

    def _open_gate(self, port: Port, secure: bool, keys: Keys | None) -> Gate:
        pair = (keys.manager_public.encode(), keys.manager_secret.encode()) if keys is not None else None
        return Gate(self._listen_on, port, time.monotonic, secure=secure, keys=pair)

    def set_password(self, password: str) -> None:
        """Have all keys be those of a password from now on. Raises ValueError when there are workers, or none
        are needed, ManagerClosedError."""
        if not self.connection.manager_public:
            raise ValueError('security="none" was asked for: there is no password')
        keys = derive(password)
        self.loop.ask(lambda: self._change_keys(keys))

    def _change_keys(self, keys: Keys) -> None:
        if self.loop.workers() or self.embedded.is_told:
            raise ValueError("set the password before workers join, or give Manager(password_file=...)")
        connection = _with_keys(self.connection, keys)

        def make() -> Gate:
            gate = self._open_gate(connection.port, True, keys)
            gate.admit(connection)
            return gate

        self.loop.replace_gate(make)
        self.embedded.change_connection(connection)
        self.connection = connection
        for path in self.connection_files:
            path.unlink(missing_ok=True)
            write_connection(msgspec.structs.replace(connection, name=path.stem), path)

    def rename(self, name: str) -> None:
        """Have another connection file, of that name. Raises ValueError."""
        if name != self.connection.name:
            connection = msgspec.structs.replace(self.connection, name=name)
            self.connection_files.append(_announce(connection))
            self.connection = connection

    @property
    def closed(self) -> bool:
        return not self._closer.alive

    def close(self) -> None:
        """Stop everything. Safe to call twice."""
        self._closer()
        atexit.unregister(self._closer)

    def _advised(self, settings: Settings, public: bool, wish: LocalWish, clustered: bool) -> Settings:
        """``settings`` with what to do when there is no worker, said later where one is being started."""
        if wish.when != "never" or clustered:
            patience_s = _CLUSTER_S if clustered else _LOCAL_WORKER_S
            patience_s = max(settings.first_worker_s, patience_s)
            settings = msgspec.structs.replace(settings, first_worker_s=patience_s)
        host = self.connection.hosts[0] if public else "localhost"
        advice = f"start one with: graphvine worker {host} {self.connection.port}"
        if not self.connection.manager_public:
            advice += " --security none"
        elif public:
            file = self.connection_files[-1]
            advice += f" (from another machine: graphvine worker --connection-file {file})"
        if clustered:
            advice = "its cluster's status() says what became of those that were asked for"
        return msgspec.structs.replace(
            settings, how_to_join=settings.how_to_join or advice, node=settings.node or node_id()
        )


def _with_keys(connection: Connection, keys: Keys | None) -> Connection:
    """A connection with the keys of a password, if there is one. The secret stays: workers are told it."""
    if keys is None:
        return connection
    return msgspec.structs.replace(
        connection,
        manager_public=keys.manager_public,
        worker_public=keys.worker_public,
        worker_secret=keys.worker_secret,
    )


def _announce(connection: Connection) -> Path:
    """Write the connection file. Raises ValueError when one of that name runs, ConnectionFileError."""
    path = state_directory() / f"{connection.name}.json"
    sweep_connections()
    try:
        write_connection(connection, path)
    except FileExistsError:
        raise ValueError(
            f"a manager named {connection.name!r} runs already: choose another name, "
            f"or remove {path} if it does not run any more"
        ) from None
    except OSError as error:
        raise ConnectionFileError(
            f"the manager's connection file cannot be written to {path.parent}: {error}; "
            "set GRAPHVINE_STATE to a directory of yours"
        ) from None
    return path


def _reachable_hosts() -> tuple[str, ...]:
    """Where a worker may find this machine: its addresses, then its name, then loopback."""
    return tuple(dict.fromkeys([*host_addresses(), socket.gethostname(), _LOOPBACK]))


def _close(
    loop: Loop,
    embedded: Embedded,
    printer: Printer,
    connection_files: list[Path],
    scratch: OwnedDirectory,
    pid: int,
    at_close: list[Callable[[], None]],
) -> None:
    if os.getpid() != pid:
        return  # a forked child: the manager is its parent's
    for path in connection_files:
        path.unlink(missing_ok=True)
    loop.close("the manager is closed")
    try:
        for callback in at_close:
            callback()
    finally:
        embedded.stop()
        printer.close()
        scratch.remove()
