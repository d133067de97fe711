"""Clusters with real workers: as many as were asked for, and none left, however it ends."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import psutil
import pytest
from tests.integration.conftest import family

from graphvine.deploy.cluster import LocalCluster
from graphvine.deploy.errors import DeployError
from graphvine.deploy.supervisor import ClusterStatus
from graphvine.manager.manager import Manager
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Demand

TIMEOUT_S = 60.0


def double(number: int) -> int:
    return 2 * number


def process_of(_: object) -> int:
    return os.getppid()


class News:
    """Waits for what a manager tells of its workers."""

    def __init__(self, manager: Manager) -> None:
        self._told: queue.SimpleQueue[Demand] = queue.SimpleQueue()
        self.jobs: dict[int, str] = {}
        manager.watch_demand(self._told.put)

    def wait_for(self, count: int) -> None:
        end = time.monotonic() + TIMEOUT_S
        while len(self.jobs) != count:
            for worker in self._told.get(timeout=max(0.0, end - time.monotonic())).workers:
                if worker.gone:
                    self.jobs.pop(worker.worker, None)
                else:
                    self.jobs[worker.worker] = worker.job


def wait_until(cluster: LocalCluster, holds: Callable[[ClusterStatus], bool]) -> ClusterStatus:
    """Until what a cluster says of itself is so."""
    end = time.monotonic() + TIMEOUT_S
    while not holds(cluster.status()):
        assert time.monotonic() < end, f"in vain: {cluster.status()}"
        time.sleep(0.02)
    return cluster.status()


def test_as_many_workers_as_asked_for_do_the_work():
    with LocalCluster(cores=1) as cluster, Manager(cluster=cluster) as manager:
        cluster.scale(2)
        News(manager).wait_for(2)
        with manager.executor() as executor:
            assert list(executor.map(double, range(50))) == [2 * number for number in range(50)]
        status = wait_until(cluster, lambda status: status.counts == {"connected": 2})
        assert (status.target, status.submitted) == (2, 2)
        assert all(job.worker and job.host for job in status.jobs)
        assert "2 workers wanted; jobs: 2 connected" in str(status)
        assert repr(cluster) == "<graphvine.LocalCluster local: 2 connected>"
    assert cluster.status().counts == {}


def test_what_is_asked_for_before_there_is_a_manager_is_remembered():
    cluster = LocalCluster(cores=1)
    cluster.scale(1)
    assert cluster.status().jobs == []
    with Manager(cluster=cluster) as manager:
        News(manager).wait_for(1)
    assert cluster.status().jobs == []
    # ... and for the next manager.
    with Manager(cluster=cluster) as manager:
        News(manager).wait_for(1)


def test_a_cluster_works_for_one_manager():
    with (
        LocalCluster(cores=1) as cluster,
        Manager(cluster=cluster),
        pytest.raises(DeployError, match="works for a manager already"),
    ):
        Manager(cluster=cluster)


def test_a_manager_with_a_cluster_starts_no_worker_of_its_own():
    with LocalCluster(cores=1) as cluster, Manager(cluster=cluster) as manager:
        cluster.adapt(0, 1)
        with manager.executor() as executor:
            worker = executor.submit(process_of, 0).result(TIMEOUT_S)
        (job,) = cluster.status().jobs
        assert manager.counts().workers == 1
        assert worker != os.getpid()
        assert psutil.Process(int(job.job)).ppid() == os.getpid()


def wait_and_tell(seconds: float) -> int:
    time.sleep(seconds)
    return os.getppid()


def test_workers_come_and_go_with_the_work():
    with LocalCluster(cores=1) as cluster, Manager(cluster=cluster) as manager:
        cluster.adapt(0, 3, hold=0.2)
        news = News(manager)
        with manager.executor() as executor:
            assert 2 <= len(set(executor.map(wait_and_tell, [1.0] * 12))) <= 3
        news.wait_for(0)
        wait_until(cluster, lambda status: status.jobs == [])
        cluster.adapt(1, 3)
        news.wait_for(1)


def test_fewer_workers_keep_what_the_others_held():
    with LocalCluster(cores=1) as cluster, Manager(cluster=cluster) as manager:
        cluster.scale(3)
        news = News(manager)
        news.wait_for(3)
        kept = manager.persist(da.ones((3000, 1000), chunks=(500, 1000)) + 1)
        assert kept.sum().compute(scheduler=manager.get) == 6e6
        cluster.scale(1)
        news.wait_for(1)
        assert kept.sum().compute(scheduler=manager.get) == 6e6


def test_a_worker_that_dies_is_replaced():
    with LocalCluster(cores=1) as cluster, Manager(cluster=cluster) as manager:
        cluster.scale(2)
        news = News(manager)
        news.wait_for(2)
        first = wait_until(cluster, lambda status: status.counts == {"connected": 2}).jobs[0].job
        os.kill(int(first), signal.SIGKILL)
        news.wait_for(1)
        news.wait_for(2)
        status = wait_until(cluster, lambda status: status.counts == {"connected": 2})
        assert first not in {job.job for job in status.jobs}


def test_workers_that_cannot_start_are_explained_and_not_tried_for_ever(tmp_path: Path, caplog):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'the library libfoo.so.3 is missing' >&2\nexit 3\n")
    broken.chmod(0o755)
    with LocalCluster(cores=1, python=str(broken)) as cluster, Manager(cluster=cluster):
        cluster.scale(20)
        wait_until(cluster, lambda status: status.submitted >= 21)
        assert cluster.status().submitted <= 23
    (said,) = [record.message for record in caplog.records if "without having joined" in record.message]
    assert "has ended with exit code 3" in said or "has ended with exit code 73" in said
    assert "the library libfoo.so.3 is missing" in said


def test_tasks_that_are_too_large_for_these_workers_are_named(caplog):
    with LocalCluster(cores=1, memory="500MB") as cluster, Manager(cluster=cluster) as manager:
        cluster.adapt(0, 2)
        with manager.executor(resources={"cores": 3}) as executor:
            future = executor.submit(double, 1)
            end = time.monotonic() + TIMEOUT_S
            while "tasks ask for 3 cores" not in caplog.text:
                assert time.monotonic() < end
                time.sleep(0.02)
            future.cancel()
        assert "a worker of this cluster has 1 cores, 500 MB of memory" in caplog.text
        assert cluster.status().submitted == 0


def test_a_cluster_that_was_asked_for_nobody_is_where_the_advice_points(caplog):
    settings = Settings(first_worker_s=0.2)
    with LocalCluster(cores=1) as cluster, Manager(cluster=cluster, settings=settings) as manager:
        assert manager._loop.ask(lambda: manager._loop._core.settings.first_worker_s) == 300
        with manager.executor() as executor:
            future = executor.submit(double, 1)
            cluster.scale(1)
            assert future.result(TIMEOUT_S) == 2
    assert "graphvine worker" not in caplog.text


SCRIPT = """
    import os, signal, sys, time
    import graphvine as gv
    from graphvine.deploy.cluster import LocalCluster

    def wait(seconds):
        time.sleep(seconds)

    if __name__ == "__main__":
        cluster = LocalCluster(cores=1)
        cluster.scale(3)
        manager = gv.Manager(cluster=cluster)
        while cluster.status().counts != {"connected": 3}:
            time.sleep(0.02)
        executor = manager.executor()
        future = executor.submit(wait, 1000)
        print("ready", flush=True)
        sys.stdin.readline()
        how = sys.argv[1]
        if how == "error":
            raise RuntimeError("on purpose")
        if how == "exit":
            sys.exit(0)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        future.result()
"""


def run_script(directory: Path, how: str) -> int:
    """Run SCRIPT; its exit code, when all its workers have ended."""
    script = directory / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, str(script), how],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        # Ctrl-C is ignored by what was started in the background, and by all that this starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    workers = family(process.pid)
    assert len(workers) >= 3
    if how == "interrupt":
        process.send_signal(signal.SIGINT)
    process.communicate("go on\n", timeout=TIMEOUT_S)
    _, alive = psutil.wait_procs(workers, timeout=TIMEOUT_S)
    assert alive == []
    return process.returncode


@pytest.mark.parametrize(("how", "code"), [("error", 1), ("exit", 0), ("interrupt", -signal.SIGINT)], ids=str)
def test_nothing_is_left_however_the_users_process_ends(how: str, code: int, tmp_path: Path):
    """The check for leftover processes and files comes after each test."""
    assert run_script(tmp_path, how) == code


def test_what_a_killed_process_leaves_is_little_and_goes_with_the_next_cluster(tmp_path: Path, state: Path):
    assert run_script(tmp_path, "killed") == -signal.SIGKILL
    assert list(state.glob("*"))
    with LocalCluster(cores=1) as cluster, Manager(cluster=cluster):
        pass
