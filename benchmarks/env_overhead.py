"""500 tasks in one packed environment, against the same tasks in the worker's own, after the one unpack.

The environment is the one that runs this, packed: with the ``hep`` extra it has coffea and what that needs.
One manager serves both kinds of run, which take turns, so that a machine that gets slower favours nobody.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from time import perf_counter
from typing import Any

from harness import CORES, QUICK, Row, emit

from graphvine import Manager
from graphvine.envs.packing import PackedEnvironment, pack

COUNT = 100 if QUICK else 500
ROUNDS = 2 if QUICK else 9


def fill(seed: int) -> float:
    """About 20 ms of what an analysis does, with what it imports."""
    import coffea.nanoevents  # noqa: F401 -- so that it is the environment's coffea that is there
    import hist
    import numpy

    values = numpy.random.default_rng(seed).normal(size=400_000)
    axis = hist.axis.Regular(100, -5, 5)
    return float(hist.Hist(axis).fill(values).sum(flow=True))


def graph_of(number: int) -> tuple[dict[Any, Any], Any]:
    graph: dict[Any, Any] = {("fill", number, i): (fill, i) for i in range(COUNT)}
    graph["sum", number] = (sum, list(graph))
    return graph, ("sum", number)


def run(manager: Manager, number: int, environment: PackedEnvironment | None) -> float:
    """Seconds of one graph."""
    graph, key = graph_of(number)
    began = perf_counter()
    result = manager.get(graph, key, environment=environment, progress=False)
    seconds = perf_counter() - began
    assert result == COUNT * 400_000.0, result
    return seconds


def main() -> None:
    began = perf_counter()
    packed = pack("current")
    packing_s = perf_counter() - began
    within: list[float] = []
    without: list[float] = []
    with tempfile.TemporaryDirectory(prefix="graphvine-bench-") as cache:
        os.environ["GRAPHVINE_CACHE_DIR"] = cache
        with Manager(local_workers=CORES) as manager:
            first = run(manager, 0, None), run(manager, 1, packed)
            for number in range(2, 2 * ROUNDS + 2, 2):
                # Each is first as often as the other.
                for environment, times in [(None, without), (packed, within)][:: -1 if number % 4 else 1]:
                    times.append(run(manager, number + (environment is None), environment))
    medians = {"without": statistics.median(without), "within": statistics.median(within)}
    details = {
        "medians": {name: round(seconds, 3) for name, seconds in medians.items()},
        "first": {"without": round(first[0], 2), "within": round(first[1], 2)},
        "packing_s": round(packing_s, 2),
        "archive_mb": round(packed.size / 1e6),
    }
    overhead = 100 * (medians["within"] / medians["without"] - 1)
    what = f"{COUNT} tasks in one packed environment: overhead over the same tasks without it"
    emit(Row("env_overhead", what, round(overhead, 2), "5", "1", details, unit=" %", smaller_is_better=True))


if __name__ == "__main__":
    main()
