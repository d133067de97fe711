"""Connections at the manager's door over which nothing was heard yet.

libzmq shakes hands by itself, in its own thread, and a manager's process is its user's: strangers must not
use up its descriptors or its memory. So:

- Not more than a few connections may be there unheard (``protocol.crowds``); a handshake that takes longer
  than ``HANDSHAKE_S`` is ended by libzmq.
- What they all have sent together is bounded: libzmq takes in a whole message, of as much as an honest batch
  may have, before it looks whose it is. It is looked at every ``_LOOK_S`` while there are any.
- A connection is ended by ``shutdown``, which libzmq takes for the other side's doing. Its descriptor may
  have become something else's in the meantime, so it is only done to what is connected to this port.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
from collections.abc import Callable

from graphvine.protocol.crowds import Crowd, Refusals

HANDSHAKE_S = 10.0
_MOST = 1024
#: ... and never more than this share of the descriptors that the process may have.
_SHARE = 4
_MOST_BYTES = 64 * 2**20
_LOOK_S = 0.1
#: TCP_INFO's tcpi_bytes_received (linux/tcp.h).
_RECEIVED = struct.Struct("=128xQ")


class Strangers:
    """``port``: of this machine, where they come."""

    def __init__(self, port: int, refusals: Refusals, clock: Callable[[], float]) -> None:
        self._port = port
        self._refusals = refusals
        self._clock = clock
        self._crowd: Crowd[int] = Crowd(_most())
        self._new: dict[int, None] = {}
        """Those of the last turn: what they have said may be here and not be read yet."""
        self._hosts: dict[int, str] = {}
        """The hosts of all connections, heard or not."""
        self._refused = 0
        """So many were refused, and said so, whose connections have not ended yet."""
        self._look_until = 0.0
        """When those that came last have had their time."""
        self._look_at: float | None = None

    def __len__(self) -> int:
        return len(self._crowd) + len(self._new)

    def host(self, descriptor: int) -> str:
        """From where a connection comes, "" when that is not known."""
        return self._hosts.get(descriptor, "")

    def on_accepted(self, descriptor: int, heard: bool) -> None:
        """``heard``: what was said over it was faster than this news."""
        self._hosts[descriptor] = _host_of(descriptor)
        if heard:
            return
        self._new[descriptor] = None
        now = self._clock()
        self._look_until = now + HANDSHAKE_S + 1.0
        if self._look_at is None:
            self._look_at = now + _LOOK_S

    def on_heard(self, descriptor: int) -> None:
        """It has the key."""
        self._new.pop(descriptor, None)
        self._crowd.remove(descriptor)

    def on_refused(self) -> None:
        """One has shown another key."""
        self._refused += 1

    def on_ended(self, descriptor: int, heard: bool) -> None:
        host = self._hosts.pop(descriptor, "")
        waited = self._new.pop(descriptor, self) is None or self._crowd.remove(descriptor) is not None
        if waited and self._refused:
            self._refused -= 1
        elif waited and not heard:
            self._refuse(host, "it left without having spoken CurveZMQ with the right key")

    def settle(self) -> None:
        """What those that are new had to say was read: who said nothing has to stand in line."""
        for descriptor in self._new:
            leaving = self._crowd.add(descriptor, self.host(descriptor))
            if leaving is not None:
                self._end(leaving, self.host(leaving), "too many came at once, and it had said nothing yet")
        self._new.clear()

    def deadline(self) -> float | None:
        """When ``on_time`` is to be called next."""
        return self._look_at

    def on_time(self) -> None:
        """Look how much they have sent."""
        now = self._clock()
        if self._look_at is None or now < self._look_at:
            return
        self._look_at = now + _LOOK_S if len(self._crowd) and now < self._look_until else None
        received = {descriptor: _received(descriptor) for descriptor in self._crowd}
        total = sum(received.values())
        for descriptor in sorted(received, key=received.__getitem__, reverse=True):
            if total <= _MOST_BYTES:
                break
            total -= received[descriptor]
            self._crowd.remove(descriptor)
            self._end(descriptor, self.host(descriptor), "it has sent much, and not the right key")

    def _end(self, descriptor: int, host: str, why: str) -> None:
        self._refuse(host, why)
        with contextlib.suppress(OSError), _copy(descriptor) as connection:
            if connection.getsockname()[1] == self._port:
                connection.shutdown(socket.SHUT_RDWR)

    def _refuse(self, host: str, why: str) -> None:
        host = host or "a peer"
        self._refusals.note(host, f"refused a connection from {host} on port {self._port}: {why}")


def _most() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(8, min(_MOST, soft // _SHARE))


def _copy(descriptor: int) -> socket.socket:
    """A socket object of its own for one of libzmq's. Raises OSError."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _host_of(descriptor: int) -> str:
    with contextlib.suppress(OSError, IndexError), _copy(descriptor) as connection:
        return str(connection.getpeername()[0]).removeprefix("::ffff:")
    return ""


def _received(descriptor: int) -> int:
    with contextlib.suppress(OSError, struct.error), _copy(descriptor) as connection:
        information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
        return int(_RECEIVED.unpack(information)[0])
    return 0
