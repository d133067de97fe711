"""Whole files over a plain TCP link between two that know the same secret.

    both sides     HELLO (8 bytes) | nonce (32 bytes)
    client         HMAC-SHA256(secret, "client" | server's nonce | client's nonce)
    server         HMAC-SHA256(secret, "server" | client's nonce | server's nonce)
    then, any number of times
    client         file number (u64)
    server         size (i64; -1: not held) | the bytes | xxh3_64 of the bytes (u64)

A side that gives the wrong answer, or none in time, is cut off before anything else is read. The bytes
themselves are not encrypted: the link proves who speaks, the checksum that nothing was damaged.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec

import xxhash

from graphvine.protocol.messages import Address

P = ParamSpec("P")

HELLO = b"gvbulk1\n"
_NONCE_BYTES = 32
_REQUEST = struct.Struct("<Q")
SIZE = struct.Struct("<q")
CHECKSUM = struct.Struct("<Q")
NOT_HELD = -1
#: Bytes taken from a link at a time: fits the processor's cache, so that hashing and storing find it there.
CHUNK_BYTES = 2**20
CONNECT_S = 5.0
GREETING_S = 10.0


class BulkError(Exception):
    """A file could not be fetched; the message names holder and reason."""


class UnreachableError(BulkError):
    """No address of the holder could be connected to."""


class RefusedError(BulkError):
    """The other side does not know the secret, or says that we do not."""


class NotHeldError(BulkError):
    """The holder does not have the file (any more)."""


class LinkLostError(BulkError):
    """The link broke or stalled under way."""


class DamagedError(BulkError):
    """The bytes that came are not those that were sent, or not as many as expected."""


def fetch(
    addresses: Sequence[Address], file: int, secret: str, into: memoryview, timeout_s: float = 30.0
) -> None:
    """Fetch a file of known size into memory, over a link of its own; addresses are tried in order. Waits.
    Raises BulkError."""
    with connect(addresses, secret, timeout_s) as link:
        link.ask(file, len(into))
        link.receive(into)


def connect(
    addresses: Sequence[Address], secret: str, timeout_s: float = 30.0, connect_s: float = CONNECT_S
) -> Link:
    """A link to the first of ``addresses`` that answers. Raises UnreachableError, RefusedError."""
    reasons = []
    for address in addresses:
        try:
            connected = socket.create_connection((address.host, address.port), connect_s)
        except OSError as error:
            reasons.append(f"{address.host}:{address.port}: {error}")
            continue
        try:
            greet(connected, secret, "client")
        except BulkError:
            connected.close()
            raise
        except OSError as error:
            connected.close()
            reasons.append(f"{address.host}:{address.port} does not answer as a worker would: {error}")
            continue
        set_timeout(connected, timeout_s)
        return Link(connected, f"{address.host}:{address.port}")
    raise UnreachableError("; ".join(reasons) or "it has no address")


class Link:
    """The client's end of a link. After any error it can only be closed."""

    def __init__(self, connected: socket.socket, name: str) -> None:
        self._socket = connected
        self.name = name
        self._size = 0

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        """Make whoever waits on this link fail at once; from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The other side was faster.
            return

    def ask(self, file: int, size: int) -> None:
        """Ask for a file that should have ``size`` bytes. Raises NotHeldError, DamagedError, BulkError."""
        self._socket_errors(self._ask, file, size)

    def _ask(self, file: int, size: int) -> None:
        self._socket.sendall(_REQUEST.pack(file))
        (actual,) = SIZE.unpack(receive_exactly(self._socket, SIZE.size))
        if actual == NOT_HELD:
            raise NotHeldError(f"{self.name} does not hold file {file} any more")
        if actual != size:
            raise DamagedError(f"file {file} at {self.name} has {actual} bytes; {size} were expected")
        self._size = size

    def receive(self, into: memoryview) -> None:
        """Take in the file asked for. Raises BulkError."""
        self._socket_errors(self._receive, into)

    def _receive(self, into: memoryview) -> None:
        hashed = xxhash.xxh3_64()
        for begin in range(0, self._size, CHUNK_BYTES):
            chunk = into[begin : min(begin + CHUNK_BYTES, self._size)]
            _receive_into(self._socket, chunk)
            hashed.update(chunk)
        self._check(hashed.intdigest())

    def receive_chunks(self, buffer: Callable[[], memoryview], take: Callable[[memoryview], None]) -> None:
        """Take in the file asked for in pieces: each fills the beginning of a ``buffer()`` and is handed to
        ``take``. Raises BulkError, and what those two raise."""
        hashed = xxhash.xxh3_64()
        left = self._size
        while left:
            chunk = buffer()[:left]
            self._socket_errors(_receive_into, self._socket, chunk)
            hashed.update(chunk)
            take(chunk)
            left -= len(chunk)
        self._socket_errors(self._check, hashed.intdigest())

    def _check(self, digest: int) -> None:
        if CHECKSUM.unpack(receive_exactly(self._socket, CHECKSUM.size))[0] != digest:
            raise DamagedError(f"what came from {self.name} was damaged on its way")

    def _socket_errors(self, act: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            act(*args, **kwargs)
        except BlockingIOError:
            raise LinkLostError(f"{self.name} is too slow or silent") from None
        except OSError as error:
            raise LinkLostError(f"the link to {self.name} broke: {error}") from None


def receive_request(link: socket.socket) -> int | None:
    """The number of the next file asked for; None when the other side closed. Raises OSError."""
    first = link.recv(_REQUEST.size)
    if not first:
        return None
    rest = receive_exactly(link, _REQUEST.size - len(first))
    return int(_REQUEST.unpack(first + rest)[0])


def greet(link: socket.socket, secret: str, role: str) -> None:
    """Both sides prove that they know ``secret``; ``role`` is "client" or "server".

    Raises RefusedError when the other does not, OSError when it goes or does not speak."""
    set_timeout(link, GREETING_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    mine = secrets.token_bytes(_NONCE_BYTES)
    link.sendall(HELLO + mine)
    if receive_exactly(link, len(HELLO), GREETING_S) != HELLO:
        raise RefusedError("the other side is no graphvine worker")
    theirs = receive_exactly(link, _NONCE_BYTES, GREETING_S)
    other = "server" if role == "client" else "client"
    proof = _prove(secret, role, theirs, mine)
    expected = _prove(secret, other, mine, theirs)
    if role == "client":
        link.sendall(proof)
    try:
        given = receive_exactly(link, len(expected), GREETING_S)
    except ConnectionError as error:
        raise RefusedError(f"the other side did not accept our secret: {error}") from None
    if not hmac.compare_digest(given, expected):
        raise RefusedError("the other side does not know the secret")
    if role == "server":
        link.sendall(proof)


def _prove(secret: str, role: str, challenge: bytes, own: bytes) -> bytes:
    return hmac.digest(secret.encode(), role.encode() + challenge + own, hashlib.sha256)


def set_timeout(link: socket.socket, seconds: float) -> None:
    """Let the kernel end every single call on ``link`` after so long (BlockingIOError, or fewer bytes)."""
    link.settimeout(None)
    value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def receive_exactly(link: socket.socket, length: int, within_s: float | None = None) -> bytes:
    """So many bytes. Raises OSError, ConnectionResetError when the other side closed."""
    buffer = bytearray(length)
    _receive_into(link, memoryview(buffer), within_s)
    return bytes(buffer)


def _receive_into(link: socket.socket, view: memoryview, within_s: float | None = None) -> None:
    deadline = None if within_s is None else time.monotonic() + within_s
    while view:
        count = link.recv_into(view, len(view), socket.MSG_WAITALL)
        if not count:
            raise ConnectionResetError("it was closed")
        view = view[count:]
        if view and deadline is not None and time.monotonic() > deadline:
            raise TimeoutError("it speaks too slowly")
