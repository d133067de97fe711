"""The graphs that are run, as plain dictionaries, and the functions in them.

In a module of its own so that every contender pickles the functions by name.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

Graph = dict[Any, Any]


def increment(x: int) -> int:
    return x + 1


def add(values: Sequence[Any]) -> Any:
    return sum(values)


def middle(left: int, here: int, right: int) -> int:
    return here


def burn(cpu_s: float, _number: int) -> int:
    """Hold the GIL for that much CPU time of this thread."""
    end = time.thread_time() + cpu_s
    while time.thread_time() < end:
        pass
    return 1


def make_array(number: int, length: int) -> Any:
    import numpy as np

    return np.full(length, float(number))


def add_arrays(arrays: Sequence[Any]) -> Any:
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


def total_of(array: Any) -> float:
    return float(array.sum())


def reduction(leaves: Graph, fan_in: int, function: Any, tag: Any) -> tuple[Graph, Any]:
    """``leaves`` and a tree of ``function`` over ``fan_in`` of them at a time; and the root's key."""
    graph = dict(leaves)
    level = list(leaves)
    depth = 0
    while len(level) > 1:
        groups = [level[i : i + fan_in] for i in range(0, len(level), fan_in)]
        level = [(f"sum-{tag}", depth, i) for i in range(len(groups))]
        graph.update(zip(level, ((function, group) for group in groups), strict=True))
        depth += 1
    return graph, level[0]


def increments(count: int, tag: Any) -> tuple[Graph, Any]:
    """``count`` increments and sums of 16: 10,669 tasks for 10,000."""
    return reduction({(f"inc-{tag}", i): (increment, i) for i in range(count)}, 16, add, tag)


def stencil(width: int, steps: int, tag: Any) -> tuple[Graph, Any]:
    """A ring of ``width`` cells, each made of its neighbours' values and its own, ``steps`` times; a sum."""
    name = f"cell-{tag}"
    graph: Graph = {(name, 0, i): (increment, i) for i in range(width)}
    for step in range(1, steps):
        for i in range(width):
            before = [(name, step - 1, (i + d) % width) for d in (-1, 0, 1)]
            graph[name, step, i] = (middle, *before)
    graph[f"end-{tag}"] = (add, [(name, steps - 1, i) for i in range(width)])
    return graph, f"end-{tag}"


def burners(count: int, cpu_s: float, tag: Any) -> tuple[Graph, Any]:
    """``count`` tasks that hold the GIL, and their sum."""
    name = f"burn-{tag}"
    graph: Graph = {(name, i): (burn, cpu_s, i) for i in range(count)}
    graph[f"end-{tag}"] = (add, list(graph))
    return graph, f"end-{tag}"


def arrays(count: int, length: int, tag: Any) -> tuple[Graph, Any]:
    """``count`` arrays of ``length`` numbers, summed 8 at a time, then to one number."""
    leaves = {(f"array-{tag}", i): (make_array, i, length) for i in range(count)}
    graph, root = reduction(leaves, 8, add_arrays, tag)
    graph[f"end-{tag}"] = (total_of, root)
    return graph, f"end-{tag}"
