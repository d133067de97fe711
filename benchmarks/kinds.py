"""Graphs of many kinds, none of them made for us: each vs distributed's faster layout.

Run: python benchmarks/kinds.py [NAME ...]
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

from graphs import Graph
from harness import (
    QUICK,
    Get,
    Job,
    Row,
    best_peer,
    distributed_layouts,
    emit,
    graphvine,
    medians,
    race,
    timed,
)

SCALE = 4 if QUICK else 1


def of_graph(make: Callable[[int], tuple[Graph, Any]]) -> Job:
    """What computes a plain graph, made anew for each number."""

    def job(get: Get, number: int) -> float:
        graph, key = make(number)
        return timed(lambda: get(graph, key))

    return job


def of_collection(make: Callable[[int], Any]) -> Job:
    """What computes one of dask's collections, as its users do."""

    def job(get: Get, number: int) -> float:
        collection = make(number)
        return timed(lambda: collection.compute(scheduler=get))

    return job


# -- plain graphs -----------------------------------------------------------------------------------------


def ones(length: int) -> Any:
    import numpy as np

    return np.ones(length)


def item(array: Any, at: int) -> float:
    return float(array[at])


def array_for_all(number: int) -> tuple[Graph, Any]:
    """One array of 100 MB that 300 tasks take."""
    graph: Graph = {("array", number): (ones, 12_500_000 // SCALE)}
    graph |= {("item", number, i): (item, ("array", number), i) for i in range(300)}
    graph["sum", number] = (sum, [("item", number, i) for i in range(300)])
    return graph, ("sum", number)


def make_table(rows: int) -> dict[str, tuple[int, str]]:
    return {f"row {i}": (i, str(i)) for i in range(rows)}


def look_up(table: dict[str, tuple[int, str]], row: int) -> int:
    return table[f"row {row}"][0]


def table_for_all(number: int) -> tuple[Graph, Any]:
    """One dictionary of 100,000 entries in which 200 tasks look something up."""
    graph: Graph = {("table", number): (make_table, 100_000 // SCALE)}
    graph |= {("row", number, i): (look_up, ("table", number), i) for i in range(200)}
    graph["sum", number] = (sum, [("row", number, i) for i in range(200)])
    return graph, ("sum", number)


def total(arrays: list[Any]) -> float:
    return float(sum(array.sum() for array in arrays))


def wide(number: int) -> tuple[Graph, Any]:
    """3,000 arrays of 10 kB that one task takes."""
    graph: Graph = {("small", number, i): (ones, 1250) for i in range(3000 // SCALE)}
    graph["total", number] = (total, list(graph))
    return graph, ("total", number)


def split(seed: int, parts: int) -> list[list[dict[str, Any]]]:
    rng = random.Random(seed)
    found: list[list[dict[str, Any]]] = [[] for _ in range(parts)]
    for n in range(20_000):
        found[rng.randrange(parts)].append({"id": n, "name": str(n)})
    return found


def part_of(parts: list[Any], at: int) -> Any:
    return parts[at]


def count(parts: list[list[Any]]) -> int:
    return sum(map(len, parts))


def objects_to_all(number: int) -> tuple[Graph, Any]:
    """Python objects from each of 24 tasks to each of 24 others."""
    n = 24 // SCALE
    graph: Graph = {("split", number, i): (split, i, n) for i in range(n)}
    graph |= {("part", number, i, j): (part_of, ("split", number, i), j) for i in range(n) for j in range(n)}
    graph |= {("count", number, j): (count, [("part", number, i, j) for i in range(n)]) for j in range(n)}
    graph["sum", number] = (sum, [("count", number, j) for j in range(n)])
    return graph, ("sum", number)


# -- dask's collections -----------------------------------------------------------------------------------


def random_array(number: int, shape: tuple[int, ...], chunks: tuple[int, ...]) -> Any:
    import dask.array as da

    return da.random.default_rng(number).random(shape, chunks=chunks)


def matrix_product(number: int) -> Any:
    x = random_array(number, (3000 // SCALE,) * 2, (500, 500))
    return (x @ x).sum()


def rechunk(number: int) -> Any:
    side = 8000 // SCALE
    return random_array(number, (side, side), (side, 200)).rechunk((200, side)).sum()


def double(block: Any) -> Any:
    return block * 2


def overlap(number: int) -> Any:
    x = random_array(number, (6000 // SCALE,) * 2, (600, 600))
    return x.map_overlap(double, depth=2, boundary="none").sum()


def tall_qr(number: int) -> Any:
    import dask.array as da

    return da.linalg.qr(random_array(number, (400_000 // SCALE, 40), (10_000, 40)))[1].sum()


def anomalies(number: int) -> Any:
    x = random_array(number, (1000 // SCALE, 200, 200), (20, 200, 200))
    return ((x - x.mean(axis=0)) ** 2).sum()


def pair_of(value: int) -> tuple[int, int]:
    return value % 17, value


def first(pair: tuple[int, int]) -> int:
    return pair[0]


def plus(so_far: int, pair: tuple[int, int]) -> int:
    return so_far + pair[1]


def add(one: int, other: int) -> int:
    return one + other


def fold(number: int) -> Any:
    import dask.bag as db

    values = range(number, number + 200_000 // SCALE)
    return db.from_sequence(values, npartitions=200).map(pair_of).foldby(first, plus, 0, add, 0)


KINDS: dict[str, tuple[str, Job]] = {
    "array_for_all": ("one array of 100 MB that 300 tasks take", of_graph(array_for_all)),
    "table_for_all": ("a dictionary of 100,000 entries that 200 tasks look at", of_graph(table_for_all)),
    "wide": ("3,000 arrays of 10 kB that one task takes", of_graph(wide)),
    "objects_to_all": ("Python objects from each of 24 tasks to 24 others", of_graph(objects_to_all)),
    "matrix_product": ("the product of two matrices of 36 blocks", of_collection(matrix_product)),
    "rechunk": ("0.5 GB rechunked from columns to rows", of_collection(rechunk)),
    "overlap": ("map_overlap on 100 blocks", of_collection(overlap)),
    "tall_qr": ("QR of a matrix of 40 blocks", of_collection(tall_qr)),
    "anomalies": ("differences from a mean over 50 blocks of 6 MB", of_collection(anomalies)),
    "fold": ("a bag of 200 partitions, folded by key", of_collection(fold)),
}


def main() -> None:
    for name in sys.argv[1:] or KINDS:
        what, job = KINDS[name]
        times = race([graphvine(), *distributed_layouts()], job, rounds=3, repeats=2)
        peer, seconds = best_peer(times)
        value = seconds / medians(times)["graphvine"]
        text = f"{what}, vs {peer} (the faster layout)"
        emit(Row(name, text, value, "1x", "2x", {"seconds": medians(times)}))


if __name__ == "__main__":
    main()
