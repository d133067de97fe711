"""10,000 increments and sums of 16, 10,669 tasks that do next to nothing: what a task costs."""

from __future__ import annotations

from graphs import increments
from harness import CORES, Get, Row, distributed, emit, graphvine, medians, race, synchronous, timed


def job(get: Get, number: int) -> float:
    graph, key = increments(10_000, number)
    result: list[int] = []
    seconds = timed(lambda: result.append(get(graph, key)))
    assert result == [sum(range(1, 10_001))], result
    return seconds


def main() -> None:
    times = race([graphvine(), distributed(CORES, 1), synchronous()], job)
    tasks = len(increments(10_000, 0)[0])
    median = medians(times)
    rates = {name: round(tasks / seconds) for name, seconds in median.items()}
    ours = median["graphvine"]
    peer = f"distributed {CORES}x1"
    emit(
        Row(
            "noop_graph",
            f"{tasks:,} no-op tasks vs {peer}",
            median[peer] / ours,
            "30x",
            "80x",
            {"tasks/s": rates},
        ),
        Row(
            "noop_graph_sync",
            f"{tasks:,} no-op tasks vs dask's synchronous scheduler",
            median["dask synchronous"] / ours,
            "1.5x",
            "4x",
            {"tasks/s": rates},
        ),
    )


if __name__ == "__main__":
    main()
