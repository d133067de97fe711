"""A factory whose workers are Slurm jobs: they come with the work, go with the manager, and none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.slurm_pool import SlurmPool

from graphvine.manager.manager import Manager

TIMEOUT_S = 120.0


def job_of(_: int) -> str:
    time.sleep(0.5)
    return os.environ.get("SLURM_ARRAY_TASK_ID", "")


def wait_until(holds: Callable[[], object], what: Callable[[], str]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < end, what()
        time.sleep(0.05)


@pytest.fixture
def factory(slurm: SlurmPool, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One for managers whose names begin with "ana"."""
    command = [sys.executable, "-m", "graphvine.cli", "factory", "-T", "slurm", "-M", "ana.*", "--max", "3"]
    command += ["--memory", "200MB", "--python", sys.executable, "--hold", "1"]
    with open(tmp_path / "factory.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    yield process
    process.terminate()
    assert process.wait(TIMEOUT_S) == 0


def test_jobs_follow_the_work_of_one_manager_after_the_other(
    slurm: SlurmPool, factory: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    def log() -> str:
        return (tmp_path / "factory.log").read_text()

    for name in ("analysis", "analyses"):
        with Manager(name=name, host="127.0.0.1", local_workers=0) as manager:
            with manager.executor() as executor:
                assert 2 <= len(set(executor.map(job_of, range(24)))) <= 3
            # Nothing is to be done: they go by themselves, though nobody said that the manager ends.
            wait_until(lambda: not slurm.jobs(), log)
            assert manager.counts().workers == 0


def test_its_jobs_are_cancelled_with_it(slurm: SlurmPool, factory: subprocess.Popen[bytes]) -> None:
    with (
        Manager(name="analysis", host="127.0.0.1", local_workers=0) as manager,
        manager.executor() as executor,
    ):
        futures = [executor.submit(time.sleep, 1000) for _ in range(3)]
        wait_until(lambda: manager.counts().workers == 3, lambda: str(slurm.jobs()))
        factory.send_signal(signal.SIGTERM)
        assert factory.wait(TIMEOUT_S) == 0
        wait_until(lambda: not slurm.jobs(), lambda: str(slurm.jobs()))
        for future in futures:
            future.cancel()
