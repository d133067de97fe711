"""Tasks that do nothing, against Parsl's HighThroughputExecutor: commands, and functions.

The same number of processes on the same cores; Parsl without encryption, as it is quicker so. Each is opened,
warmed by a job, timed for some more, and closed, in turn. What commands can be had at all is said by
``subprocess.run`` on as many threads.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Any

from commands import bare
from harness import CORES, QUICK, Row, emit, parsl, say
from nothing import command, function_call, install, python_task, rate, shell_command

import graphvine

COMMANDS = 200 if QUICK else 1000
CALLS = 500 if QUICK else 4000
ROUNDS, REPEATS = (1, 1) if QUICK else (3, 2)

#: Does a kind of work once; tasks per second, from the first one made to the last result.
Job = Callable[[], float]


@contextmanager
def ours() -> Iterator[dict[str, Job]]:
    with graphvine.Manager(local_workers=CORES) as manager:
        install(manager)
        yield {
            'Task("true")': lambda: rate(manager, COMMANDS, command),
            'Task("true && true")': lambda: rate(manager, COMMANDS, shell_command),
            "PythonTask": lambda: rate(manager, CALLS, python_task),
            "FunctionCall": lambda: rate(manager, CALLS, function_call),
        }


@contextmanager
def theirs() -> Iterator[dict[str, Job]]:
    with parsl() as module:
        # Made here, as they are pickled by value: its workers do not find our modules.
        def nothing(x: int) -> int:
            return x

        def true() -> str:
            return "true"

        def true_twice() -> str:
            return "true && true"

        call = module.python_app(nothing)
        line, two = module.bash_app(true), module.bash_app(true_twice)

        def measured(count: int, submit: Callable[[int], Any], expected: int) -> float:
            began = perf_counter()
            futures = [submit(i) for i in range(count)]
            assert sum(future.result() for future in futures) == expected
            return count / (perf_counter() - began)

        yield {
            "bash_app": lambda: measured(COMMANDS, lambda _: line(), 0),
            "bash_app, true && true": lambda: measured(COMMANDS, lambda _: two(), 0),
            "python_app": lambda: measured(CALLS, call, CALLS * (CALLS - 1) // 2),
        }


def measure(
    opened: Callable[[], AbstractContextManager[dict[str, Job]]], rates: dict[str, list[float]]
) -> None:
    with opened() as jobs:
        for name, job in jobs.items():
            job()
            rates.setdefault(name, []).extend(job() for _ in range(REPEATS))


def main() -> None:
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for opened in (ours, theirs):
            measure(opened, rates)
        rates.setdefault("subprocess.run", []).extend(bare() for _ in range(REPEATS))
        say(", ".join(f"{name} {values[-1]:,.0f}/s" for name, values in rates.items()))
    median = {name: statistics.median(values) for name, values in rates.items()}
    peers = {
        'Task("true")': "bash_app",
        'Task("true && true")': "bash_app, true && true",
        "PythonTask": "python_app",
        "FunctionCall": "python_app",
    }
    for name, peer in peers.items():
        names = [name, peer, "subprocess.run"] if name.startswith("Task(") else [name, peer]
        figures = {"per_s": {which: median[which] for which in names}}
        emit(Row("vs_parsl", f"{name}, vs Parsl's {peer}", median[name] / median[peer], "3x", "10x", figures))


if __name__ == "__main__":
    main()
