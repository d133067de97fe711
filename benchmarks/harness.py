"""How everything here is measured: a figure is a ratio of medians, against a named peer, in one run.

Contenders are opened one after another, warmed up, timed, closed, in several rounds, so that a machine that
gets slower or faster on the way favours nobody, and nobody's idle processes take time from the others.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter, sleep
from typing import Any

Get = Callable[..., Any]
"""A dask scheduler: ``get(graph, keys)``."""

CORES = len(os.sched_getaffinity(0))
QUICK = bool(os.environ.get("GRAPHVINE_BENCH_QUICK"))
"""Fewer rounds, smaller inputs: to see that everything works, not to quote."""


@dataclass
class Row:
    """One line of the table. ``value`` is a ratio: larger is better unless ``smaller_is_better``."""

    name: str
    what: str
    value: float
    must: str
    aim: str
    details: dict[str, Any] = field(default_factory=dict)
    unit: str = "x"
    smaller_is_better: bool = False


@dataclass
class Contender:
    """Somebody who computes graphs: ``open()`` gives its ``get``."""

    name: str
    open: Callable[[], AbstractContextManager[Get]]


def graphvine(cores: int = CORES) -> Contender:
    """A manager with its embedded worker."""

    @contextmanager
    def opened() -> Iterator[Get]:
        import graphvine

        with graphvine.Manager(local_workers=cores) as manager:
            yield manager.get

    return Contender("graphvine", opened)


def distributed(processes: int = CORES, threads: int = 1) -> Contender:
    """A local dask.distributed cluster, dashboard off, silent."""

    @contextmanager
    def opened() -> Iterator[Get]:
        from dask.distributed import Client, LocalCluster

        warnings.filterwarnings("ignore", message="Port 8787")  # somebody has it; a free one is taken
        for name in ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        cluster = LocalCluster(
            n_workers=processes,
            threads_per_worker=threads,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(processes)

            def get(graph: Any, keys: Any) -> Any:
                return client.get(graph, keys)

            def settle() -> None:
                # What it still holds under the same keys it would not compute again.
                while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
                    sleep(0.01)

            get.settle = settle  # type: ignore[attr-defined]
            yield get

    return Contender(f"distributed {processes}x{threads}", opened)


def distributed_layouts() -> list[Contender]:
    """A process per core, and one process with a thread per core."""
    return [distributed(CORES, 1), distributed(1, CORES)]


def synchronous() -> Contender:
    """dask's own scheduler in this process, one task after another."""

    @contextmanager
    def opened() -> Iterator[Get]:
        import dask

        yield dask.get

    return Contender("dask synchronous", opened)


@contextmanager
def parsl(processes: int = CORES) -> Iterator[Any]:
    """Parsl with its HighThroughputExecutor, a worker process per core on this machine, all up; gives the
    module, whose apps it runs. It computes no dask graphs, so it is no Contender."""
    import parsl as module
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    # Its pool of workers is a script that it looks for in PATH.
    scripts = os.path.dirname(sys.executable)
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
    with tempfile.TemporaryDirectory(prefix="parsl-") as directory:
        executor = HighThroughputExecutor(
            address="127.0.0.1",
            loopback_address="127.0.0.1",
            max_workers_per_node=processes,
            cores_per_worker=1,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
            encrypted=False,
        )
        config = Config([executor], run_dir=directory, initialize_logging=False, usage_tracking=0)
        kernel = module.load(config)
        try:
            warm_up = module.python_app(abs)
            for future in [warm_up(i) for i in range(processes * 10)]:
                future.result()
            yield module
        finally:
            kernel.cleanup()
            module.clear()


Job = Callable[[Get, int], float]
"""Does the work once and says how many seconds of it count; its number makes keys unique."""


def timed(work: Callable[[], Any]) -> float:
    """Seconds that ``work()`` takes."""
    began = perf_counter()
    work()
    return perf_counter() - began


def race(contenders: list[Contender], job: Job, rounds: int = 3, repeats: int = 3) -> dict[str, list[float]]:
    """Seconds of each contender's jobs: ``rounds`` times opened, warmed by one job, timed for ``repeats``."""
    if QUICK:
        rounds, repeats = 1, 1
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    number = 0
    for _ in range(rounds):
        for contender in contenders:
            with contender.open() as get:
                for repeat in range(repeats + 1):
                    number += 1
                    getattr(get, "settle", lambda: None)()
                    seconds = job(get, number)
                    if repeat:
                        times[contender.name].append(seconds)
            say(f"{contender.name}: {' '.join(f'{t:.3f}' for t in times[contender.name])} s")
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


def best_peer(times: dict[str, list[float]]) -> tuple[str, float]:
    """The fastest contender that is not us, and its median."""
    peers = {name: median for name, median in medians(times).items() if name != "graphvine"}
    name = min(peers, key=peers.__getitem__)
    return name, peers[name]


def say(text: str) -> None:
    """Tell whoever watches; standard output is for the rows."""
    print(f"  {text}", file=sys.stderr, flush=True)


def emit(*rows: Row) -> None:
    """Hand rows to ``run.py``: one line of JSON each."""
    for row in rows:
        print(json.dumps({"row": asdict(row) | {"cores": CORES, "quick": QUICK}}), flush=True)
