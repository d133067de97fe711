"""What a worker's agent costs per task: no-op tasks for a real worker from a manager that does nothing else.

Run: python benchmarks/agent_rate.py [--cores 3] [--tasks 400000] [--ahead 8000]
"""

from __future__ import annotations

import argparse
import operator
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.integration.fake_manager import FakeManager, blob

from graphvine.protocol.codec import decode_to_manager, encode
from graphvine.protocol.messages import Assign, Report, TaskOrder

_BLOB = 10**8
_BATCH = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=400_000)
    parser.add_argument("--ahead", type=int, default=8000, help="tasks given and not done")
    given = parser.parse_args()
    manager = FakeManager()
    try:
        with tempfile.TemporaryDirectory() as directory:
            process = manager.start_worker(Path(directory), "--cores", str(given.cores))
            worker = manager.welcome()
            entry = blob(_BLOB, (operator.add, (1, 2), ()))
            manager.say(worker, Assign([TaskOrder(n, _BLOB, 0, []) for n in range(1, 101)], [entry]))
            manager.collect(100)
            cpu, began = cpu_s(process.pid), time.perf_counter()
            run(manager, worker, given.tasks, given.ahead)
            wall, cpu = time.perf_counter() - began, cpu_s(process.pid) - cpu
            print(f"{given.tasks / wall:,.0f} tasks/s; agent: {cpu / given.tasks * 1e6:.1f} us per task")
            process.stdin.close()
            process.wait()
    finally:
        manager.close()


def run(manager: FakeManager, worker: bytes, tasks: int, ahead: int) -> None:
    sent = done = 0
    while done < tasks:
        while sent < tasks and sent - done < ahead:
            first = 1000 + sent
            orders = [TaskOrder(first + i, _BLOB, 0, []) for i in range(min(_BATCH, tasks - sent))]
            manager.router.send_multipart([worker, encode([Assign(orders)])])
            sent += len(orders)
        _, frame = manager.router.recv_multipart()
        done += sum(len(said.done) for said in decode_to_manager(frame) if isinstance(said, Report))


def cpu_s(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
