"""Who hears what the work asks for: listeners in this process, and factories that have connected.

A factory is no worker: it has no number, gets no tasks and no data, and what it may say is ``Attend``,
``Retire`` and ``Goodbye``. Whoever says anything else is sent away.

Used in the loop's thread only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from graphvine.manager.core import Core
from graphvine.protocol.codec import encode_frames
from graphvine.protocol.messages import (
    PROTOCOL_VERSION,
    Attend,
    Demand,
    Goodbye,
    Leave,
    Refused,
    Retire,
    ToFactory,
    ToManager,
)

log = logging.getLogger("graphvine.manager")

Listener = Callable[[Demand], None]
#: More factories than anybody has; what is beyond is refused.
_MOST = 100


class Audience:
    """``send(identity, frame)`` sends to a factory, False when it is gone; ``retire(names, reason)`` has
    workers leave, by name or batch job."""

    def __init__(
        self, core: Core, send: Callable[[bytes, bytes], bool], retire: Callable[[Sequence[str], str], int]
    ) -> None:
        self._core = core
        self._send = send
        self._retire = retire
        self._listeners: list[Listener] = []
        self._factories: dict[bytes, tuple[int, Attend]] = {}

    # -- this process ----------------------------------------------------------------------------------

    def add(self, listener: Listener) -> None:
        """Have ``listener`` called, first with all there is, then with what changes. It must not wait."""
        self._listeners.append(listener)
        listener(self._core.on_watch(time.monotonic()))

    def remove(self, listener: Listener) -> None:
        """One listener less, if it was one."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        self._perhaps_stop()

    # -- factories -------------------------------------------------------------------------------------

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._factories

    def on_attend(self, identity: bytes, descriptor: int, attend: Attend, version: str) -> None:
        """A factory says who it is."""
        reason = _refusal(attend, version)
        if len(self._factories) >= _MOST:
            reason = f"{_MOST} factories listen already"
        if reason is not None:
            log.warning("refused factory %s on %s: %s", attend.name, attend.host, reason)
            self._say(identity, Refused(reason))
            return
        log.info("factory %s on %s listens", attend.name, attend.host)
        self._factories[identity] = (descriptor, attend)
        self._say(identity, self._core.on_watch(time.monotonic()))

    def on_message(self, identity: bytes, message: ToManager) -> None:
        """A factory that is known spoke."""
        if isinstance(message, Retire):
            self._retire(message.jobs, message.reason)
        elif isinstance(message, Goodbye):
            self._part(identity)
        else:
            self.send_away(identity, f"a factory has nothing to say about {type(message).__name__}")

    def send_away(self, identity: bytes, why: str) -> None:
        """A factory said what cannot be read, or is not for it to say."""
        log.warning("refused a message of factory %s: %s", self._factories[identity][1].name, why)
        self._say(identity, Refused(f"the manager could not read this factory's message: {why}"))
        self._part(identity)

    def on_ended(self, descriptor: int) -> None:
        """A connection ended; perhaps it was one of ours."""
        for identity, (known, _) in list(self._factories.items()):
            if known == descriptor:
                self._part(identity)

    # -- what is told ----------------------------------------------------------------------------------

    def tell(self, demand: Demand) -> None:
        """What the work asks for has changed."""
        for listener in list(self._listeners):
            listener(demand)
        for identity in list(self._factories):
            self._say(identity, demand)

    def say_goodbye(self, reason: str) -> None:
        """The manager closes."""
        for identity in list(self._factories):
            self._say(identity, Leave(reason))

    def _say(self, identity: bytes, message: ToFactory) -> None:
        if not all(self._send(identity, frame) for frame in encode_frames([message])):
            self._part(identity)

    def _part(self, identity: bytes) -> None:
        if self._factories.pop(identity, None) is not None:
            self._perhaps_stop()

    def _perhaps_stop(self) -> None:
        if not self._listeners and not self._factories:
            self._core.on_unwatch()


def _refusal(attend: Attend, version: str) -> str | None:
    if (attend.protocol, attend.graphvine) != (PROTOCOL_VERSION, version):
        return f"it is graphvine {attend.graphvine}, the manager {version}; install that version for it"
    return None
