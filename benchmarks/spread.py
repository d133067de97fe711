"""How long it takes until a large file is on many workers, over the time until it is on one.

Each worker is on a host of its own: a network namespace behind a rate-limited link (tbf, both ways), joined
by a bridge (root needed). A task on the first worker makes the file; then a task on every other worker needs
it. Compared in the same run: one other worker, and all of them. Everything is real: a manager, workers,
executors; the file lies in memory, so that one machine's disk does not stand for those of many.

All of them share this machine's cores: where these are busy, take a lower rate.

Run: python benchmarks/spread.py [--mb 500] [--workers 16] [--mbit 100] [--rounds 3] [--value]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import QUICK, Row, emit, say

#: Names of their own, so that two runs do not meet.
TAG = f"gvs{os.getpid()}"
NET = "10.212"
MID = f"{TAG}-mid"
#: Bytes that a link may send at once: two buffers of what one timer tick lets through.
BURST_KB = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=50 if QUICK else 500)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--mbit", type=int, default=100, help="rate of each worker's link, each way")
    parser.add_argument("--rounds", type=int, default=1 if QUICK else 3)
    parser.add_argument("--value", action="store_true", help="a value (bytes) instead of a file")
    parser.add_argument("--side", choices=["manager"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "manager":
        manage(given)
        return
    with hosts(given.workers + 1, given.mbit), tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        times = run(given, directory)
    one, many = (statistics.median(times[name]) for name in ("one", "many"))
    kind = "value" if given.value else "file"
    where = f"{given.workers} workers on links of {given.mbit} Mbit/s"
    what = f"a {given.mb} MB {kind} to {where}, over the time to one"
    emit(Row("spread", what, many / one, "1.6", "1.2", times, "", smaller_is_better=True))


def run(given: argparse.Namespace, directory: str) -> dict[str, list[float]]:
    """Seconds of each round, measured by the manager's process."""
    passed = [f"--{name}={getattr(given, name)}" for name in ("mb", "workers", "mbit", "rounds")]
    passed += ["--value"] if given.value else []
    state = {**os.environ, "GRAPHVINE_STATE": directory, "GRAPHVINE_MEMORY_DIR": directory}
    command = [*enter(MID), sys.executable, __file__, "--side=manager", *passed]
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=state))
        assert manager.stdout is not None
        port = manager.stdout.readline().strip()
        for number in range(given.workers + 1):
            worker = stack.enter_context(start_worker(number, port, directory, state))
            stack.callback(worker.terminate)
        found: dict[str, list[float]] = json.loads(manager.stdout.readline())
        return found


def start_worker(number: int, port: str, directory: str, state: dict[str, str]) -> subprocess.Popen[bytes]:
    home = Path(directory, f"host{number}")
    home.mkdir()
    command = [sys.executable, "-m", "graphvine.worker", f"{NET}.0.1", port]
    command += ["--cores", "1", "--name", f"w{number}", "--workdir", str(home), "--memory-dir", str(home)]
    with open(home / "log", "wb") as log:
        return subprocess.Popen([*enter(f"{TAG}-{number}"), *command], stdout=log, stderr=log, env=state)


# -- the hosts ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hosts(count: int, mbit: int) -> Iterator[None]:
    """A namespace with a bridge for the manager, and one for each worker behind a limited link."""
    limit = f"tbf rate {mbit}mbit burst {BURST_KB}kb latency 50ms"
    up = [
        f"ip netns add {MID}",
        f"ip -n {MID} link set lo up",
        f"ip -n {MID} link add br0 type bridge",
        f"ip -n {MID} addr add {NET}.0.1/16 dev br0",
        f"ip -n {MID} link set br0 up",
    ]
    names = [MID]
    for number in range(count):
        name = f"{TAG}-{number}"
        names.append(name)
        up += [
            f"ip netns add {name}",
            f"ip -n {name} link set lo up",
            f"ip link add v{number} netns {MID} type veth peer name up0 netns {name}",
            f"ip -n {name} addr add {NET}.1.{number + 1}/16 dev up0",
            f"ip -n {name} link set up0 up",
            f"ip -n {MID} link set v{number} master br0",
            f"ip -n {MID} link set v{number} up",
            f"tc -n {name} qdisc add dev up0 root {limit}",
            f"tc -n {MID} qdisc add dev v{number} root {limit}",
        ]
    try:
        for line in up:
            subprocess.run(line.split(), check=True)
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def enter(name: str) -> list[str]:
    return ["ip", "netns", "exec", name]


# -- the manager's process ------------------------------------------------------------------------------


def manage(given: argparse.Namespace) -> None:
    import graphvine

    manager = graphvine.Manager(port=0, host="*", local_workers=0)
    print(manager.port, flush=True)
    try:
        others = [f"w{number}" for number in range(1, given.workers + 1)]
        while len(set(manager.worker_names()) & {"w0", *others}) <= given.workers:
            time.sleep(0.05)
        # Warms up: executors, links.
        spread(manager, 1, others, given.value)
        times: dict[str, list[float]] = {"one": [], "many": []}
        for number in range(given.rounds):
            for name, receivers in (("one", [others[number % len(others)]]), ("many", others)):
                times[name].append(spread(manager, given.mb, receivers, given.value))
                say(f"{name}: {times[name][-1]:.2f} s")
        print(json.dumps(times), flush=True)
    finally:
        manager.close()


def spread(manager: Any, mb: int, receivers: list[str], value: bool) -> float:
    """Seconds from the hand-over of tasks on ``receivers`` that need a file until all of them have run."""
    import dask

    with dask.annotate(workers=["w0"]):
        made = manager.persist(dask.delayed(make_value if value else make_file, pure=False)(mb))
        dask.delayed(size_of)(made).compute(scheduler=manager.get)
    needing = []
    for name in receivers:
        with dask.annotate(workers=[name]):
            needing.append(dask.delayed(size_of, pure=False)(made))
    began = time.perf_counter()
    sizes = dask.compute(*needing, scheduler=manager.get, optimize_graph=False)
    seconds = time.perf_counter() - began
    assert set(sizes) == {mb * 2**20}, sizes
    return seconds


def make_value(mb: int) -> bytes:
    return os.urandom(2**20) * mb


def make_file(mb: int) -> Any:
    from graphvine.protocol.trees import NewTree
    from graphvine.worker import scratch

    path = os.path.join(scratch.directory(), "file")
    with open(path, "wb") as file:
        for _ in range(mb):
            file.write(os.urandom(2**20))
    return NewTree(path)


def size_of(made: Any) -> int:
    return len(made) if isinstance(made, bytes) else made.size


if __name__ == "__main__":
    main()
