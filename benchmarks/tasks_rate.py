"""Python tasks and calls of a library that do nothing, against ``ProcessPoolExecutor.submit``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from time import perf_counter

from harness import CORES, QUICK, Row, emit, say

import graphvine

COUNT = 1000 if QUICK else 10000
FORKED = COUNT // 20


def nothing(x: int) -> int:
    return x


def pool() -> float:
    """Calls per second, from the first ``submit`` to the last result."""
    with ProcessPoolExecutor(CORES) as executor:
        wait([executor.submit(nothing, i) for i in range(CORES * 10)])
        began = perf_counter()
        futures = [executor.submit(nothing, i) for i in range(COUNT)]
        assert sum(future.result() for future in futures) == COUNT * (COUNT - 1) // 2
        return COUNT / (perf_counter() - began)


def ours(manager: graphvine.Manager, make: Callable[[int], graphvine.Task], count: int = COUNT) -> float:
    """Tasks per second, from the first one made to the last ``wait``."""
    began = perf_counter()
    for i in range(count):
        manager.submit(make(i))
    total = 0
    while not manager.empty():
        task = manager.wait(60)
        assert task is not None
        total += task.output
    assert total == count * (count - 1) // 2
    return count / (perf_counter() - began)


def python_task(i: int) -> graphvine.Task:
    task = graphvine.PythonTask(nothing, i)
    task.set_cores(1)
    return task


def function_call(i: int) -> graphvine.Task:
    return graphvine.FunctionCall("nothing", "nothing", i)


def forked_call(i: int) -> graphvine.Task:
    task = graphvine.FunctionCall("nothing", "nothing", i)
    task.set_exec_method("fork")
    return task


def main() -> None:
    kinds = {"PythonTask": python_task, "FunctionCall": function_call, "FunctionCall, forked": forked_call}
    rates: dict[str, list[float]] = {name: [] for name in (*kinds, "pool")}
    with graphvine.Manager(local_workers=CORES) as manager:
        manager.install_library(manager.create_library_from_functions("nothing", nothing))
        for make in kinds.values():
            ours(manager, make, FORKED)
        for _ in range(1 if QUICK else 5):
            rates["pool"].append(pool())
            for name, make in kinds.items():
                rates[name].append(ours(manager, make, FORKED if make is forked_call else COUNT))
    median = {name: statistics.median(values) for name, values in rates.items()}
    say(", ".join(f"{name} {rate:.0f}/s" for name, rate in median.items()))
    goals = {"PythonTask": ("0.3x", "1x"), "FunctionCall": ("0.5x", "2x")}
    for name in kinds:
        must, aim = goals.get(name, ("", ""))
        figures = {"per_s": {"graphvine": median[name], "pool": median["pool"]}}
        what = f"{name}, vs ProcessPoolExecutor.submit"
        emit(Row("tasks_rate", what, median[name] / median["pool"], must, aim, figures))


if __name__ == "__main__":
    main()
