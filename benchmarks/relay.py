"""A file that goes through the manager, from one NATed site to another: how quickly, how long small tasks on
other workers take meanwhile, and what it costs the manager. Needs root, ip and nft (hosts are network
namespaces).

    python benchmarks/relay.py [MB]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from time import perf_counter, sleep

from harness import QUICK, Row, emit, say

ROOT = Path(__file__).resolve().parents[1]


def make(size: int) -> bytes:
    return os.urandom(size)


def length(data: bytes) -> int:
    return len(data)


def nothing(_: int) -> int:
    return 0


def median_and_worst(times: list[float]) -> tuple[float, float]:
    """In milliseconds; the worst of a hundred."""
    ordered = sorted(times)
    return statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3


def measure(size: int) -> dict[str, float]:
    """In the middle: everything at once."""
    import dask
    import psutil
    from dask import delayed

    from graphvine import Manager

    def on(worker: str, function: object, *arguments: object) -> object:
        with dask.annotate(workers=[worker]):
            return delayed(function, pure=False)(*arguments)

    def get(value: object) -> object:
        return manager.get(value.__dask_graph__(), value.key)  # type: ignore[attr-defined]

    def small_tasks(until: threading.Event, at_least: int) -> list[float]:
        times: list[float] = []
        while len(times) < at_least or not until.is_set():
            task = on("c", nothing, len(times))
            began = perf_counter()
            get(task)
            times.append(perf_counter() - began)
        return times

    with Manager(port=0, host="*", local_workers=0) as manager:
        print(manager.port, flush=True)
        while not {"a0", "b0", "c"} <= set(manager.worker_names()):
            sleep(0.01)
        # Who reaches whom is found out, and executors are up.
        get(on("b0", length, on("a0", make, 10**6)))
        now = threading.Event()
        now.set()
        small_tasks(now, 50)
        quiet = small_tasks(now, 300)
        kept = manager.persist(on("a0", make, size))
        get(on("a0", length, kept))
        process, over = psutil.Process(), threading.Event()
        before, most = process.memory_info().rss, [0]
        took: list[float] = []

        def relay() -> None:
            began = perf_counter()
            assert get(on("b0", length, kept)) == size
            took.append(perf_counter() - began)
            over.set()

        def watch() -> None:
            while not over.wait(0.02):
                most[0] = max(most[0], process.memory_info().rss)

        threads = [threading.Thread(target=target) for target in (relay, watch)]
        for thread in threads:
            thread.start()
        busy = small_tasks(over, 1)
        for thread in threads:
            thread.join()
    (quiet_ms, quiet_worst), (busy_ms, busy_worst) = median_and_worst(quiet), median_and_worst(busy)
    return {
        "MB/s": size / took[0] / 1e6,
        "small task, ms": quiet_ms,
        "the same, meanwhile": busy_ms,
        "the slowest of 100, ms": quiet_worst,
        "the same, meanwhile, ms": busy_worst,
        "small tasks meanwhile": len(busy),
        "manager's memory grew by, MB": (most[0] - before) / 1e6,
    }


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]))), flush=True)
        return
    sys.path.insert(0, str(ROOT))
    from tests.integration.hosts import Internet

    size = int(sys.argv[1]) * 10**6 if len(sys.argv) > 1 else 10**8 if QUICK else 10**9
    with tempfile.TemporaryDirectory() as directory, Internet() as net:
        os.environ["GRAPHVINE_STATE"] = directory
        net.site("a", hosts=1)
        net.site("b", hosts=1)
        net.public("c")
        process, port = net.start_manager(Path(__file__), "--measure", str(size))
        for host in ("a0", "b0", "c"):
            net.start_worker(host, port, Path(directory))
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        process.wait(60)
    say(str(found))
    what = f"a small task's round trip while {size / 1e9:g} GB go through the manager, over that without"
    ratio = found["the same, meanwhile"] / found["small task, ms"]
    emit(Row("relay", what, ratio, "5", "2", found, smaller_is_better=True))


if __name__ == "__main__":
    main()
