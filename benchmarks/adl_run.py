"""The ADL example on a million made-up events: against distributed, and against the sum of task times."""

from __future__ import annotations

from typing import Any

from adl_common import EVENTS, histograms
from harness import CORES, QUICK, Contender, Get, Row, distributed, emit, graphvine, medians, race, say, timed

CHUNKS = 16 if QUICK else 200


def graph_of(collections: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The optimised graph that dask hands to a scheduler for these collections, and its keys."""
    from dask.base import collections_to_dsk

    parts = list(collections.values())
    return collections_to_dsk(parts), [part.__dask_keys__() for part in parts]


def sum_of_task_times(graph: Any, keys: list[Any]) -> float:
    """Seconds of all tasks, one after another in this process."""
    import dask
    from dask.diagnostics import Profiler

    with Profiler() as profiler:
        dask.get(graph, keys)
    return float(sum(task.end_time - task.start_time for task in profiler.results))


def total_of(results: Any) -> int:
    """Entries of all histograms in nested results."""
    if isinstance(results, list | tuple):
        return sum(map(total_of, results))
    return int(results.sum(flow=True))


def main() -> None:
    # Planning and optimising are dask-awkward's, and the same for everybody: not measured.
    graph, keys = graph_of(histograms(CHUNKS))
    totals: set[int] = set()

    def job(get: Get, _number: int) -> float:
        results: list[Any] = []
        seconds = timed(lambda: results.append(get(graph, keys)))
        totals.add(total_of(results[0]))
        return seconds

    peer: Contender = distributed(CORES, 1)
    times = race([graphvine(), peer], job, rounds=3, repeats=2)
    assert len(totals) == 1, f"not everybody counts the same: {totals}"
    median = medians(times)
    ideal = sum_of_task_times(graph, keys) / CORES
    say(f"sum of task times / cores: {ideal:.2f} s")
    what = f"ADL example, {EVENTS:,} events in {CHUNKS} chunks"
    details = {"seconds": median | {"sum of task times / cores": ideal}}
    ours = median["graphvine"]
    emit(
        Row("adl_run", f"{what}, vs {peer.name} (warm)", median[peer.name] / ours, "1x", "1.5x", details),
        Row(
            "adl_ideal",
            f"{what}: sum of task times / cores, over its time",
            ideal / ours,
            "0.8",
            "0.95",
            details,
            "",
        ),
    )


if __name__ == "__main__":
    main()
