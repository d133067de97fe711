"""What an executor costs per task: no-op tasks in packets, sent straight to a pool's executors.

Run: python benchmarks/executor_rate.py [--executors 4] [--tasks 64] [--seconds 3]
"""

from __future__ import annotations

import argparse
import pickle
import select
import tempfile
import time
from pathlib import Path

from graphvine.worker.packets import Packet, PacketTask
from graphvine.worker.pool import Pool, ResultsArrived


def increment(x: int) -> int:
    return x + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executors", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        measure(given.executors, given.tasks, given.seconds, directory)


def measure(executors: int, size: int, seconds: float, directory: str) -> None:
    import operator

    blob = Path(directory, "blob")
    blob.write_bytes(pickle.dumps([(operator.add, (i, 1), (0,)) for i in range(size)], protocol=5))
    value = pickle.dumps(1, protocol=5)
    tasks = [PacketTask(i, 1, 0, i, 0, [value]) for i in range(size)]
    pool = Pool(directory, directory)
    poll = select.poll()
    poll.register(pool.descriptors()[0], select.POLLIN)
    began = time.perf_counter()
    for executor in range(executors):
        pool.spawn(executor)
        pool.send(executor, Packet(0, [], [(1, str(blob))], tasks, directory, 8192))
        pool.send(executor, Packet(1, [], [], tasks, directory, 8192))
    done, busy, up = 0, 0.0, 0
    first = began
    while (now := time.perf_counter()) - first < seconds:
        poll.poll()
        for event in pool.on_readable(pool.descriptors()[0]):
            if not isinstance(event, ResultsArrived):
                up += 1
                if up == executors:
                    print(f"{executors} executors up after {(time.perf_counter() - began) * 1e3:.0f} ms")
                    first, done, busy = now, 0, 0.0
                continue
            done += len(event.done.results)
            busy += sum(result.duration_s for result in event.done.results)
            if event.done.finished:
                pool.send(event.executor, Packet(2, [], [], tasks, directory, 8192))
    elapsed = time.perf_counter() - first
    pool.close()
    print(f"{done / elapsed:,.0f} tasks/s; {elapsed * executors / done * 1e6:.2f} us per task and executor,")
    print(f"of which {busy / done * 1e6:.2f} us between the task's beginning and its pickled result")


if __name__ == "__main__":
    main()
