"""Strangers at a door: who has come and not shown yet that it may come in. No I/O here.

- A crowd is bounded. When it is full, one who comes takes the place of the one that has stood there longest,
  of those from the host that has sent most: so a host that floods the door is in its own way, and hardly in
  that of others.
- Of refusals each host is worth a line in the log now and then, and all hosts together a few lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")

_INTERVAL_S = 60.0
_LINES = 20


class Crowd(Generic[Key]):
    """``most``: so many may stand there."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._host_of: dict[Key, str] = {}
        self._by_host: dict[str, dict[Key, None]] = {}

    def add(self, key: Key, host: str) -> Key | None:
        """One comes. Returns who has to go for it, and counts no more."""
        self.remove(key)
        leaving = self._whom_to_turn_away() if len(self._host_of) >= self._most else None
        if leaving is not None:
            self.remove(leaving)
        self._host_of[key] = host
        self._by_host.setdefault(host, {})[key] = None
        return leaving

    def remove(self, key: Key) -> str | None:
        """It went, or came in. Returns its host, None when it was not there."""
        host = self._host_of.pop(key, None)
        if host is not None:
            those = self._by_host[host]
            del those[key]
            if not those:
                del self._by_host[host]
        return host

    def _whom_to_turn_away(self) -> Key:
        host = max(self._by_host, key=lambda host: len(self._by_host[host]))
        return next(iter(self._by_host[host]))

    def __contains__(self, key: Key) -> bool:
        return key in self._host_of

    def __iter__(self) -> Iterator[Key]:
        """Those who have stood there longest come first."""
        return iter(list(self._host_of))

    def __len__(self) -> int:
        return len(self._host_of)


class Refusals:
    """Says who was refused and why, but not more often than anybody wants to read it."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._said_at: dict[str, float] = {}
        """Who was named lately, the first one first."""
        self._unsaid = 0

    def note(self, host: str, what: str) -> None:
        """``what`` names the host, what it did, and what was done."""
        now = self._clock()
        while self._said_at and now - next(iter(self._said_at.values())) >= _INTERVAL_S:
            del self._said_at[next(iter(self._said_at))]
        if host in self._said_at or len(self._said_at) >= _LINES:
            self._unsaid += 1
            return
        self._said_at[host] = now
        if self._unsaid:
            what = f"{what} ({self._unsaid} more refusals were not logged)"
            self._unsaid = 0
        self._say(what)
