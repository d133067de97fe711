"""200 workers of one core on this machine: how soon they are connected, what they cost the manager, and a
graph over all of them.

    python benchmarks/many_workers.py [WORKERS]
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep

import psutil
from graphs import increments
from harness import QUICK, Row, emit, say

WORKERS = 200


def cpu_s() -> float:
    """CPU seconds of children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Measured:
    """What the manager's process uses now."""

    def __init__(self) -> None:
        process = psutil.Process()
        self.rss_kb = process.memory_info().rss / 1024
        self.descriptors = process.num_fds()


def start(connection: str, count: int, starts: int, directory: Path) -> list[subprocess.Popen[bytes]]:
    """``count`` workers by ``starts`` commands."""
    command = [sys.executable, "-m", "graphvine.worker", "--connection-file", connection, "--cores", "1"]
    command += ["--memory", "200", "--workers", str(count // starts)]
    started = []
    for number in range(starts):
        with open(directory / f"worker-{number}.log", "wb") as log:
            started.append(subprocess.Popen([*command, "--name", f"w{number}"], stdout=log, stderr=log))
    return started


def measure(count: int, starts: int) -> tuple[float, dict[str, object]]:
    """Seconds until all are connected, and what they cost."""
    import graphvine

    directory = Path(tempfile.mkdtemp(prefix="graphvine-many-"))
    spent = cpu_s()
    load = os.getloadavg()[0]
    times = []
    with graphvine.Manager(port=0, local_workers=0) as manager:
        before = Measured()
        began = perf_counter()
        workers = start(str(manager.connection_file), count, starts, directory)
        try:
            # The names, and that of the host.
            while len(manager.worker_names()) < count + 1:
                sleep(0.01)
                assert perf_counter() - began < 300, "they do not connect"
            connected_s = perf_counter() - began
            joined = Measured()
            for number in range(3):
                graph, key = increments(10_000, number)
                began = perf_counter()
                assert manager.get(graph, key) == sum(range(1, 10_001))
                times.append(perf_counter() - began)
            after = Measured()
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
    shutil.rmtree(directory)
    details: dict[str, object] = {
        "load before": load,
        "CPU s of a worker": (cpu_s() - spent) / count,
        "manager kB a worker": (joined.rss_kb - before.rss_kb) / count,
        "the same, after a graph": (after.rss_kb - before.rss_kb) / count,
        "descriptors a worker": (joined.descriptors - before.descriptors) / count,
        "10,669 no-op tasks, s": times,
    }
    say(f"{count} workers by {starts} commands: connected in {connected_s:.1f} s; {details}")
    return connected_s, details


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20 if QUICK else WORKERS
    for starts, must in ((1, "10"), (count, "")):
        seconds, details = measure(count, starts)
        how = "one command" if starts == 1 else f"{starts} commands"
        what = f"{count} workers of one core, started by {how}: seconds until all are connected"
        emit(Row("many_workers", what, seconds, must, "", details, unit=" s", smaller_is_better=True))


if __name__ == "__main__":
    main()
