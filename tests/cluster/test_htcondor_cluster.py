"""Graphs on HTCondor: scripts as users write them, on nodes that have neither graphvine nor a Python for it.

Each script runs as the user who may submit, in a Python of its own; its jobs bring the same one, packed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.htcondor_pool import Pool

from graphvine.envs.unpack import unpack_to

#: What scripts begin with. `wait_for` waits for what a cluster says of its jobs.
BEGIN = """
import json, os, subprocess, sys, time
import dask
from dask import delayed
import graphvine as gv
from graphvine.deploy.fleet import Limits

ARCHIVE = os.environ["ARCHIVE"]
SOON = Limits(ask_s=0.3, ask_most_s=1.0, ask_calm_s=1.0, first_wait_s=0.5)

def wait_for(cluster, holds):
    end = time.monotonic() + 120
    while not holds(cluster.status()):
        assert time.monotonic() < end, f"in vain: {cluster.status()}"
        time.sleep(0.1)
    return cluster.status()

def connected(count):
    return lambda status: status.counts.get("connected", 0) >= count

def log_of(jobs):
    asked = ["condor_q", *jobs, "-af", "UserLog"]
    return set(subprocess.run(asked, capture_output=True, text=True).stdout.split())

def tell(**found):
    print(json.dumps(found))
