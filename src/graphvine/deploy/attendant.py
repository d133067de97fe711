"""A factory's connection to one manager: it attends, hears what is asked for, and has workers retired.

A connection that ended is made again, at each of the manager's addresses in turn; a manager that does not
answer for long is gone. Used in one thread, but for ``retire``.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
from collections.abc import Callable

import graphvine
from graphvine.protocol.approach import Approach, Patience
from graphvine.protocol.codec import ProtocolError, decode_to_factory
from graphvine.protocol.connection import Connection
from graphvine.protocol.link import Link
from graphvine.protocol.messages import (
    PROTOCOL_VERSION,
    Attend,
    Demand,
    Goodbye,
    Leave,
    Refused,
    Retire,
    ToFactory,
)

_PATIENCE = Patience(connect_s=10.0, answer_s=10.0, refused_s=0.5, lost_s=60.0)


class Attendant:
    """``on_demand(demand)`` is called for each word of the manager, ``on_lost()`` when a connection ended:
    the next word says all anew. ``ending``: why there is nothing more to hear; None while there may be."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        now: float,
        on_demand: Callable[[Demand], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.ending: str | None = None
        self._name = name
        self._on_demand = on_demand
        self._on_lost = on_lost
        self._link: Link[ToFactory] = Link(connection, _PATIENCE.lost_s, decode_to_factory)
        self._retired: collections.deque[Retire] = collections.deque()
        self._wake_receiver, self._wake_sender = os.pipe()
        os.set_blocking(self._wake_receiver, False)
        os.set_blocking(self._wake_sender, False)
        self._attended = False
        self._approach = Approach(connection.hosts, _PATIENCE, now)
        self._attend()

    # -- any thread ------------------------------------------------------------------------------------

    def retire(self, *workers: str, reason: str) -> None:
        """Have the workers of these batch jobs leave."""
        self._retired.append(Retire(list(workers), reason))
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_sender, b"x")

    # -- one thread ------------------------------------------------------------------------------------

    def sources(self) -> list[object]:
        """What to wait for. They change when a connection is made anew."""
        return [self._link.socket, self._link.monitor, self._wake_receiver]

    def deadline(self) -> float | None:
        """When ``turn`` is next to be called though nothing happened."""
        return None if self._attended else self._approach.next_at

    @property
    def alone(self) -> bool:
        """There is no connection."""
        return not self._attended

    def turn(self, now: float) -> None:
        """See to all that has happened."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_receiver, 4096)
        try:
            for message in self._link.receive():
                self._hear(message)
        except ProtocolError as error:
            self.ending = f"it speaks another language: {error}"
        if self.ending is None:
            self._look_at_link(now)
        while self._attended and self._retired:
            self._link.say([self._retired.popleft()])

    def close(self) -> None:
        """Say goodbye."""
        if self._attended and self.ending is None:
            self._link.say([Goodbye("the factory ends")])
        self._link.close(1.0)
        os.close(self._wake_receiver)
        os.close(self._wake_sender)

    def _hear(self, message: ToFactory) -> None:
        if isinstance(message, Demand):
            self._attended = True
            self._on_demand(message)
        elif isinstance(message, Leave):
            self.ending = message.reason
        elif isinstance(message, Refused):
            self.ending = f"it refused this factory: {message.reason}"
        else:
            self._attend()  # it had forgotten us

    def _look_at_link(self, now: float) -> None:
        news = self._link.news()
        if news == "ended" and self._attended:
            self._attended = False
            self._approach.lost(now)
            self._on_lost()
            self._reopen(now)
        else:
            self._approach.on_news(news, self._link.times_rejected, now)
        if self._attended:
            return
        if self._approach.is_over(now):
            found = "".join(f"; {host}: {why}" for host, why in self._link.rejections.items())
            self.ending = f"it has not answered for {_PATIENCE.lost_s:g} s{found}"
        elif now >= self._approach.next_at:
            self._reopen(now)

    def _reopen(self, now: float) -> None:
        self._link.reopen()
        self._approach.tried(now)
        self._attend()

    def _attend(self) -> None:
        self._link.say([Attend(PROTOCOL_VERSION, graphvine.__version__, self._name, socket.gethostname())])
