"""A stencil of 32 cells and 200 steps: every task needs three results of the step before."""

from __future__ import annotations

from graphs import stencil
from harness import CORES, Get, Row, distributed, emit, graphvine, medians, race, timed


def job(get: Get, number: int) -> float:
    graph, key = stencil(32, 200, number)
    result: list[int] = []
    seconds = timed(lambda: result.append(get(graph, key)))
    assert result == [sum(range(1, 33))], result
    return seconds


def main() -> None:
    median = medians(race([graphvine(), distributed(CORES, 1)], job))
    tasks = len(stencil(32, 200, 0)[0])
    peer = f"distributed {CORES}x1"
    rates = {name: round(tasks / seconds) for name, seconds in median.items()}
    value = median[peer] / median["graphvine"]
    emit(
        Row("stencil", f"32 x 200 stencil of no-op tasks vs {peer}", value, "20x", "60x", {"tasks/s": rates})
    )


if __name__ == "__main__":
    main()
