"""Links between agents and the manager: in order, late, sometimes cut, and through the real codec.

A link carries frames, as ZeroMQ over TCP does: what is sent arrives, in order, however late, unless the
connection ends first. Each side decodes what it gets with the codec of its side, so whatever nobody expects
there is an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from simulation.events import Events

#: A frame that says: nothing comes after this.
END = b""


class Link:
    """One direction of one connection."""

    def __init__(self, events: Events, delay: Callable[[], float], deliver: Callable[[bytes], None]) -> None:
        self._events = events
        self._delay = delay
        self._deliver = deliver
        self._frames: deque[tuple[float, bytes]] = deque()
        self._planned = False
        self.cut_until = 0.0

    def send(self, frame: bytes) -> None:
        last = self._frames[-1][0] if self._frames else 0.0
        self._frames.append((max(self._events.now + self._delay(), last), frame))
        self._plan()

    def lose_all(self) -> None:
        """What is on its way never arrives."""
        self._frames.clear()

    @property
    def quiet(self) -> bool:
        return not self._frames

    def _plan(self) -> None:
        if self._frames and not self._planned:
            self._planned = True
            self._events.at(max(self._frames[0][0], self.cut_until), self._arrive)

    def _arrive(self) -> None:
        self._planned = False
        if self._frames and max(self._frames[0][0], self.cut_until) <= self._events.now:
            self._deliver(self._frames.popleft()[1])
        self._plan()


class Connection:
    """One connection of an agent to the manager; another ``Hello`` needs another connection."""

    def __init__(self, serial: int, up: Link, down: Link) -> None:
        self.serial = serial
        self.identity = serial.to_bytes(5, "big")
        self.up = up
        self.down = down

    def cut(self, until: float) -> None:
        """Nothing arrives on either side until then; nothing is lost."""
        self.up.cut_until = max(self.up.cut_until, until)
        self.down.cut_until = max(self.down.cut_until, until)

    def close(self) -> None:
        """The agent's end is closed: what it sent arrives, and then the end."""
        self.down.lose_all()
        self.up.send(END)

    def break_off(self) -> None:
        """What is on its way is lost; both sides will see the end."""
        self.up.lose_all()
        self.close()
