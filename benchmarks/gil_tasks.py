"""2,000 tasks that hold the GIL for 10 ms of CPU time each: what share of the cores' time is work."""

from __future__ import annotations

from graphs import burners
from harness import CORES, QUICK, Get, Row, distributed, emit, graphvine, medians, race, timed

COUNT, CPU_S = (200 if QUICK else 2000), 0.010


def job(get: Get, number: int) -> float:
    graph, key = burners(COUNT, CPU_S, number)
    result: list[int] = []
    seconds = timed(lambda: result.append(get(graph, key)))
    assert result == [COUNT], result
    return seconds


def main() -> None:
    times = race([graphvine(), distributed(CORES, 1)], job, rounds=3, repeats=1)
    ideal = COUNT * CPU_S / CORES
    shares = {name: round(ideal / seconds, 3) for name, seconds in medians(times).items()}
    what = f"{COUNT:,} GIL-bound tasks of 10 ms: share of the ideal time"
    emit(Row("gil_tasks", what, shares["graphvine"], "0.92", "0.97", {"shares": shares}, unit=""))


if __name__ == "__main__":
    main()
