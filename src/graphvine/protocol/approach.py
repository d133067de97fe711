"""The way to a manager: how long to stay with one of its addresses, and when to give up. Pure.

- An address at which nobody answers in time is left for the next one; one at which the connection was
  refused, or has ended, soon, but not at once: it would be refused again, without a pause.
- A connection that is made gives the manager its time to answer. One that comes after another that ended is
  none to hope for: whoever ends them does so again.
- Where somebody listens at every address, and none of them wants this side, there is no use in trying for
  long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

#: refused: nobody listens at this address now; made: somebody with the manager's key does; ended: no more;
#: rejected: somebody listens there, with whom there was no agreement.
LinkNews = Literal["refused", "made", "ended", "rejected"]

#: Once may be chance: a manager that was just going away.
_REJECTIONS = 2


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """All in seconds."""

    connect_s: float
    """How long one of several addresses may take until it is connected."""
    answer_s: float
    """How long a connected manager, or the only address, may take to answer."""
    refused_s: float
    """How long to stay with an address at which nobody listens."""
    rejected_s: float = math.inf
    """How long to go on where every address belongs to somebody else."""
    lost_s: float
    """How long to go on at all."""


class Approach:
    """Told of what happens between the loss of a manager and its next answer."""

    def __init__(self, hosts: Sequence[str], patience: Patience, now: float) -> None:
        self._hosts = frozenset(hosts)
        self._patience = patience
        self._trying_s = patience.connect_s if len(hosts) > 1 else patience.answer_s
        self._alone_since = now
        self._rejected_since = now
        self._hopeless = False
        """Whether the connection to this address ended before the manager answered."""
        self.next_at = now + self._trying_s
        """When to go on to the next address."""

    def lost(self, now: float) -> None:
        """The manager had answered, and does not any more."""
        self._alone_since = now
        self.next_at = now + self._patience.answer_s

    def tried(self, now: float) -> None:
        """The next address is being tried."""
        self._hopeless = False
        self.next_at = now + self._trying_s

    def on_news(self, news: LinkNews | None, times_rejected: Mapping[str, int], now: float) -> bool:
        """What became of the connection. True: there is no use in trying any more, as every address is that
        of somebody else (see ``Link.rejections``)."""
        if news == "made" and not self._hopeless:
            self.next_at = now + self._patience.answer_s
        elif news in ("ended", "refused", "rejected"):
            self.next_at = min(self.next_at, now + self._patience.refused_s)
            if news != "refused":
                self._hopeless = True
                return self._is_rejected(times_rejected, now)
        return False

    def _is_rejected(self, times: Mapping[str, int], now: float) -> bool:
        if len(times) < len(self._hosts) or min(times.values(), default=0) < _REJECTIONS:
            self._rejected_since = now
            return False
        return now - self._rejected_since >= self._patience.rejected_s

    def is_over(self, now: float) -> bool:
        """Whether nobody has answered for so long that nobody will."""
        return now - self._alone_since >= self._patience.lost_s
