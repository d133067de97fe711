"""Bulk data between workers, and from workers to the manager: each file over a link of its own.

A holder that is suspended answers when it goes on, or never; one that is dead, or behind a wall, cannot be
reached; a transfer may be damaged. Speeds and delays are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphvine.protocol.messages import Address, LinkState
from simulation.work import Content

if TYPE_CHECKING:
    from simulation.agents import SimAgent
    from simulation.cluster import Cluster

TIMEOUT_S = 3.0
#: How long one waits for an answer where there is none.
SILENCE_S = 0.4
TOO_LONG = "it took too long"
#: How long a holder waits for what it may be about to get.
COMING_S = 1.0
#: How often what arrives is looked at, for want of threads that would wait for it.
_LOOK_S = 0.002
Finished = Callable[["Content | None", str], None]


def link_state(reason: str) -> LinkState | None:
    """What a failed transfer says of the link."""
    if reason in ("silent", TOO_LONG):
        return "silent"
    return "refused" if reason == "refused" else None


class Transfers:
    """Counts what moves, for whoever asks."""

    def __init__(self, world: Cluster) -> None:
        self._world = world
        self.count = 0
        self.moved_bytes = 0
        #: Links that were tried in vain: asker, holder, and when.
        self.failed: list[tuple[str, str, float]] = []
        self.probes = 0

    def probe(self, asker: str, addresses: Sequence[Address], finished: Callable[[LinkState], None]) -> None:
        """Whether a link can be made."""
        world = self._world
        self.probes += 1
        holder = world.agents_by_serial.get(addresses[0].port)
        state = world.link(asker, holder.name) if holder is not None and holder.alive else "refused"
        delay_s = SILENCE_S if state == "silent" else world.chance.uniform(0.001, 0.05)
        world.events.after(delay_s, lambda: finished(state))

    def start(
        self,
        asker: str,
        addresses: Sequence[Address],
        file: int,
        size: int,
        coming: bool,
        finished: Finished,
    ) -> None:
        """Have ``finished`` called once: with the content, or with the reason why there is none. ``coming``:
        the holder is perhaps about to get it itself, and passes it on."""
        world = self._world
        holder = world.agents_by_serial.get(addresses[0].port)
        state = world.link(asker, holder.name) if holder is not None and holder.alive else "refused"
        if holder is None or state != "made":
            self.failed.append((asker, holder.name if holder is not None else "", world.now))
            delay_s = SILENCE_S if state == "silent" else world.chance.uniform(0.001, 0.05)
            world.events.after(delay_s, lambda: finished(None, state))
            return
        duration = world.weather.latency_s * 3 + size / world.weather.bandwidth
        done = [False]

        def end(content: Content | None, reason: str) -> None:
            if not done[0]:
                done[0] = True
                finished(content, reason)

        patience_s = COMING_S if coming else 0.0
        world.events.after(TIMEOUT_S + patience_s, lambda: end(None, TOO_LONG))
        world.events.after(duration, lambda: self._arrive(holder, file, size, patience_s, end))
        if world.weather.latency_s:
            # A holder that dies in between resets the link.
            world.events.after(duration, lambda: None if holder.alive else end(None, "connection reset"))

    def _arrive(self, holder: SimAgent, file: int, size: int, patience_s: float, end: Finished) -> None:
        holder.later(0.0, lambda: self._send(holder, file, size, patience_s, end))

    def _send(self, holder: SimAgent, file: int, size: int, patience_s: float, end: Finished) -> None:
        world = self._world
        content = holder.store.get(file)
        if content is None and (file in holder.fetching or file in holder.pulling):
            # It is on its way there: whoever asks gets it as it comes.
            holder.later(_LOOK_S, lambda: self._send(holder, file, size, 0.0, end))
        elif content is None and patience_s > 0:
            holder.later(_LOOK_S, lambda: self._send(holder, file, size, patience_s - _LOOK_S, end))
        elif content is None:
            end(None, "not held")
        elif world.chance.random() < world.weather.damage or content.size != size:
            end(None, f"damaged ({content.size} bytes of {size})")
        else:
            self.count += 1
            self.moved_bytes += content.size
            end(content, "")
