"""dask's own collections on 1 GB: an array added to its transpose, and a dataframe shuffled by tasks."""

from __future__ import annotations

from typing import Any

from harness import QUICK, Get, Row, best_peer, distributed_layouts, emit, graphvine, medians, race, timed

SIDE, CHUNK = (2800 if QUICK else 11_200), 1400
PARTITIONS, ROWS = (8 if QUICK else 64), 1_000_000


def transpose_add(get: Get, number: int) -> float:
    import dask.array as da

    x = da.random.default_rng(number).random((SIDE, SIDE), chunks=CHUNK)
    result: list[Any] = []
    seconds = timed(lambda: result.append((x + x.T).sum().compute(scheduler=get)))
    assert abs(result[0] / SIDE**2 - 1) < 0.01, result
    return seconds


def make_frame(number: int, seed: int) -> Any:
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng((seed, number))
    return pd.DataFrame({"key": rng.integers(0, 1_000_000, ROWS), "x": rng.random(ROWS)})


def shuffle(get: Get, number: int) -> float:
    import dask
    import dask.dataframe as dd

    frame = dd.from_map(make_frame, range(PARTITIONS), seed=number, meta=make_frame(0, 0).iloc[:0])
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        rows = frame.shuffle("key").map_partitions(len).sum()
        result: list[Any] = []
        seconds = timed(lambda: result.append(rows.compute(scheduler=get)))
    assert result == [PARTITIONS * ROWS], result
    return seconds


def main() -> None:
    for name, job, what in (
        ("transpose_add", transpose_add, f"dask.array transpose-add, {SIDE**2 * 8 / 1e9:.1f} GB"),
        ("shuffle", shuffle, f"task-based dataframe shuffle, {PARTITIONS * ROWS * 16 / 1e9:.1f} GB"),
    ):
        times = race([graphvine(), *distributed_layouts()], job, rounds=3, repeats=1)
        peer, seconds = best_peer(times)
        value = seconds / medians(times)["graphvine"]
        emit(
            Row(
                name, f"{what}, vs {peer} (the faster layout)", value, "1x", "2x", {"seconds": medians(times)}
            )
        )


if __name__ == "__main__":
    main()
