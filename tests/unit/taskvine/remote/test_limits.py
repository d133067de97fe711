"""What is used, and what may be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from graphvine.taskvine.remote.limits import (
    INTERVAL_S,
    Limits,
    Monitor,
    descendants,
    exceeded_by,
    extent,
    resident_mb,
)


def test_the_peak_counts_and_names_its_limit(tmp_path: Path) -> None:
    monitor = Monitor(Limits(memory=100, disk=0), str(tmp_path), list)
    monitor.note(memory=90, disk=10**6)
    assert (monitor.exceeded, monitor.reason) == ({}, "")
    monitor.note(memory=150)
    monitor.note(memory=20)
    assert monitor.exceeded == {"memory": 100}
    assert monitor.reason == "it used 150 MB of memory, and may use 100 MB"
    assert exceeded_by(monitor.reason) == {"memory": 100}


def test_two_limits_are_told_together(tmp_path: Path) -> None:
    monitor = Monitor(Limits(memory=1.5, disk=2_000_000), str(tmp_path), list)
    monitor.note(memory=2, disk=3_000_000)
    assert exceeded_by(monitor.reason) == monitor.exceeded == {"memory": 1.5, "disk": 2_000_000}


def test_a_look_that_only_had_to_wait_is_soon_followed_by_another(tmp_path: Path) -> None:
    """As while a call holds the interpreter."""

    def pids() -> list[int]:
        time.sleep(INTERVAL_S)
        return [os.getpid()]

    assert Monitor(Limits(memory=10**9), str(tmp_path), pids).look() == INTERVAL_S


def test_disk_is_what_is_no_link_to_elsewhere(tmp_path: Path) -> None:
    store, sandbox = tmp_path / "store", tmp_path / "sandbox"
    (sandbox / "deep").mkdir(parents=True)
    store.write_bytes(bytes(2**20))
    os.link(store, sandbox / "input")
    (sandbox / "deep" / "made").write_bytes(bytes(2**21))
    assert extent(str(sandbox)) == (2.0, 3)
    assert extent(str(tmp_path / "nowhere")) == (0.0, 0)


def test_memory_is_that_of_all_descendants() -> None:
    code = "import subprocess, sys; subprocess.run(['cat'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        # So the innermost one is there.
        assert process.stdout.read(1) == b"x"
        below = descendants(os.getpid())
        assert process.pid in below
        assert len(descendants(process.pid)) == 1
        assert 0 < resident_mb([process.pid]) < resident_mb([process.pid, *descendants(process.pid)])
        process.stdin.close()
    assert resident_mb([process.pid]) == 0.0
