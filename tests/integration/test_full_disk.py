"""Small file systems that are really full: mounted where only the process under test sees them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

UNSHARE = shutil.which("unshare")


def can_mount() -> bool:
    if UNSHARE is None or os.getuid() != 0:
        return False
    command = [UNSHARE, "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_mount(), reason="only root can mount a file system")

SCRIPT = """
import os, subprocess, sys
import numpy as np
from graphvine import Manager, StorageError

memory, disk = sys.argv[1], sys.argv[2]

def mount(where, size):
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", where])
    os.environ["GRAPHVINE_MEMORY_DIR" if where == memory else "TMPDIR"] = where

def fill(*places):
    for place in places:
        with open(f"{place}/fill", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(2**16))
            except OSError:
                pass

def empty(*places):
    for place in places:
        os.unlink(f"{place}/fill")

def small(number):
    return bytes([number % 256]) * 7000

def join(parts):
    return len(b"".join(parts))

def array(number):
    return np.full(2**20, number, dtype="f8")

def check(array, number):
    assert (array == number).all()
    return number

def size_of(data, number):
    return len(data) + number

# Inputs that fill a message by themselves; 8 MB results; a blob that goes in pieces.
SMALL = {("s", i): (small, i) for i in range(300)}
SMALL |= {("j", k): (join, [("s", i) for i in range(k, 300, 3)]) for k in range(3)}
LITERALS = {("u", i): (size_of, b"y" * 300_000, i) for i in range(4)}

def run(manager, arrays=6):
    large = {("m", i): (array, i) for i in range(arrays)}
    large |= {("c", i): (check, ("m", i), i) for i in range(arrays)}
    keys = [("c", i) for i in range(arrays)] + [("m", 0), ("m", arrays - 1)]
    assert manager.get(SMALL, [("j", k) for k in range(3)]) == (700_000,) * 3
    found = manager.get(large, keys)
    assert found[:arrays] == tuple(range(arrays))
    assert (found[-1] == arrays - 1).all()
    assert manager.get(LITERALS, [("u", i) for i in range(4)]) == tuple(300_000 + i for i in range(4))

ONE = {"m": (array, 1), "c": (check, "m", 1)}

def refused(manager):
    for graph, key in ((SMALL, ("j", 0)), (LITERALS, ("u", 0)), (ONE, "c")):
        try:
            manager.get(graph, key)
        except StorageError as error:
            assert "no room" in str(error), error
        else:
            raise AssertionError("there was room")
"""


def run_in_namespace(tmp_path: Path, body: str) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    disk.mkdir()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + textwrap.dedent(body))
    assert UNSHARE is not None
    done = subprocess.run(
        [UNSHARE, "-m", sys.executable, str(script), str(memory), str(disk)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_what_memory_has_no_room_for_goes_to_disk(tmp_path: Path) -> None:
    body = """
        mount(memory, "150m")
        mount(disk, "700m")
        with Manager(local_workers=2) as manager:
            run(manager, arrays=60)
        assert os.listdir(memory) == os.listdir(disk) == []
        """
    run_in_namespace(tmp_path, body)


@pytest.mark.parametrize("full", ["memory", "disk"])
def test_one_full_file_system_of_two_is_gone_round(full: str, tmp_path: Path) -> None:
    body = f"""
        mount(memory, "300m")
        mount(disk, "300m")
        with Manager(local_workers=2) as manager:
            run(manager)
            fill({full})
            run(manager)
            empty({full})
            run(manager)
        assert os.listdir(memory) == os.listdir(disk) == []
        """
    run_in_namespace(tmp_path, body)


def test_what_arrives_goes_to_disk_when_memory_is_full(tmp_path: Path) -> None:
    """Nothing was dropped before, whose memory could be used again."""
    body = """
        mount(memory, "300m")
        mount(disk, "300m")
        with Manager(local_workers=2) as manager:
            assert manager.get({"x": (len, "abc")}, "x") == 3
            fill(memory)
            assert manager.get(LITERALS, [("u", i) for i in range(4)]) == tuple(300_000 + i for i in range(4))
        """
    run_in_namespace(tmp_path, body)


def test_when_both_are_full_it_is_said_and_the_next_graph_is_right(tmp_path: Path) -> None:
    body = """
        mount(memory, "20m")  # too small to be used
        mount(disk, "100m")
        with Manager(local_workers=2) as manager:
            run(manager)
            fill(disk)
            refused(manager)
            empty(disk)
            run(manager)
            try:
                run(manager, arrays=60)
            except StorageError as error:
                assert "no room" in str(error)
            run(manager)
        assert os.listdir(memory) == os.listdir(disk) == []
        """
    run_in_namespace(tmp_path, body)


def test_a_download_for_which_there_is_no_room_is_not_called_missing(tmp_path: Path) -> None:
    run_in_namespace(
        tmp_path,
        """
        import graphvine as vine

        big = os.path.join(os.path.dirname(disk), "big")
        with open(big, "wb") as file:
            file.truncate(64 * 2**20)
        mount(disk, "16m")
        with vine.Manager(local_workers=1) as manager:
            for url in (f"file://{big}", "untar"):
                if url == "untar":
                    subprocess.check_call(["tar", "-czf", big + ".tgz", "-C", os.path.dirname(big), "big"])
                    file = manager.declare_untar(manager.declare_file(big + ".tgz"))
                else:
                    file = manager.declare_url(url)
                task = vine.Task("true", cores=1)
                task.add_input(file, "x")
                manager.submit(task)
                assert manager.wait(60) is task
                assert task.result == "sandbox exhaustion", (task.result, task.reason)
                assert "disk of the worker is full" in task.reason, task.reason
        """,
    )
