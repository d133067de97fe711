"""Futures: start work, go on, take results as they come. They are those of concurrent.futures."""

import random
from concurrent.futures import as_completed

import dask

import graphvine as gv


@dask.delayed
def hits(seed: int, throws: int) -> int:
    rng = random.Random(seed)
    return sum(rng.random() ** 2 + rng.random() ** 2 < 1 for _ in range(throws))


if __name__ == "__main__":
    with gv.Manager() as m:
        futures = [m.compute(hits(seed, 200_000)) for seed in range(10)]
        inside = thrown = 0
        for future in as_completed(futures):
            inside, thrown = inside + future.result(), thrown + 200_000
            print(f"pi is about {4 * inside / thrown:.4f}  ({thrown:,} throws)")
