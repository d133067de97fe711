"""The connection file: all that a worker needs to find a manager and to prove that it may join.

One JSON file per manager, readable by its owner only. It is the key of CurveZMQ (RFC 26): a worker knows the
manager's public key from it, and holds the one client key the manager lets in. ``secret`` authenticates
the links between workers over which bulk data goes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from pathlib import Path

import msgspec
import zmq

from graphvine.protocol.node import process_exists


class Connection(msgspec.Struct, frozen=True):
    """How to reach one manager, at one of several hosts. Keys are in Z85, "" where the manager has none (it
    was told to take anybody), ``secret`` in hex."""

    name: str
    hosts: tuple[str, ...]
    port: int
    manager_public: str
    worker_public: str
    worker_secret: str
    secret: str
    host: str
    """The manager's own host name, on which it is process ``pid``."""
    pid: int


class ConnectionFileError(Exception):
    """A connection file that is not there, not ours, or readable by others; the message says which."""


def state_directory() -> Path:
    """Where connection files of this user's running managers lie: GRAPHVINE_STATE, or XDG's state home; where
    there is none that can be written to (containers, daemons), one below the temporary directory."""
    stated = os.environ.get("GRAPHVINE_STATE")
    if stated:
        return Path(stated)
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if os.path.isabs(base) and _is_writable(base):
        return Path(base, "graphvine")
    return Path(tempfile.gettempdir(), f"graphvine-state-{os.getuid()}")


def connection_files() -> list[Path]:
    """Those of this user's running managers, the latest first. Some may be damaged, or go just now."""
    return sorted(state_directory().glob("*.json"), key=_changed_at, reverse=True)


def _changed_at(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _is_writable(path: str) -> bool:
    """Whether a directory can be written to, or made."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


def make_connection(name: str, hosts: tuple[str, ...], port: int, manager_public: str) -> Connection:
    """A connection to the manager of that public key, with a fresh worker key and secret. "" for the public
    key: there are no keys, but a secret for the bulk links."""
    worker_public, worker_secret = zmq.curve_keypair() if manager_public else (b"", b"")
    return Connection(
        name=name,
        hosts=hosts,
        port=port,
        manager_public=manager_public,
        worker_public=worker_public.decode(),
        worker_secret=worker_secret.decode(),
        secret=secrets.token_hex(32),
        host=socket.gethostname(),
        pid=os.getpid(),
    )


def keyless_connection(host: str, port: int) -> Connection:
    """To a manager that takes anybody, by whoever has no connection file of it. The manager tells the
    secret."""
    return Connection(f"{host}:{port}", (host,), port, "", "", "", "", host, 0)


def write_connection(connection: Connection, path: Path) -> None:
    """Write it so that nobody else can read it, at no time, and nobody finds half of it. Raises
    FileExistsError, OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(connection))
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    _write_new(scratch, data)
    try:
        os.link(scratch, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links.
        _write_new(path, data)
    finally:
        scratch.unlink()


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def sweep_connections() -> None:
    """Remove this user's connection files on this host whose manager is dead (it was killed)."""
    host = socket.gethostname()
    for path in state_directory().glob("*.json"):
        try:
            connection = read_connection(path)
        except ConnectionFileError:
            continue  # not one of ours, or going away just now
        if connection.host == host and not process_exists(connection.pid):
            path.unlink(missing_ok=True)


def parse_connection(data: bytes, origin: str) -> Connection:
    """The connection in the text of a connection file. Raises ConnectionFileError."""
    try:
        return msgspec.json.decode(data, type=Connection)
    except (ValueError, RecursionError) as error:
        raise ConnectionFileError(f"{origin} is not a graphvine connection file: {error}") from None


def read_connection(path: Path) -> Connection:
    """Read a connection file. Raises ConnectionFileError: also when it is another user's, since who made it
    says what this process is to run."""
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            data = file.read()
    except OSError as error:
        raise ConnectionFileError(f"cannot read the connection file {path}: {error.strerror}") from None
    if state.st_mode & 0o077:
        raise ConnectionFileError(f"{path} can be read by others; run: chmod 600 {path}")
    # In a container the user may be root, and the file lie on a disk that comes from outside.
    if os.geteuid() not in (0, state.st_uid):
        raise ConnectionFileError(f"{path} belongs to another user; copy it, and use the copy")
    return parse_connection(data, str(path))


def find_connection(port: int) -> Connection:
    """The connection of this user's manager on ``port``. Raises ConnectionFileError."""
    directory = state_directory()
    problem = ""
    for path in sorted(directory.glob("*.json"), key=_modified_s, reverse=True):
        try:
            connection = read_connection(path)
        except ConnectionFileError as error:
            # Perhaps the one that is looked for, perhaps one that goes away just now.
            problem = problem or f" ({error})"
            continue
        if connection.port == port:
            return connection
    raise ConnectionFileError(
        f"no connection file for port {port} in {directory}{problem}. The manager writes one "
        "(manager.connection_file): copy it to this machine and give it with --connection-file."
    )


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
