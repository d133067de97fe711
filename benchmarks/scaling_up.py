"""How long from ``scale(8)`` to eight connected workers, over the batch system's own time for eight jobs.

A real HTCondor pool and a real Slurm on loopback, set up by the tests' own means (``tests/cluster``).
In turn, several rounds: eight jobs of ``sleep`` by the batch system's tool, from the command until its queue
says that all run; then ``cluster.scale(8)`` until the manager knows eight workers. With a Python that nodes
have; with a packed environment that each job brings (graphvine and what it needs) and no node has seen, so
that it is unpacked there; with the same once more, which the node's cache has now; and with jobs that may not
share what is unpacked (``node_cache=False``).

All nodes are this machine, so that eight workers that start at once share its cores, its disk and its cache.
The manager exists already, and so do the interpreter's imports: what is timed is jobs. Before each of them
all jobs have ended, and the disk has what they wrote. Told is what is more, in seconds. (Workers join before
all of an environment is there; what they wait for before they run anything is not counted.)

Nodes have disks with a journal. An ext4 without one, as virtual machines may have, gives no inode away again
for minutes after its file was removed, and looks at all of these before it makes a file: after a few thousand
files were removed, by whomever, unpacking takes ten times as long. There root gets a disk image that has one
for /tmp.

Run: python benchmarks/scaling_up.py [htcondor slurm] [--jobs 8] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import QUICK, Row, emit, say

ROOT = Path(__file__).resolve().parents[1]
WITHIN_S = 100.0
_MOUNTED = "GRAPHVINE_BENCHMARK_MOUNTED"
_IMAGE_BYTES = 16 * 2**30
#: How the jobs come by a Python.
WAYS = ("python on the nodes", "environment brought", "brought again", "brought, not shared")
_SLEEP = "#!/bin/sh\nexec sleep 600\n"
_DESCRIPTION = """
executable = /bin/sleep
arguments = 600
transfer_executable = False
should_transfer_files = YES
request_cpus = 1
request_memory = 100
request_disk = 100M
queue {count}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("systems", nargs="*", default=["htcondor", "slurm"])
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1 if QUICK else 3)
    parser.add_argument("--archive", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.archive:
        measure(given)
        return
    sys.path.insert(0, str(ROOT))
    if os.getuid() == 0 and os.environ.get(_MOUNTED) is None and lacks_journal("/tmp"):
        with_journal()
    for system in given.systems:
        found = json.loads(in_pool(system, given).splitlines()[-1])
        own = statistics.median(found["sleep"])
        for kind in WAYS:
            ours = statistics.median(found[kind])
            say(f"{system}, {kind}: {ours:.2f} s, {given.jobs} sleeps {own:.2f} s: {ours - own:+.2f} s")
            what = f"{given.jobs} workers, {kind}, over the time of {given.jobs} sleeps"
            emit(Row(f"{system} scale", what, ours - own, "3", "1", found, " s", smaller_is_better=True))


# -- a disk as nodes have ----------------------------------------------------------------------------------


def lacks_journal(directory: str) -> bool:
    """Whether it lies on an ext4 that has none."""
    found = run("findmnt", "-no", "FSTYPE,SOURCE", "-T", directory).split()
    return found[:1] == ["ext4"] and not list(Path("/proc/fs/jbd2").glob(f"{Path(found[1]).name}-*"))


def with_journal() -> None:
    """Run this once more, with an ext4 that has a journal at /tmp, for it alone. Returns where that can't
    be."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp", prefix="graphvine-disk-") as image:
        image.truncate(_IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", image.name], check=True)
        mount = 'mount -o loop "$0" /tmp && chmod 1777 /tmp || exit 99; exec "$@"'
        done = subprocess.run(
            [
                "unshare",
                "-m",
                "--propagation",
                "private",
                "sh",
                "-c",
                mount,
                image.name,
                sys.executable,
                *sys.argv,
            ],
            env={**os.environ, _MOUNTED: "1"},
            check=False,
        )
    if done.returncode != 99:
        sys.exit(done.returncode)
    say("no disk image can be mounted here: /tmp has no journal")


# -- a pool, and this script in it ----------------------------------------------------------------------


def in_pool(system: str, given: argparse.Namespace) -> str:
    """What this script printed, run where that batch system's tools work."""
    from tests.cluster.packing import pack_graphvine

    options = [system, "--jobs", str(given.jobs), "--rounds", str(given.rounds)]
    with tempfile.TemporaryDirectory() as name:
        archive = pack_graphvine(Path(name))
        if system == "slurm":
            from tests.cluster.slurm_pool import pool

            with pool() as slurm:
                variables = {**os.environ, "SLURM_CONF": str(slurm.configuration)}
                command = [sys.executable, __file__, *options, "--archive", str(archive)]
                return subprocess.run(
                    command, env=variables, check=True, stdout=subprocess.PIPE, text=True
                ).stdout
        from tests.cluster.htcondor_pool import running_pool

        from graphvine.envs.unpack import unpack_to

        with running_pool() as condor:
            unpack_to(str(archive), str(condor.home / "python"))
            shutil.copy(archive, condor.home / archive.name)
            scripts = condor.home / "benchmark"
            scripts.mkdir()
            for script in (__file__, Path(__file__).with_name("harness.py")):
                shutil.copy(script, scripts)
            condor.give(condor.home)
            mine = str(scripts / Path(__file__).name)
            return condor.run(
                [
                    str(condor.home / "python/bin/python"),
                    mine,
                    *options,
                    "--archive",
                    str(condor.home / archive.name),
                ]
            )


# -- in the pool ----------------------------------------------------------------------------------------


def measure(given: argparse.Namespace) -> None:
    import graphvine as gv

    (system,) = given.systems
    count = given.jobs
    sleep = {"htcondor": sleep_htcondor, "slurm": sleep_slurm}[system]
    make: Any = {"htcondor": gv.HTCondorCluster, "slurm": gv.SlurmCluster}[system]
    found: dict[str, list[float]] = {"sleep": [], **{kind: [] for kind in WAYS}}
    for _ in range(given.rounds):
        settle(system)
        found["sleep"].append(sleep(count))
        with tempfile.TemporaryDirectory() as cache:
            shared = {"environment": given.archive, "variables": {"GRAPHVINE_CACHE_DIR": cache}}
            options: tuple[dict[str, Any], ...] = (
                {"python": sys.executable},
                shared,
                shared,
                {"environment": given.archive, "node_cache": False},
            )
            for kind, more in zip(WAYS, options, strict=True):
                settle(system)
                with make(cores=1, memory="200MB", disk="500MB", **more) as cluster:
                    found[kind].append(scale(gv, cluster, count))
    print(json.dumps(found))


def settle(system: str) -> None:
    """Until the batch system has no jobs any more, and what they left unwritten is on the disk: nobody pays
    for the one before."""
    if system == "htcondor":
        until(lambda: not run("condor_q", "-af", "JobStatus").split())
    else:
        until(lambda: not run("squeue", "--noheader", "--format=%i").split())
    os.sync()


def scale(gv: Any, cluster: Any, count: int) -> float:
    """Seconds from ``scale`` to so many workers."""
    with gv.Manager(cluster=cluster, host="127.0.0.1") as manager:
        began = time.monotonic()
        cluster.scale(count)
        until(lambda: manager.counts().workers == count)
        took_s = time.monotonic() - began
        # All of the environment is there: nobody is ended in the middle of it.
        with manager.executor() as executor:
            list(executor.map(time.sleep, [0.1] * 4 * count))
        return took_s


def sleep_htcondor(count: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "jobs").write_text(_DESCRIPTION.format(count=count))
        began = time.monotonic()
        said = run("condor_submit", "-terse", str(Path(name) / "jobs"))
        cluster = said.split(".")[0]
        until(lambda: run("condor_q", cluster, "-af", "JobStatus").split().count("2") == count)
        took_s = time.monotonic() - began
        run("condor_rm", cluster)
        until(lambda: not run("condor_q", cluster, "-af", "JobStatus").split())
        return took_s


def sleep_slurm(count: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "sleep.sh"
        script.write_text(_SLEEP)
        began = time.monotonic()
        job = run(
            "sbatch", f"--array=0-{count - 1}", "--mem=200", "--output=/dev/null", "--parsable", str(script)
        ).strip()
        until(lambda: run("squeue", "--noheader", "--array", "--format=%T").split().count("RUNNING") == count)
        took_s = time.monotonic() - began
        run("scancel", job)
        until(lambda: not run("squeue", "--noheader", "--format=%i").split())
        return took_s


def run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


if __name__ == "__main__":
    main()
