"""Keys from a password that both sides know: what TaskVine's password files are for.

A worker that has HOST, PORT and the password needs no connection file: manager and worker derive the same
CurveZMQ keys from it, with scrypt (RFC 7914), N = 2**16, r = 8, p = 1: 64 MB and about 0.2 s a try. The salt
is the same for all, as a worker has nothing else to know it by. So:

- Whoever has the password is manager or worker, as the connection file's reader is.
- Whoever records a connection, or tries to connect, can try passwords, one a scrypt each. A short one is
  found; one that was made at random (``openssl rand -base64 24``) is not.
- Two managers with one password have the same keys: workers of one can join the other.
"""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from graphvine.protocol.connection import Connection, ConnectionFileError

_SALT = b"graphvine: keys from a password, 1"
_N, _R, _P = 2**16, 8, 1
_MEMORY_BYTES = 2 * 128 * _N * _R
_KEY_BYTES = 32


class Keys(msgspec.Struct, frozen=True):
    """The keys of one password, in Z85."""

    manager_public: str
    manager_secret: str
    worker_public: str
    worker_secret: str


def derive(password: str) -> Keys:
    """The keys of a password. Takes about 0.2 s and 64 MB. Raises ValueError for an empty one."""
    if not password:
        raise ValueError("the password is empty")
    material = hashlib.scrypt(
        password.encode(), salt=_SALT, n=_N, r=_R, p=_P, maxmem=_MEMORY_BYTES, dklen=2 * _KEY_BYTES
    )
    manager_secret, worker_secret = z85.encode(material[:_KEY_BYTES]), z85.encode(material[_KEY_BYTES:])
    return Keys(
        manager_public=zmq.curve_public(manager_secret).decode(),
        manager_secret=manager_secret.decode(),
        worker_public=zmq.curve_public(worker_secret).decode(),
        worker_secret=worker_secret.decode(),
    )


def read_password(path: Path) -> str:
    """The password in a file: its text, without white space around it. Raises ConnectionFileError."""
    try:
        mode = path.stat().st_mode
        password = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConnectionFileError(f"cannot read the password file {path}: {reason}") from None
    if mode & 0o077:
        raise ConnectionFileError(f"{path} can be read by others; run: chmod 600 {path}")
    if not password:
        raise ConnectionFileError(f"the password file {path} is empty")
    return password


def connection_by_password(host: str, port: int, path: Path) -> Connection:
    """What a worker needs to know of the manager at this address, which tells it the secret of the bulk links
    once both have proved their keys. Raises ConnectionFileError."""
    keys = derive(read_password(path))
    return Connection(
        name=f"{host}:{port}",
        hosts=(host,),
        port=port,
        manager_public=keys.manager_public,
        worker_public=keys.worker_public,
        worker_secret=keys.worker_secret,
        secret="",
        host=socket.gethostname(),
        pid=0,
    )
