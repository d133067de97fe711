"""Tasks of every kind that do nothing, and how many of them a manager gets done in a second."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import graphvine

Make = Callable[[int], graphvine.Task]


def nothing(x: int) -> int:
    return x


def install(manager: graphvine.Manager) -> None:
    """The library that ``function_call`` calls."""
    manager.install_library(manager.create_library_from_functions("nothing", nothing))


def rate(manager: graphvine.Manager, count: int, make: Make) -> float:
    """Tasks per second, from the first one made to the last ``wait``."""
    began = perf_counter()
    for i in range(count):
        manager.submit(make(i))
    done = 0
    while not manager.empty():
        task = manager.wait(60)
        assert task is not None
        assert task.successful(), task.reason
        done += 1
    assert done == count
    return count / (perf_counter() - began)


def command(_: int) -> graphvine.Task:
    return graphvine.Task("true", cores=1)


def shell_command(_: int) -> graphvine.Task:
    """One that no program can be run for without a shell."""
    return graphvine.Task("true && true", cores=1)


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
