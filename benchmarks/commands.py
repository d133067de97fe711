"""Commands that do nothing, against ``subprocess.run`` on as many threads as there are cores.

Ours is measured with and without what a shell must read: a line that needs none is run without one.
"""

from __future__ import annotations

import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from harness import CORES, QUICK, Row, emit, say
from nothing import command, rate, shell_command

import graphvine

COUNT = 200 if QUICK else 2000
KINDS = {'Task("true")': command, 'Task("true && true")': shell_command}
LINES = {'Task("true")': "true", 'Task("true && true")': "true && true"}


def bare(line: str = "true") -> float:
    """Commands per second."""

    def one(_: int) -> None:
        subprocess.run(["/bin/sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)

    with ThreadPoolExecutor(CORES) as pool:
        began = perf_counter()
        list(pool.map(one, range(COUNT)))
        return COUNT / (perf_counter() - began)


def main() -> None:
    mine: dict[str, list[float]] = {name: [] for name in KINDS}
    theirs: dict[str, list[float]] = {name: [] for name in KINDS}
    with graphvine.Manager(local_workers=CORES) as manager:
        rate(manager, COUNT, command)
        for _ in range(1 if QUICK else 5):
            for name, make in KINDS.items():
                mine[name].append(rate(manager, COUNT, make))
                theirs[name].append(bare(LINES[name]))
    for name in KINDS:
        ours, bares = statistics.median(mine[name]), statistics.median(theirs[name])
        say(f"{name} {ours:.0f}/s, subprocess.run {bares:.0f}/s")
        what = f"{name}, vs subprocess.run on as many threads"
        emit(
            Row("commands", what, ours / bares, "0.5x", "0.8x", {"per_s": {"graphvine": ours, "bare": bares}})
        )


if __name__ == "__main__":
    main()
