"""The manager's door: one ROUTER socket, CurveZMQ, and who may come in.

A worker is let in when it knows the manager's public key and holds the run's one worker key (both in the
connection file); libzmq asks for the second through ZAP (RFC 27), answered here without a thread of its own.
Nothing that comes from anybody else reaches the decoder. Refusals are logged, seldom (``protocol.crowds``),
and what strangers can use up is bounded (``manager.strangers``). Without security anybody comes in.
"""

from __future__ import annotations

import errno
import logging
import struct
from collections.abc import Callable, Iterator, Sequence

import zmq
from zmq.utils.z85 import decode as z85_decode

from graphvine.manager.strangers import HANDSHAKE_S, Strangers
from graphvine.protocol.codec import MAX_TO_MANAGER_BYTES
from graphvine.protocol.connection import Connection
from graphvine.protocol.crowds import Refusals
from graphvine.protocol.errors import PortInUseError

log = logging.getLogger("graphvine.manager")

#: More than the messages of any turn; a worker that does not read is noticed by its silence, not by this.
_HIGH_WATER = 100_000
#: Workers of a large submission come all at once.
_BACKLOG = 1024
#: So many comings and goings are looked at in one turn.
_EVENTS = 1000
#: A monitor's event: kind and value (zmq_socket_monitor(3)). pyzmq's own parser imports asyncio.
_EVENT = struct.Struct("=Hi")

Port = int | tuple[int, int] | None


def candidate_ports(port: Port) -> Sequence[int]:
    """The ports to try, in order; 0 lets the system choose. Raises ValueError."""
    if port is None:
        return [0]
    if isinstance(port, int) and not isinstance(port, bool) and 0 <= port <= 65535:
        return [port]
    if isinstance(port, (tuple, list)) and len(port) == 2:
        low, high = port
        if isinstance(low, int) and isinstance(high, int) and 0 < low <= high <= 65535:
            return range(low, high + 1)
    raise ValueError(f"port={port!r}: give a number from 0 (any free one) to 65535, or a pair (low, high)")


