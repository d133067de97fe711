"""One site of a test with several: starts a batch system where it is run, submits workers to it, and at a
word ends it and says what was left.

    python -m tests.cluster.site htcondor|slurm CONNECTION_FILE ARCHIVE COUNT
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import slurm_pool
from tests.cluster.htcondor_pool import running_pool

from graphvine.envs.unpack import unpack_to

#: How long jobs may take to be gone after their manager.
_GONE_S = 60.0


def options(connection: Path, archive: Path, directory: Path) -> list[str]:
    return [
        *("--connection-file", str(connection), "--environment", str(archive)),
        *("--cores", "1", "--memory", "500MB", "--directory", str(directory)),
    ]


def run_htcondor(connection: Path, archive: Path, count: int) -> None:
    with running_pool(cores=count) as pool:
        unpack_to(str(archive), str(pool.home / "python"))
        own = shutil.copy(connection, pool.home / "connection.json")
        mine = shutil.copy(archive, pool.home / archive.name)
        pool.give(pool.home)
        before = pool.processes()
        more = options(Path(own), Path(mine), pool.home / "jobs")
        pool.run([str(pool.python), "-m", "graphvine.cli", "submit", "htcondor", str(count), *more])
        left = await_gone(pool.jobs)
        _, processes = pool.drain(before)
        print(
            json.dumps({"jobs": left, "processes": processes, "logs": pool.logs() if left else ""}),
            flush=True,
        )


def run_slurm(connection: Path, archive: Path, count: int) -> None:
    with slurm_pool.pool() as pool, tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "SLURM_CONF": str(pool.configuration)}
        command = [sys.executable, "-m", "graphvine.cli", "submit", "slurm", str(count)]
        command += options(connection, archive, Path(directory))
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        left = await_gone(pool.jobs)
        print(json.dumps({"jobs": left, "processes": [], "logs": pool.logs() if left else ""}), flush=True)


def await_gone(jobs: Callable[[], list[str]]) -> list[str]:
    """Tell that the jobs are submitted; at a word, wait until they are gone; those that are not."""
    print(json.dumps("submitted"), flush=True)
    sys.stdin.readline()
    end = time.monotonic() + _GONE_S
    while (left := jobs()) and time.monotonic() < end:
        time.sleep(0.2)
    return left


if __name__ == "__main__":
    system, connection_file, packed, number = sys.argv[1:]
    run = run_htcondor if system == "htcondor" else run_slurm
    run(Path(connection_file), Path(packed), int(number))
