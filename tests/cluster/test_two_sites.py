"""Two sites behind NATs that let nobody in, one with HTCondor and one with Slurm, a manager outside: one
graph over both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import install_htcondor, slurm_pool
from tests.integration.hosts import Internet, needs_hosts

EACH = 3

SCRIPT = """
import json, os, sys, time
from dask import delayed
from graphvine import Manager

def make(n):
    return n.to_bytes(4, "big") * 50_000

def where():
    import os
    if "SLURM_JOB_ID" in os.environ:
        return "slurm"
    return "htcondor" if "_CONDOR_JOB_AD" in os.environ else "none"

def mix(*parts):
    import hashlib
    return hashlib.sha256(b"".join(parts)).digest() * 2_000

def last(*parts):
    import hashlib
    return hashlib.sha256(b"".join(parts)).hexdigest()

def place(n):
    import time
    time.sleep(0.05)
    return where()

manager = Manager(port=0, host="*", local_workers=0)
print(manager.connection_file, flush=True)
# Their names, and that of the one machine that all of these hosts are.
while len(manager.worker_names()) < int(sys.argv[1]) + 1:
    time.sleep(0.05)
leaves = [make(n) for n in range(1200)]
mixed = [mix(*leaves[n : n + 7]) for n in range(0, 1190, 2)]
expected = last(*mixed)
leaves = [delayed(make)(n) for n in range(1200)]
mixed = [delayed(mix)(*leaves[n : n + 7]) for n in range(0, 1190, 2)]
found = delayed(last)(*mixed).compute(scheduler=manager.get)
places = delayed([delayed(place)(n) for n in range(300)]).compute(scheduler=manager.get)
counts = {name: places.count(name) for name in set(places)}
print(json.dumps({"right": found == expected, "places": counts}), flush=True)
sys.stdin.readline()
manager.close()
"""


@needs_hosts
def test_one_graph_over_two_sites(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = slurm_pool.why_not()
    if missing or install_htcondor.root() is None:
        pytest.skip(missing or "there is no HTCondor here: python tests/cluster/install_htcondor.py")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.chdir(Path(__file__).parents[2])
    with Internet() as net:
        manager, connection_file = net.start_manager(script, str(2 * EACH))
        sites = []
        for system in ("htcondor", "slurm"):
            net.site(system, hosts=1)
            command = [sys.executable, "-m", "tests.cluster.site", system, connection_file, str(packed)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            sites.append(net.start(f"{system}0", [*command, str(EACH)], **pipes))
        try:
            for site in sites:
                assert hear(site) == "submitted"
            found = hear(manager)
            assert found["right"]
            assert set(found["places"]) == {"htcondor", "slurm"}, found["places"]
            say(manager)
            assert manager.wait(30) == 0
        finally:
            for site in sites:
                say(site)
            left = [hear(site) for site in sites]
            for site in sites:
                site.wait(60)
    assert [(one["jobs"], one["processes"]) for one in left] == [([], [])] * 2, left


def hear(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"it ended with {process.wait(20)}"
    return json.loads(line)


def say(process: subprocess.Popen[str]) -> bool:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    return True
