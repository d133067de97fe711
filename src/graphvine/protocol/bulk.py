"""Whole files over a TCP link between two that know the same secret.

    both sides     the greeting, by which each proves that it knows the secret (``protocol.greeting``)
    then, any number of times
    client         file number (u64) | offset of the first byte that is wanted (u64)
                   | 1: the server may be about to get it, and is to wait for that (u8)
    server         size of all of it (i64) | 0: a value, 1: a tree (u8) | the bytes from the offset
                   | xxh3_64 of all of it (u64)
                   or -1 for the size: not held; or -2: it is not here yet, and another answer will come

A tree comes in its flat form (``protocol.trees``). A server may send what is just arriving there itself; when
that comes to nothing it closes the link, and the client goes on from another holder, from the byte it has
come to. A server says -2 again and again while nothing has arrived, so that its client knows it is alive.

A side that gives the wrong answer, or none in time, is cut off before anything else is read. On a plain link
the greeting proves who speaks and the checksum that nothing was damaged, but whoever sits on the way can read
the bytes and change them. On an encrypted one (``protocol.tls``) all of the above goes through TLS.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import xxhash

from graphvine.protocol.dialing import CONNECT_S, dial, is_dead, is_silence
from graphvine.protocol.greeting import Greeting, MisledError, Role, StrangerError
from graphvine.protocol.messages import Address, LinkState
from graphvine.protocol.tree_files import Writer, remove
from graphvine.protocol.trees import BadTreeError

P = ParamSpec("P")
T = TypeVar("T")

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
    *,
    encrypted: bool = False,
) -> memoryview | None:
    """Fetch a file over a link of its own; addresses are tried in order. Waits.

    A value's bytes; None when it is a tree: then it is stored as the directory ``tree``. Raises BulkError,
    OSError when a tree cannot be written; then nothing is left of it."""
    with connect(addresses, secret, timeout_s, encrypted=encrypted) as link:
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
    addresses: Sequence[Address],
    secret: str,
    timeout_s: float = 30.0,
    connect_s: float = CONNECT_S,
    *,
    encrypted: bool = False,
) -> Link:
    """A link to the first of ``addresses`` at which the right one answers as it should. Raises
    UnreachableError, RefusedError."""
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
                if encrypted:
                    connected = _encrypt(connected, secret)
                greet(connected, secret, "client", address.server)
            except RefusedError as error:
                connected.close()
                refused = error
                reasons.append(f"{name}: {error}")
            except MisledError as error:
                connected.close()
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


def _encrypt(link: socket.socket, secret: str) -> socket.socket:
    """An encrypted link over a new one. Waits for the server. Raises RefusedError, OSError; then nothing is
    left open."""
    import ssl  # for those who need it

    from graphvine.protocol import tls

    link.settimeout(GREETING_S)
    encrypted = tls.wrap(link, secret, "client")
    try:
        encrypted.do_handshake()
        tls.check_peer(encrypted, secret)
    except BaseException as error:
        encrypted.close()
        if isinstance(error, ssl.SSLError):
            raise RefusedError(f"the other side does not know the secret: {error}") from None
        raise
    return encrypted


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
        except (BlockingIOError, TimeoutError):
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


def greet(link: socket.socket, secret: str, role: Role, server: int = 0) -> None:
    """Both sides prove that they know ``secret``. ``server``: this server's number, or that of the one that
    is wanted (0: any).

    Raises RefusedError when the other does not, MisledError when it is another one, OSError when it goes
    or does not speak."""
    set_timeout(link, GREETING_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    greeting = Greeting(secret, role, server)
    link.sendall(greeting.begin())
    said = b""
    while greeting.wanted:
        try:
            heard = receive_exactly(link, greeting.wanted, GREETING_S)
        except ConnectionError as error:
            if role == "client" and said:
                raise RefusedError(f"the other side did not accept our secret: {error}") from None
            raise
        try:
            said = greeting.feed(heard)
        except StrangerError as error:
            raise RefusedError(str(error)) from None
        link.sendall(said)


def set_timeout(link: socket.socket, seconds: float) -> None:
    """End every single call on ``link`` after so long (BlockingIOError, TimeoutError, or fewer bytes)."""
    if type(link) is not socket.socket:
        link.settimeout(seconds)
        return
    # By the kernel, without one call more each time.
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