class Gate:
    """Binds, authenticates, receives frames and sends them. Used by the loop's thread only."""

    def __init__(
        self,
        host: str,
        port: Port,
        clock: Callable[[], float],
        *,
        secure: bool = True,
        keys: tuple[bytes, bytes] | None = None,
    ) -> None:
        """``keys``: the manager's public and secret one, in Z85 (None: new ones). Raises PortInUseError when
        no allowed port is free on ``host``, ValueError for a bad ``port``."""
        self._context = zmq.Context()
        self.refusals = Refusals(log.warning, clock)
        self._worker_key = b""
        self._heard: dict[int, str] = {}
        """Descriptors of connections over which something came, and the addresses on their other ends."""
        self._manager_public = b""
        try:
            self._zap = self._socket(zmq.ROUTER)
            self._zap.bind("inproc://zeromq.zap.01")
            self.router = self._socket(zmq.ROUTER)
            self._set_up_router(host)
            if secure:
                self._set_up_curve(keys or zmq.curve_keypair())
            self._monitor = self._watch_router()
            self.port = self._bind(host, port)
        except BaseException:
            self.close()
            raise
        self._strangers = Strangers(self.port, self.refusals, clock)

    @property
    def manager_public(self) -> str:
        """Empty without security."""
        return self._manager_public.decode()

    def admit(self, connection: Connection) -> None:
        """Let in whoever holds this connection's worker key. Until then nobody comes in."""
        self._worker_key = z85_decode(connection.worker_public)

    def register(self, poller: zmq.Poller) -> None:
        for socket in (self.router, self._zap, self._monitor):
            poller.register(socket, zmq.POLLIN)

    def answer_knocks(self) -> list[int]:
        """Answer who asks to come in. Returns descriptors of connections that were heard and have ended.

        What was said until now has to be received before the next call."""
        self._strangers.settle()
        self._answer_zap()
        ended = []
        for kind, descriptor in self._events():
            heard = descriptor in self._heard
            if kind == zmq.EVENT_ACCEPTED:
                self._strangers.on_accepted(descriptor, heard)
                continue
            self._strangers.on_ended(descriptor, heard)
            if heard:
                del self._heard[descriptor]
                ended.append(descriptor)
        self._strangers.on_time()
        return ended

    def deadline(self) -> float | None:
        """When ``answer_knocks`` is to be called though nobody knocks."""
        return self._strangers.deadline()

    def receive(self, at_most: int = 1000) -> Iterator[tuple[bytes, memoryview, int]]:
        """Frames that are here now: sender's routing id, frame, descriptor of its connection."""
        for _ in range(at_most):
            try:
                parts = self.router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            descriptor = int(parts[0].get(zmq.SRCFD))
            if descriptor not in self._heard:
                self._heard[descriptor] = str(parts[0].get("Peer-Address")).removeprefix("::ffff:")
                self._strangers.on_heard(descriptor)
            if len(parts) != 2:
                host = self._heard[descriptor]
                self.refusals.note(host, f"refused a message of {len(parts)} parts from {host}")
                continue
            yield parts[0].bytes, parts[1].buffer, descriptor

    def address_of(self, descriptor: int) -> str:
        """The address from which a connection comes, as this side sees it; "" when it is not there."""
        return self._heard.get(descriptor, "")

    def send(self, identity: bytes, frame: bytes) -> bool:
        """Send a frame; False when that peer is gone (its loss is found out elsewhere)."""
        try:
            self.router.send_multipart([identity, frame], zmq.NOBLOCK, copy=len(frame) < 65536)
        except zmq.ZMQError as error:
            if error.errno in (errno.EHOSTUNREACH, errno.EAGAIN):
                return False
            raise
        return True

    def close(self) -> None:
        """Close all sockets; what was sent last still leaves, for a second at most."""
        self._context.destroy(linger=1000)

    # -- setting up ------------------------------------------------------------------------------------

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        return self._context.socket(kind)

    def _set_up_router(self, host: str) -> None:
        router = self.router
        if host == "*" or ":" in host:
            # "*" is all of IPv4, too; where there is no IPv6, libzmq does without.
            router.setsockopt(zmq.IPV6, 1)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        router.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        router.setsockopt(zmq.MAXMSGSIZE, MAX_TO_MANAGER_BYTES)
        router.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_S * 1000))
        router.setsockopt(zmq.BACKLOG, _BACKLOG)
        router.setsockopt(zmq.TCP_KEEPALIVE, 1)
        router.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)

    def _set_up_curve(self, keys: tuple[bytes, bytes]) -> None:
        router = self.router
        self._manager_public, secret = keys
        router.curve_server = True
        router.curve_secretkey = secret
        router.curve_publickey = self._manager_public
        router.setsockopt_string(zmq.ZAP_DOMAIN, "graphvine")

    def _watch_router(self) -> zmq.Socket[bytes]:
        """Where libzmq tells who came and went."""
        endpoint = "inproc://graphvine-gate"
        self.router.monitor(endpoint, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        monitor = self._socket(zmq.PAIR)
        # Any number: libzmq's thread would wait for us, and everybody else for it.
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(endpoint)
        return monitor

    def _bind(self, host: str, port: Port) -> int:
        ports = candidate_ports(port)
        for candidate in ports:
            try:
                self.router.bind(f"tcp://{_bracketed(host)}:{candidate or '*'}")
            except zmq.ZMQError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise ValueError(f"host={host!r}: this machine can't listen there ({error})") from None
                continue
            endpoint = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
            return int(endpoint.rsplit(":", 1)[1])
        pair = not isinstance(port, int)
        stated = f"every port from {ports[0]} to {ports[-1]}" if pair else f"port {port}"
        raise PortInUseError(
            errno.EADDRINUSE, f"{stated} is in use or not allowed; choose another, or port=0 for any free one"
        )

    # -- who knocks ------------------------------------------------------------------------------------

    def _answer_zap(self) -> None:
        while True:
            try:
                request = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            identity, _, version, request_id, _, address, _, mechanism, *credentials = request
            welcome = mechanism == b"CURVE" and bool(self._worker_key) and credentials == [self._worker_key]
            status = [b"200", b"OK"] if welcome else [b"400", b"not this manager's worker key"]
            self._zap.send_multipart([identity, b"", version, request_id, *status, b"worker", b""])
            if not welcome:
                host = address.decode(errors="replace").removeprefix("::ffff:")
                why = "it does not hold this manager's key"
                self._strangers.on_refused()
                self.refusals.note(host, f"refused a connection from {host} on port {self.port}: {why}")

    def _events(self) -> Iterator[tuple[int, int]]:
        for _ in range(_EVENTS):
            try:
                event, _endpoint = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            yield _EVENT.unpack(event)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
