"""How many pieces are under way: as many as fill the path, and not more."""

from __future__ import annotations

import pytest

from graphvine.protocol.pace import QUEUE_S, Pace


def steady(bandwidth: float, latency_s: float, pieces: int = 8000, most: int = 1000) -> tuple[int, float]:
    """The bound that settles on a path that carries ``bandwidth`` pieces a second, and how long one waits
    there behind others, at most, in the end."""
    pace = Pace(most)
    now = free_at = 0.0
    arriving: list[tuple[float, float]] = []
    waits = []
    for _ in range(pieces):
        while len(arriving) < pace.limit:
            begun = max(now, free_at)
            free_at = begun + 1 / bandwidth
            arriving.append((free_at + latency_s, now))
        arrived, asked = arriving.pop(0)
        now = arrived
        pace.note(now - asked)
        waits.append(now - asked - latency_s - 1 / bandwidth)
    return pace.limit, max(waits[pieces // 2 :])


@pytest.mark.parametrize("bandwidth", [1.0, 40.0, 400.0, 4000.0])
@pytest.mark.parametrize("latency_s", [0.0002, 0.02, 0.2])
def test_a_path_is_full_and_nothing_waits_long_in_it(bandwidth: float, latency_s: float) -> None:
    limit, wait_s = steady(bandwidth, latency_s)
    needed = bandwidth * latency_s + 1
    assert limit >= min(0.9 * needed, 900)
    assert wait_s <= 2 * QUEUE_S + 1 / bandwidth


def test_a_path_that_becomes_slow_is_crowded_no_more() -> None:
    pace = Pace(32)
    for _ in range(100):
        pace.note(0.001)
    assert pace.limit == 32
    for _ in range(200):
        pace.note(1.0)
    assert pace.limit == 1
    for _ in range(2000):
        pace.note(0.001)
    assert pace.limit == 32


def test_the_bound_is_kept() -> None:
    pace = Pace(2)
    assert pace.limit == 2
    for _ in range(10):
        pace.note(0.0)
    assert pace.limit == 2
