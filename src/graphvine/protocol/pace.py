"""How many pieces of files to have under way at once on one path, told from how long they take. Pure.

Pieces share their connection with messages that must not wait, heartbeats among them. So there are never more
under way than keep the path busy: as long as one takes hardly longer than the quickest did, one more is
tried; when it takes ``QUEUE_S`` longer, they wait for each other somewhere, and there are fewer. (Delay as
the sign of a full path: as LEDBAT does it, RFC 6817.)
"""

from __future__ import annotations

#: So long may a piece wait behind others.
QUEUE_S = 0.05
_FIRST = 4


class Pace:
    """The bound of one path. ``most`` is never exceeded."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(min(_FIRST, most))
        self._quickest_s = float("inf")
        self._searching = True
        """No wait was seen yet: the bound grows quickly."""

    @property
    def limit(self) -> int:
        """How many may be under way; 1 at least."""
        return int(self._limit)

    def note(self, took_s: float) -> None:
        """A piece came, so long after it was asked for."""
        self._quickest_s = min(self._quickest_s, took_s)
        waited_s = took_s - self._quickest_s
        if waited_s > QUEUE_S:
            self._searching = False
            # Each of those under way says so: together they take the bound down by a fraction.
            self._limit -= min(0.5, waited_s / took_s)
        else:
            self._limit += 1.0 if self._searching else 1.0 / self._limit
        self._limit = min(max(self._limit, 1.0), float(self._most))
