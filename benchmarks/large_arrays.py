"""256 arrays of 8 MB, summed 8 at a time: what it costs to hand large results on."""

from __future__ import annotations

from graphs import arrays
from harness import QUICK, Get, Row, best_peer, distributed_layouts, emit, graphvine, medians, race, timed

COUNT, LENGTH = (32 if QUICK else 256), 1_000_000


def job(get: Get, number: int) -> float:
    graph, key = arrays(COUNT, LENGTH, number)
    result: list[float] = []
    seconds = timed(lambda: result.append(get(graph, key)))
    assert result == [float(sum(range(COUNT)) * LENGTH)], result
    return seconds


def main() -> None:
    times = race([graphvine(), *distributed_layouts()], job)
    peer, seconds = best_peer(times)
    what = f"{COUNT} arrays of 8 MB, summed 8 at a time, vs {peer} (the faster layout)"
    value = seconds / medians(times)["graphvine"]
    emit(Row("large_arrays", what, value, "1.5x", "3x", {"seconds": medians(times)}))


if __name__ == "__main__":
    main()
