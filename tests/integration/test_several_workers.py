"""Several workers from one command."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from dask import delayed
from tests.integration.conftest import StartWorker, family

from graphvine.manager.manager import Manager


@pytest.fixture
def await_workers(bare_manager: Manager) -> Callable[[int], list[str]]:
    """Waits until so many are connected; their names."""

    def wait(count: int) -> list[str]:
        end = time.monotonic() + 60
        while (
            len(names := [name for name in bare_manager.worker_names() if name.startswith("many-")]) != count
        ):
            assert time.monotonic() < end, names
            time.sleep(0.01)
        return sorted(names)

    return wait


def where() -> tuple[str, int]:
    logging.getLogger("a test").debug("in an executor nobody has configured this")
    return str(logging.getLogger().handlers), os.getpid()


def test_they_are_workers_like_any_others(
    bare_manager: Manager, start_worker: StartWorker, await_workers: Callable[[int], list[str]]
) -> None:
    command = start_worker(bare_manager, 1, "many", "--workers", "3")
    assert await_workers(3) == ["many-0", "many-1", "many-2"]
    tasks = [delayed(where)(dask_key_name=f"t{n}") for n in range(30)]
    found = bare_manager.get(delayed(tasks).__dask_graph__(), [task.key for task in tasks])
    assert {handlers for handlers, _ in found} == {"[]"}
    threads = bare_manager.get({"x": (os.getenv, "OMP_NUM_THREADS")}, "x")
    assert threads == os.environ.get("OMP_NUM_THREADS", "1")
    # One that is killed takes nobody with it, and leaves nothing.
    first = psutil.Process(command.pid).children()[0]
    executors = first.children(recursive=True)
    assert executors
    first.kill()
    psutil.wait_procs(executors, timeout=20)
    assert len(await_workers(2)) == 2
    assert bare_manager.get({"x": (sum, [1, 2])}, "x") == 3
    command.send_signal(signal.SIGTERM)
    assert command.wait(30) == 128 + signal.SIGKILL, "the worst of their ends"
    assert await_workers(0) == []


def test_they_go_when_what_started_them_is_killed(
    bare_manager: Manager, start_worker: StartWorker, await_workers: Callable[[int], list[str]]
) -> None:
    command = start_worker(bare_manager, 1, "many", "--workers", "2")
    await_workers(2)
    processes = family(command.pid)
    assert len(processes) >= 4
    command.kill()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def test_an_error_of_all_is_told_and_ends_all() -> None:
    command = [sys.executable, "-m", "graphvine.worker", "--connection-file", "/nowhere", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("cannot read the connection file /nowhere") == 2


@pytest.mark.slow
def test_two_hundred_workers(
    bare_manager: Manager, start_worker: StartWorker, await_workers: Callable[[int], list[str]]
) -> None:
    start_worker(bare_manager, 1, "many", "--workers", "200", "--memory", "200")
    assert len(await_workers(200)) == 200
    tasks = {("t", n): (pow, n, 2) for n in range(5000)}
    graph = tasks | {"sum": (sum, list(tasks))}
    assert bare_manager.get(graph, "sum") == sum(n * n for n in range(5000))


def test_workers_for_whom_the_manager_has_no_descriptors_are_told(tmp_path: Path) -> None:
    script = """
import resource, sys
from graphvine import Manager
from graphvine.manager.descriptors import RESERVE
resource.setrlimit(resource.RLIMIT_NOFILE, (RESERVE + 3, RESERVE + 3))
manager = Manager(port=0, local_workers=0)
print(manager.connection_file, flush=True)
sys.stdin.readline()
assert manager.get({"x": (sum, [1, 2])}, "x") == 3
manager.close()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as manager:
        assert manager.stdin is not None
        assert manager.stdout is not None
        connection = manager.stdout.readline().strip()
        command = [sys.executable, "-m", "graphvine.worker", "--connection-file", connection]
        workers = subprocess.Popen([*command, "--workers", "5"], stderr=subprocess.PIPE, text=True)
        assert workers.stderr is not None
        refused = 0
        for line in workers.stderr:
            refused += "refused this worker: the manager has no room for more than 3 workers" in line
            if refused == 2:
                break
        manager.stdin.write("go on\n")
        manager.stdin.flush()
        workers.communicate(timeout=60)
        assert workers.returncode == 1
        assert manager.wait(60) == 0


def is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("how", [["--name", "many-0"], ["--name", "many", "--workers", "2"]])
def test_nothing_is_imported_twice_and_nothing_of_the_working_directory(
    bare_manager: Manager,
    start_worker: StartWorker,
    await_workers: Callable[[int], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: list[str],
) -> None:
    """A worker's zygote is forked from it, and so is like one that was started as a program."""
    (tmp_path / "lies_beside.py").write_text("")
    monkeypatch.chdir(tmp_path)
    command = start_worker(bare_manager, 1, None, *how)
    await_workers(len(how) // 2)
    here = {"x": (is_there, "lies_beside"), "y": (is_there, "json")}
    assert bare_manager.get(here, ["x", "y"]) == (False, True)
    assert {tuple(process.cmdline()) for process in family(command.pid)} == {
        tuple(psutil.Process(command.pid).cmdline())
    }
