"""The link of a worker, or a factory, to its manager: one DEALER socket, CurveZMQ, always outbound.

A manager has several addresses. One after the other is tried, until one answers ``Hello``. A connection
that ended is made again as a new one (another routing id), with another ``Hello``: what was said over the old
one may be lost, so nothing of it is carried on.

Something is said over it every second or so (heartbeats), and libzmq asks every ``_HEARTBEAT_MS`` by itself:
less than what firewalls and NATs on the way take for idle, of which the strictest forget it after 30 s.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import zmq

from graphvine.protocol.approach import LinkNews
from graphvine.protocol.codec import MAX_FRAME_BYTES, ProtocolError, encode_frames
from graphvine.protocol.connection import Connection
from graphvine.protocol.messages import ToManager

Heard = TypeVar("Heard")

_HEARTBEAT_MS = 15_000
#: Frames that wait here to be read; the manager keeps more.
_RECEIVED_AHEAD = 100_000
_RECONNECT_MS = 100
_RECONNECT_MAX_MS = 2_000
_CONNECT_MS = 3_000
#: Who accepts a connection and says nothing is not waited for any longer.
_HANDSHAKE_MS = 10_000
_NEWS: dict[int, LinkNews] = {
    zmq.EVENT_CONNECT_RETRIED: "refused",
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "made",
    zmq.EVENT_DISCONNECTED: "ended",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "rejected",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "rejected",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "rejected",
}
_KEY_REFUSED = "a manager listens there that does not accept this worker's key"
_SOMEBODY_ELSE = "what listens there is another manager, or one with another password, or another service"
#: A monitor's event: kind and value (zmq_socket_monitor(3)). pyzmq's own parser imports asyncio, 40 ms.
_EVENT = struct.Struct("=Hi")


class Link(Generic[Heard]):
    """Used by the loop's thread only. ``Heard``: what a manager says over it."""

    def __init__(
        self, connection: Connection, timeout_s: float, decode: Callable[[memoryview], list[Heard]]
    ) -> None:
        """``timeout_s``: a peer that does not even answer libzmq's pings for so long is gone."""
        self._connection = connection
        self._decode = decode
        self._timeout_ms = int(timeout_s * 1000)
        self._context = zmq.Context()
        self._hosts = itertools.cycle(connection.hosts or ("127.0.0.1",))
        self.host = ""
        self.rejections: dict[str, str] = {}
        """Hosts at which somebody listens who is not this manager, or does not want this side: why."""
        self.times_rejected: dict[str, int] = {}
        self._serial = 0
        self._open()

    def _open(self) -> None:
        connection = self._connection
        self._descriptor = -1
        self._give_up_s: float | None = None
        self.host = next(self._hosts)
        made = self.socket = self._context.socket(zmq.DEALER)
        if connection.manager_public:
            made.curve_serverkey = connection.manager_public.encode()
            made.curve_publickey = connection.worker_public.encode()
            made.curve_secretkey = connection.worker_secret.encode()
        made.setsockopt(zmq.LINGER, 0)
        # A manager that is slow, or stopped for hours, hears all of it later: what is left out of what is
        # said over a connection would never be said again. The tasks that it gave can't make more than that.
        made.setsockopt(zmq.SNDHWM, 0)
        made.setsockopt(zmq.RCVHWM, _RECEIVED_AHEAD)
        made.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        made.setsockopt(zmq.HEARTBEAT_IVL, min(_HEARTBEAT_MS, self._timeout_ms))
        made.setsockopt(zmq.HEARTBEAT_TIMEOUT, self._timeout_ms)
        made.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MS)
        made.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        made.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        made.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        self._serial += 1
        # Not get_monitor_socket(): that one names its endpoint after a descriptor that may be reused.
        endpoint = f"inproc://graphvine-link-{self._serial}"
        made.monitor(endpoint, sum(_NEWS) | zmq.EVENT_CONNECTED)
        self.monitor = self._context.socket(zmq.PAIR)
        self.monitor.linger = 0
        self.monitor.connect(endpoint)
        host = self.host
        if ":" in host:
            made.setsockopt(zmq.IPV6, 1)
            host = f"[{host}]"
        made.connect(f"tcp://{host}:{connection.port}")

    def reopen(self) -> None:
        """Begin anew, at the next address."""
        self._shut()
        self._open()

    def news(self) -> LinkNews | None:
        """What became of the connection since the last call. An end counts for more than what libzmq makes
        in its place, over which nobody said hello."""
        found: LinkNews | None = None
        while True:
            try:
                event, _endpoint = self.monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return found
            kind, value = _EVENT.unpack(event)
            if kind == zmq.EVENT_CONNECTED:
                self._descriptor = value
                self._limit_silence()
                continue
            news = _NEWS.get(kind)
            if news == "rejected":
                known = kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH
                self.rejections[self.host] = _KEY_REFUSED if known else _SOMEBODY_ELSE
                self.times_rejected[self.host] = self.times_rejected.get(self.host, 0) + 1
            elif news == "made":
                self.rejections.pop(self.host, None)
                self.times_rejected.pop(self.host, None)
            if found != "ended" and news is not None:
                found = news

    def forget_rejections(self) -> None:
        """The manager has answered: what other addresses were does not count any more."""
        self.rejections.clear()
        self.times_rejected.clear()

    def give_up_after(self, seconds: float) -> None:
        """Have this connection end when what was said over it did not get through for so long. (A manager
        that only is slow, or stopped, is another matter: its machine takes in what it is sent.)

        What was heard over the connection may be read before the news that there is one; then the limit is
        set with the news."""
        self._give_up_s = seconds
        self._limit_silence()

    def _limit_silence(self) -> None:
        if self._descriptor < 0 or self._give_up_s is None:
            return
        # libzmq may have closed it meanwhile, and tells later.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._give_up_s * 1000))

    def say(self, messages: Sequence[ToManager]) -> None:
        """Send one batch. What is said while there is nobody to be connected to is lost: ``news`` tells."""
        with contextlib.suppress(zmq.Again):
            for frame in encode_frames(messages):
                self.socket.send(frame, zmq.NOBLOCK, copy=len(frame) < 65536)

    def receive(self, at_most: int = 100) -> Iterator[Heard]:
        """Messages that are here now. Raises ProtocolError."""
        for _ in range(at_most):
            try:
                frame = self.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            yield from self._decode(frame.buffer)

    def close(self, last_words_s: float = 0.0) -> None:
        """Close; what was said last still leaves, for so long at most."""
        self.socket.setsockopt(zmq.LINGER, int(last_words_s * 1000))
        self._shut()
        self._context.term()

    def _shut(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close()


__all__ = ["Link", "ProtocolError"]
