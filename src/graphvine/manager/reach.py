"""Who can fetch from whom: what was learned of links that can't be made, so that it is paid for once. Pure.

A link that can't be made costs seconds when nothing answers at all (a firewall that drops, a NAT, a dead
host), and a round trip when somebody says no. What is told of it counts

- when somebody says no: for that worker, as seen from the host that asked;
- when nothing answers: for the two hosts; and where several such pairs are known and not one that works, also
  for what they have in common: the networks on both sides (those behind one NAT, as the manager sees it),
  everything on the holder's host, everything that the asker's host asks.

A link that is not believed in is not used. When somebody could use it and its time has come, it is to be
*probed*, which no task waits for: after ``retry_s``, then after twice as long, up to ``retry_most_s``. What
is found to work is used again at once, and nothing wider is believed to be closed of which a part works.

At most ``marks`` of all this are remembered; what was not looked at for longest is forgotten, and learned
again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Literal

import msgspec

from graphvine.protocol.messages import Hello

#: try: nothing speaks against it. avoid: it is believed not to work. probe: so it is, and it is time to look.
Advice = Literal["try", "avoid", "probe"]


class Place(msgspec.Struct, frozen=True):
    """From where a worker speaks, and where it can be reached if it can."""

    worker: int
    host: str
    """Equal for workers that have the same addresses, and are on one node."""
    network: str = ""
    """The address of the NAT that it is behind ("": of none)."""


def place_of(worker: int, hello: Hello, seen_at: str) -> Place:
    """The place of a worker that said this. ``seen_at``: the address from which it speaks ("": not known)."""
    addresses = sorted({address.host for address in hello.addresses})
    return Place(worker, " ".join([hello.node, *addresses]), "" if seen_at in addresses else seen_at)


#: Links to, or from, how many hosts have to fail before all that have this in common are avoided.
_NETWORKS = 2
_HOSTS = 3


class _Mark(msgspec.Struct):
    """What is known of one kind of link."""

    until: float
    delay_s: float
    failed: set[str] = msgspec.field(default_factory=set)
    """Hosts on one side of links that failed, as many as matter."""
    works: bool = False
    """Some link of this kind was made."""


class Reach:
    """What is known of all links. Every call costs the same however many there are."""

    def __init__(self, retry_s: float, retry_most_s: float, marks: int) -> None:
        self._retry_s = retry_s
        self._retry_most_s = retry_most_s
        self._limit = marks
        self._marks: OrderedDict[Hashable, _Mark] = OrderedDict()
        self._trouble = False
        """Whether any link ever failed."""

    def __len__(self) -> int:
        return len(self._marks)

    def note_failed(self, asker: Place, holder: Place, silent: bool, now: float) -> None:
        """A link could not be made. ``silent``: nothing answered; otherwise somebody said no, or the wrong
        thing."""
        self._trouble = True
        if not silent:
            self._put_off(self._mark((asker.host, holder.worker), now), now)
            return
        pair = asker.host, holder.host
        mark = self._mark(pair, now)
        mark.works = False
        self._put_off(mark, now)
        for key, enough, host in _wider(asker, holder):
            wide = self._mark(key, now)
            if len(wide.failed) < enough:
                wide.failed.add(host)
            if not wide.works and len(wide.failed) >= enough:
                self._put_off(wide, now)

    def note_made(self, asker: Place, holder: Place, now: float) -> None:
        """A link was made."""
        self._marks.pop((asker.host, holder.worker), None)
        keys: list[Hashable] = [key for key, _, _ in _wider(asker, holder)]
        if (asker.host, holder.host) in self._marks:
            keys.append((asker.host, holder.host))
        for key in keys:
            mark = self._mark(key, now)
            mark.works, mark.until, mark.delay_s = True, now, self._retry_s
            mark.failed.clear()

    def advise(self, asker: Place, holder: Place, now: float) -> Advice:
        """Whether to use a link. Who hears "probe" probes it, and tells what came of it: until then, or until
        the next time, nobody else hears that of this link."""
        if not self._trouble:
            return "try"
        for mark in self._against(asker, holder):
            if now < mark.until:
                return "avoid"
            self._put_off(mark, now)
            return "probe"
        return "try"

    def _against(self, asker: Place, holder: Place) -> Iterator[_Mark]:
        """What speaks against a link, what is known of itself before what is concluded."""
        marks = self._marks
        exact = marks.get((asker.host, holder.worker))
        if exact is not None:
            yield exact
        pair = marks.get((asker.host, holder.host))
        if pair is not None:
            if not pair.works:
                yield pair
            return
        for key, enough, _ in _wider(asker, holder):
            wide = marks.get(key)
            if wide is not None and not wide.works and len(wide.failed) >= enough:
                yield wide

    def _put_off(self, mark: _Mark, now: float) -> None:
        """Not before a while; a longer one each time."""
        if now < mark.until:
            return
        mark.until = now + mark.delay_s
        mark.delay_s = min(2 * mark.delay_s, self._retry_most_s)

    def _mark(self, key: Hashable, now: float) -> _Mark:
        mark = self._marks.get(key)
        if mark is None:
            mark = self._marks[key] = _Mark(now, self._retry_s)
            if len(self._marks) > self._limit:
                self._marks.popitem(last=False)
        else:
            self._marks.move_to_end(key)
        return mark


def _wider(asker: Place, holder: Place) -> Iterator[tuple[Hashable, int, str]]:
    """What a link has in common with others; of how many hosts it takes failures to conclude something about
    all (of holders, where it is not about one: a host may be dead); and the host of these two that counts."""
    if asker.network != holder.network:
        ends = asker.network or asker.host, holder.network or holder.host
        yield ("networks", *ends), _NETWORKS, holder.host
    if asker.host != holder.host:
        yield ("to", holder.host), _HOSTS, asker.host
        yield ("from", asker.host), _HOSTS, holder.host