"""


def run(pool: Pool, script: str, python: str = "", **variables: str) -> dict[str, Any]:
    """What a script told, run as the user."""
    path = pool.home / "tmp" / "script.py"
    path.write_text(BEGIN + textwrap.dedent(script))
    told = {"ARCHIVE": str(pool.archive), "PYTHONWARNINGS": "error", **variables}
    said = pool.run([python or str(pool.python), str(path)], told)
    return json.loads(said.splitlines()[-1])


def test_a_graph_of_two_thousand_tasks_on_nodes_with_nothing(htcondor: Pool) -> None:
    told = run(
        htcondor,
        """
        def work(number):
            return number * number

        def where(_):
            import graphvine
            return sys.prefix, graphvine.__file__, os.environ["GRAPHVINE_JOB"], os.environ["WORD"]

        with gv.HTCondorCluster(
            cores=2, memory="500MB", disk="1GB", wall_time="1h", environment=ARCHIVE,
            variables={"WORD": "said"}, prologue="export SITE=here", limits=SOON,
        ) as cluster:
            cluster.scale(3)
            with gv.Manager(cluster=cluster) as m:
                wait_for(cluster, connected(3))
                parts = [delayed(work)(number) for number in range(1920)]
                sums = [delayed(sum)(parts[i : i + 24]) for i in range(0, 1920, 24)]
                total = delayed(sum)(sums)
                result = total.compute(scheduler=m.get)
                places = dask.compute(*[delayed(where)(i) for i in range(200)], scheduler=m.get)
                queue = subprocess.run(["condor_q", "-af", "ClusterId"], capture_output=True, text=True)
        tell(result=result, places=places, jobs=queue.stdout.split())
        """,
    )
    assert told["result"] == sum(number * number for number in range(1920))
    # All jobs of a node share what is unpacked there.
    assert len({prefix for prefix, *_ in told["places"]}) == 1
    for prefix, module, job, word in told["places"]:
        assert prefix.startswith(f"{htcondor.home}/cache/env-")
        assert module.startswith(prefix)
        assert (bool(job), word) == (True, "said")
    assert len(told["jobs"]) == 3
    assert len(set(told["jobs"])) == 1  # one submission


def test_jobs_that_are_held_removed_and_evicted_cost_no_result(htcondor: Pool) -> None:
    told = run(
        htcondor,
        """
        def work(number):
            time.sleep(0.02)
            return number

        def condor(tool, job):
            subprocess.run([tool, job], check=True, stdout=subprocess.DEVNULL)

        with gv.HTCondorCluster(
            cores=1, memory="300MB", disk="500MB", environment=ARCHIVE, limits=SOON
        ) as cluster:
            cluster.scale(4)
            with gv.Manager(cluster=cluster) as m:
                first = sorted(job.job for job in wait_for(cluster, connected(4)).jobs)
                parts = [delayed(work)(number) for number in range(2000)]
                sums = [delayed(sum)(parts[i : i + 20]) for i in range(0, 2000, 20)]
                total = m.compute(delayed(sum)(sums))
                condor("condor_hold", first[0])
                condor("condor_rm", first[1])
                condor("condor_vacate_job", first[2])
                result = total.result()
                # Those that are gone for good are replaced; the evicted one comes back by itself.
                status = wait_for(cluster, connected(4))
                last = sorted(job.job for job in status.jobs if job.state == "connected")
        tell(result=result, first=first, last=last, submitted=status.submitted)
        """,
    )
    assert told["result"] == sum(range(2000))
    assert told["first"][3] in told["last"]
    assert not {told["first"][0], told["first"][1]} & set(told["last"])
    assert told["submitted"] >= 6


def test_workers_from_a_shell(htcondor: Pool) -> None:
    told = run(
        htcondor,
        """
        def submit(m, *words):
            options = ["--memory", "300MB", "--disk", "500MB", "--environment", ARCHIVE, "--manager", m.name]
            command = [sys.executable, "-m", "graphvine.cli", "submit", "htcondor", *options, *words]
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

        with gv.Manager(0, name="from-a-shell", local_workers=0) as m:
            shown = submit(m, "--dry-run", "2")
            jobs = submit(m, "2").split()
            end = time.monotonic() + 120
            while len(m.worker_names()) < 3:  # two workers, one host
                assert time.monotonic() < end
                time.sleep(0.1)
            result = sum(m.executor().map(len, ["abc"] * 100))
        # Sent away by their manager, they are over.
        subprocess.run(["condor_wait", "-wait", "60", *log_of(jobs)], check=True, stdout=subprocess.DEVNULL)
        tell(shown=shown, jobs=jobs, result=result)
        """,
    )
    assert told["result"] == 300
    assert len(told["jobs"]) == 2
    assert "queue 2" in told["shown"]
    assert "gv_start --cores 1" in told["shown"]


def test_an_environment_that_cannot_work_is_told_before_anything_is_submitted(htcondor: Pool) -> None:
    told = run(
        htcondor,
        """
        import tarfile
        with tarfile.open("tmp/bare.tar.gz", "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("lib/python%d.%d/os.py" % sys.version_info[:2]))
        cluster = gv.HTCondorCluster(environment="tmp/bare.tar.gz")
        cluster.scale(2)
        try:
            gv.Manager(cluster=cluster).close()
        except gv.GraphvineError as error:
            tell(said=str(error))
        """,
    )
    assert "bare.tar.gz has no graphvine: install graphvine" in told["said"]
    assert htcondor.jobs() == []


def test_a_script_that_ends_in_an_error_leaves_no_job(htcondor: Pool) -> None:
    told = run(
        htcondor,
        """
        child = subprocess.run([sys.executable, "-c", '''
        import os, graphvine as gv
        cluster = gv.HTCondorCluster(environment=os.environ["ARCHIVE"], memory="300MB", disk="500MB")
        cluster.scale(2)
        m = gv.Manager(cluster=cluster)
        m.executor().submit(len, "abc").result()
        raise SystemExit(3)
        '''.replace("        ", "")])
        tell(code=child.returncode)
        """,
    )
    assert told["code"] == 3
    assert htcondor.jobs() == []


@pytest.mark.timeout(600)  # a gigabyte is packed, and unpacked twice, on whatever disk there is
def test_the_analysis_of_the_examples(htcondor: Pool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The whole environment that runs this is packed and brought, coffea and all."""
    if importlib.util.find_spec("coffea") is None:
        pytest.skip("needs coffea: pip install '.[hep]'")
    directory = tmp_path_factory.mktemp("analysis")
    variables = os.environ | {"GRAPHVINE_CACHE_DIR": str(directory / "cache")}
    archive = htcondor.home / "analysis.tar.gz"
    subprocess.run(
        [sys.executable, "-m", "graphvine.cli", "env", "pack", "-o", archive], env=variables, check=True
    )
    prefix = unpack_to(str(archive), str(htcondor.home / "analysis"))
    examples = htcondor.home / "adl"
    examples.mkdir()
    for path in (Path(__file__).resolve().parents[2] / "examples" / "adl").glob("*.py"):
        (examples / path.name).write_text(path.read_text())
    for path in (archive, Path(prefix), examples):
        htcondor.give(path)
    told = run(
        htcondor,
        """
        sys.path.insert(0, "adl")
        from pathlib import Path
        from analysis import planned_events, planned_histograms
        from make_nanoaod import make_files

        files = make_files(Path("nano").absolute(), 3000, files=2, seed=7)
        planned = planned_histograms(planned_events(files, 4))
        with gv.HTCondorCluster(
            cores=2, memory="3GB", disk="2GB", environment=ARCHIVE, limits=SOON
        ) as cluster, gv.Manager(cluster=cluster) as m:
            cluster.scale(1)
            (found,) = dask.compute(planned, scheduler=m.get)
        (expected,) = dask.compute(planned, scheduler="sync")
        same = [found[key] == expected[key] for key in found]
        entries = {key: int(histogram.sum(flow=True)) for key, histogram in found.items()}
        tell(same=same, entries=entries)
        """,
        python=f"{prefix}/bin/python",
        ARCHIVE=str(archive),
        PYTHONWARNINGS="default",
    )
    assert len(told["same"]) >= 8
    assert all(told["same"])
    assert all(told["entries"].values())
