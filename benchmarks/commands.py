"""Commands that do nothing, against ``subprocess.run`` on as many threads as there are cores."""

from __future__ import annotations

import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from harness import CORES, QUICK, Row, emit, say

import graphvine

COUNT = 200 if QUICK else 2000


def bare() -> float:
    """Commands per second."""

    def one(_: int) -> None:
        subprocess.run(
            ["/bin/sh", "-c", "true"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
        )

    with ThreadPoolExecutor(CORES) as pool:
        began = perf_counter()
        list(pool.map(one, range(COUNT)))
        return COUNT / (perf_counter() - began)


def ours(manager: graphvine.Manager) -> float:
    """Tasks per second, from the first ``submit`` to the last ``wait``."""
    began = perf_counter()
    for _ in range(COUNT):
        manager.submit(graphvine.Task("true", cores=1))
    while not manager.empty():
        task = manager.wait(60)
        assert task is not None
        assert task.successful()
    return COUNT / (perf_counter() - began)


def main() -> None:
    with graphvine.Manager(local_workers=CORES) as manager:
        ours(manager)
        pairs = [(ours(manager), bare()) for _ in range(1 if QUICK else 5)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    say(f"Task('true') {mine:.0f}/s, subprocess.run {theirs:.0f}/s")
    what = 'Task("true"), vs subprocess.run on as many threads'
    emit(Row("commands", what, mine / theirs, "0.5x", "0.8x", {"per_s": {"graphvine": mine, "bare": theirs}}))


if __name__ == "__main__":
    main()
