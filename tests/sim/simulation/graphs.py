"""Shapes of graphs: for each task its inputs, numbered so that inputs come first."""

from __future__ import annotations

import random
from collections.abc import Callable

Graph = list[tuple[int, ...]]


def independent(count: int, chance: random.Random) -> Graph:
    return [()] * count


def chains(count: int, chance: random.Random) -> Graph:
    """Several chains, each numbered through."""
    length = chance.randint(1, max(1, count // 2))
    return [() if task % length == 0 else (task - 1,) for task in range(count)]


def tree(count: int, chance: random.Random) -> Graph:
    """Leaves and sums of them, each sum numbered right after its inputs."""
    arity = chance.randint(2, 5)
    graph: Graph = []
    levels: list[list[int]] = [[]]
    while len(graph) < count:
        level = 0
        graph.append(())
        levels[0].append(len(graph) - 1)
        while len(levels[level]) == arity:
            graph.append(tuple(levels[level]))
            levels[level] = []
            level += 1
            if level == len(levels):
                levels.append([])
            levels[level].append(len(graph) - 1)
    rest = [task for level in levels for task in level]
    graph.append(tuple(rest))
    return graph


def stencil(count: int, chance: random.Random) -> Graph:
    """Rows of which each task needs its neighbours in the row before."""
    width = chance.randint(2, max(2, min(32, count // 2)))
    return grid(width, max(2, count // width))


def grid(width: int, rows: int) -> Graph:
    graph: Graph = [()] * width
    for row in range(1, rows):
        base = (row - 1) * width
        for column in range(width):
            near = range(max(0, column - 1), min(width, column + 2))
            graph.append(tuple(base + other for other in near))
    return graph


def shuffle(count: int, chance: random.Random) -> Graph:
    """Everything to everybody, twice."""
    side = max(2, int((count / 3) ** 0.5) + 1)
    graph: Graph = [()] * side
    for _ in range(2):
        last = range(len(graph) - side, len(graph))
        graph += [tuple(last)] * side
    return graph


def branches(count: int, chance: random.Random) -> Graph:
    """Chunks of which each is read once and looked at in several ways, numbered way by way; each way's looks
    are summed."""
    ways = chance.randint(2, 6)
    chunks = max(1, count // (2 * ways))
    graph: Graph = [()] * chunks
    for _ in range(ways):
        begin = len(graph)
        graph += [(chunk,) for chunk in range(chunks)]
        graph += [(begin + chunk, chunk) for chunk in range(chunks)]
        graph.append(tuple(range(begin + chunks, begin + 2 * chunks)))
    return graph


def at_random(count: int, chance: random.Random) -> Graph:
    """Any directed graph without cycles, the same input named twice now and then."""
    reach = chance.choice([3, 10, count])
    graph: Graph = []
    for task in range(count):
        fan = min(task, chance.choice([0, 1, 1, 2, 2, 3, 5]))
        graph.append(tuple(chance.randint(max(0, task - reach), task - 1) for _ in range(fan)))
    return graph


SHAPES: dict[str, Callable[[int, random.Random], Graph]] = {
    "independent": independent,
    "chains": chains,
    "tree": tree,
    "stencil": stencil,
    "shuffle": shuffle,
    "branches": branches,
    "at random": at_random,
}


def sinks(graph: Graph) -> list[int]:
    """Tasks that nobody names."""
    named = {name for names in graph for name in names}
    return [task for task in range(len(graph)) if task not in named]
