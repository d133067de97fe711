"""Simulated time: one heap of things that will happen."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]


class Events:
    """What happens at the same time happens in the order in which it was planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self.happened = 0
        self._heap: list[tuple[float, int, Action]] = []
        self._serial = 0

    def at(self, time: float, action: Action) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (max(time, self.now), self._serial, action))

    def after(self, delay_s: float, action: Action) -> None:
        self.at(self.now + delay_s, action)

    def step(self) -> bool:
        """Let the next thing happen. False when there is none."""
        if not self._heap:
            return False
        self.now, _, action = heapq.heappop(self._heap)
        self.happened += 1
        action()
        return True
