"""Python tasks and calls of a library that do nothing, against ``ProcessPoolExecutor.submit``."""

from __future__ import annotations

import statistics
from concurrent.futures import ProcessPoolExecutor, wait
from time import perf_counter

from harness import CORES, QUICK, Row, emit, say
from nothing import forked_call, function_call, install, nothing, python_task, rate

import graphvine

COUNT = 1000 if QUICK else 10000
FORKED = COUNT // 20


def pool() -> float:
    """Calls per second, from the first ``submit`` to the last result."""
    with ProcessPoolExecutor(CORES) as executor:
        wait([executor.submit(nothing, i) for i in range(CORES * 10)])
        began = perf_counter()
        futures = [executor.submit(nothing, i) for i in range(COUNT)]
        assert sum(future.result() for future in futures) == COUNT * (COUNT - 1) // 2
        return COUNT / (perf_counter() - began)


def main() -> None:
    kinds = {"PythonTask": python_task, "FunctionCall": function_call, "FunctionCall, forked": forked_call}
    rates: dict[str, list[float]] = {name: [] for name in (*kinds, "pool")}
    with graphvine.Manager(local_workers=CORES) as manager:
        install(manager)
        for make in kinds.values():
            rate(manager, FORKED, make)
        for _ in range(1 if QUICK else 5):
            rates["pool"].append(pool())
            for name, make in kinds.items():
                rates[name].append(rate(manager, FORKED if make is forked_call else COUNT, make))
    median = {name: statistics.median(values) for name, values in rates.items()}
    say(", ".join(f"{name} {value:.0f}/s" for name, value in median.items()))
    goals = {"PythonTask": ("0.3x", "1x"), "FunctionCall": ("0.5x", "2x")}
    for name in kinds:
        must, aim = goals.get(name, ("", ""))
        figures = {"per_s": {"graphvine": median[name], "pool": median["pool"]}}
        what = f"{name}, vs ProcessPoolExecutor.submit"
        emit(Row("tasks_rate", what, median[name] / median["pool"], must, aim, figures))


if __name__ == "__main__":
    main()
