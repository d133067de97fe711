"""Links from this worker to others: which can't be made, so that each is paid for once. Pure.

The manager is told of every failure and every first success, and names those who can be reached (see
``manager.reach``). What it named before it knew is passed over here, and it is told again. Whom it names
after ``bar_s`` is tried: it will have heard something.
"""

from __future__ import annotations

from graphvine.protocol.messages import LinkNews, LinkState
from graphvine.worker.outbox import Outbox

#: So many are remembered of each kind.
_REMEMBERED = 10_000


class Links:
    """What became of the links to other workers, by number."""

    def __init__(self, bar_s: float, outbox: Outbox) -> None:
        self.now = 0.0
        """The time, as of the last turn."""
        self._bar_s = bar_s
        self._outbox = outbox
        self._barred: dict[int, tuple[float, LinkState]] = {}
        """Until when not to try, and what happened."""
        self._made: set[int] = set()

    def is_barred(self, worker: int) -> bool:
        """Whether a link failed lately. The manager, which named that worker, is told again."""
        until, state = self._barred.get(worker, (self.now, "made"))
        if self.now >= until:
            return False
        self._tell(worker, state)
        return True

    def note(self, worker: int, state: LinkState) -> None:
        """A link was made, or failed."""
        if state != "made":
            self._bar(worker, state)
        elif worker in self._made:
            return
        else:
            self._barred.pop(worker, None)
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            self._made.add(worker)
        self._tell(worker, state)

    def _bar(self, worker: int, state: LinkState) -> None:
        self._made.discard(worker)
        if len(self._barred) >= _REMEMBERED:
            self._barred.clear()
        self._barred[worker] = (self.now + self._bar_s, state)

    def _tell(self, worker: int, state: LinkState) -> None:
        news = LinkNews(worker, state)
        if news not in self._outbox.links:
            self._outbox.links.append(news)
