"""Whole files over a plain TCP link between two that know the same secret.

    both sides     HELLO (8 bytes) | nonce (32 bytes)
    client         HMAC-SHA256(secret, "client" | server's nonce | client's nonce)
    server         HMAC-SHA256(secret, "server" | client's nonce | server's nonce)
    then, any number of times
    client         file number (u64) | offset of the first byte that is wanted (u64)
                   | 1: the server may be about to get it, and is to wait for that (u8)
    server         size of all of it (i64) | 0: a value, 1: a tree (u8) | the bytes from the offset
                   | xxh3_64 of all of it (u64)
                   or -1 for the size: not held; or -2: it is not here yet, and another answer will come

A tree comes in its flat form (``protocol.trees``). A server may send what is just arriving there itself; when
that comes to nothing it closes the link, and the client goes on from another holder, from the byte it has
come to. A server says -2 again and again while nothing has arrived, so that its client knows it is alive.

A side that gives the wrong answer, or none in time, is cut off before anything else is read. The bytes
themselves are not encrypted: the link proves who speaks, the checksum that nothing was damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import xxhash

from graphvine.protocol.dialing import CONNECT_S, dial, is_dead, is_silence
from graphvine.protocol.messages import Address, LinkState
from graphvine.protocol.tree_files import Writer, remove
from graphvine.protocol.trees import BadTreeError

P = ParamSpec("P")
T = TypeVar("T")

HELLO = b"gvbulk2\n"
_NONCE_BYTES = 32
_REQUEST = struct.Struct("<QQ?")
ANSWER = struct.Struct("<q?")
CHECKSUM = struct.Struct("<Q")
NOT_HELD = ANSWER.pack(-1, False)
NOT_YET = ANSWER.pack(-2, False)
#: A server that has nothing to send yet says so this often.
NOT_YET_S = 5.0
#: Bytes taken from a link at a time: fits the processor's cache, so that hashing and storing find it there.
CHUNK_BYTES = 2**20
GREETING_S = 5.0


class BulkError(Exception):
    """A file could not be fetched; the message names holder and reason."""


class UnreachableError(BulkError):
    """No address of the holder could be connected to. ``silent``: at some of them nobody answered at all."""

    def __init__(self, message: str, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class RefusedError(BulkError):
    """The other side does not know the secret, or says that we do not."""


class NotHeldError(BulkError):
    """The holder does not have the file (any more)."""


class LinkLostError(BulkError):
    """The link broke under way."""


class StalledError(LinkLostError):
    """Nothing came for too long."""


class DamagedError(BulkError):
    """The bytes that came are not those that were sent, or not as many as expected."""


def link_state(error: Exception) -> LinkState | None:
    """What a failure says of the link to that holder; None: nothing."""
    if isinstance(error, UnreachableError):
        return "silent" if error.silent else "refused"
    if isinstance(error, StalledError):
        return "silent"
    return "refused" if isinstance(error, RefusedError) else None


def fetch(
    addresses: Sequence[Address],
    file: int,
    secret: str,
    size: int,
    tree: str = "",
    timeout_s: float = 30.0,
) -> memoryview | None:
    """Fetch a file over a link of its own; addresses are tried in order. Waits.

    A value's bytes; None when it is a tree: then it is stored as the directory ``tree``. Raises BulkError,
    OSError when a tree cannot be written; then nothing is left of it."""
    with connect(addresses, secret, timeout_s) as link:
        if link.ask(file, size):
            _receive_tree(link, tree)
            return None
        into = memoryview(bytearray(size))
        link.receive(into)
        return into


def _receive_tree(link: Link, path: str) -> None:
    writer = Writer(path)
    buffer = memoryview(bytearray(CHUNK_BYTES))
    try:
        link.receive_chunks(lambda: buffer, writer.feed)
        writer.finish()
    except BaseException as error:
        writer.close()
        remove(path)
        if isinstance(error, BadTreeError):
            raise DamagedError(f"what came from {link.name} is no tree: {error}") from error
        raise


def connect(
    addresses: Sequence[Address], secret: str, timeout_s: float = 30.0, connect_s: float = CONNECT_S
) -> Link:
    """A link to the first of ``addresses`` that answers as it should. Raises UnreachableError,
    RefusedError."""
    reasons = []
    silent = False
    refused: RefusedError | None = None
    with contextlib.closing(dial(addresses, connect_s)) as dialled:
        for address, connected in dialled:
            name = f"{address.host}:{address.port}"
            if isinstance(connected, OSError):
                silent = silent or is_silence(connected)
                reasons.append(f"{name}: {connected}")
                continue
            try:
                greet(connected, secret, "client")
            except RefusedError as error:
                connected.close()
                refused = error
                reasons.append(f"{name}: {error}")
            except OSError as error:
                connected.close()
                reasons.append(f"{name} does not answer as a worker would: {error}")
            else:
                set_timeout(connected, timeout_s)
                return Link(connected, name)
    if refused is not None and not silent:
        raise RefusedError("; ".join(reasons)) from refused
    raise UnreachableError("; ".join(reasons) or "it has no address", silent)


class Link:
    """The client's end of a link. After any error it can only be closed."""

    def __init__(self, connected: socket.socket, name: str) -> None:
        self._socket = connected
        self.name = name
        self._left = 0

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def is_dead(self) -> bool:
        """Whether an idle link is of no use any more."""
        return is_dead(self._socket)

    def abort(self) -> None:
        """Make whoever waits on this link fail at once; from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The other side was faster.
            return

    def ask(
        self,
        file: int,
        size: int,
        offset: int = 0,
        coming: bool = False,
        on_wait: Callable[[], None] = lambda: None,
    ) -> bool:
        """Ask for a file that should have ``size`` bytes, from byte ``offset``; whether it is a tree.

        ``coming``: the other side may be about to get it, and should wait for that. ``on_wait`` is called
        once when it does not have any of it yet. Raises NotHeldError, DamagedError, BulkError."""
        return self._socket_errors(self._ask, file, size, offset, coming, on_wait)

    def _ask(self, file: int, size: int, offset: int, coming: bool, on_wait: Callable[[], None]) -> bool:
        self._socket.sendall(_REQUEST.pack(file, offset, coming))
        answer = receive_exactly(self._socket, ANSWER.size)
        if answer == NOT_YET:
            on_wait()
        while answer == NOT_YET:
            answer = receive_exactly(self._socket, ANSWER.size)
        if answer == NOT_HELD:
            raise NotHeldError(f"{self.name} does not hold file {file} any more")
        actual, tree = ANSWER.unpack(answer)
        if actual != size:
            raise DamagedError(f"file {file} at {self.name} has {actual} bytes; {size} were expected")
        self._left = size - offset
        return bool(tree)

    def receive(self, into: memoryview) -> None:
        """Take in the file asked for. Raises BulkError."""
        position = 0

        def buffer() -> memoryview:
            return into[position : position + CHUNK_BYTES]

        def take(chunk: memoryview) -> None:
            nonlocal position
            position += len(chunk)

        self.receive_chunks(buffer, take)

    def receive_chunks(
        self,
        buffer: Callable[[], memoryview],
        take: Callable[[memoryview], object],
        hashed: xxhash.xxh3_64 | None = None,
    ) -> int:
        """Take in what was asked for in pieces: each fills the beginning of a ``buffer()`` and is handed to
        ``take``. ``hashed`` has taken in what lies before the offset asked for. The checksum of it all.

        Raises BulkError, and what those two raise."""
        hashed = hashed or xxhash.xxh3_64()
        while self._left:
            chunk = buffer()[: self._left]
            self._socket_errors(_receive_into, self._socket, chunk)
            hashed.update(chunk)
            take(chunk)
            self._left -= len(chunk)
        return self._socket_errors(self._check, hashed.intdigest())

    def _check(self, digest: int) -> int:
        if CHECKSUM.unpack(receive_exactly(self._socket, CHECKSUM.size))[0] != digest:
            raise DamagedError(f"what came from {self.name} was damaged on its way")
        return digest

    def _socket_errors(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return act(*args, **kwargs)
        except BlockingIOError:
            raise StalledError(f"{self.name} is too slow or silent") from None
        except OSError as error:
            raise LinkLostError(f"the link to {self.name} broke: {error}") from None


def receive_request(link: socket.socket) -> tuple[int, int, bool] | None:
    """The next file asked for, from which byte, and whether to wait for it; None when the other side closed.
    Raises OSError."""
    first = link.recv(_REQUEST.size)
    if not first:
        return None
    rest = receive_exactly(link, _REQUEST.size - len(first))
    file, offset, coming = _REQUEST.unpack(first + rest)
    return file, offset, coming


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
