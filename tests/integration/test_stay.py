"""How long workers stay: wall times, idle workers, managers that come one after the other; real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dask.delayed import Delayed
from tests.integration.conftest import StartWorker
from tests.integration.test_departures import ended, joined, made, make
from tests.integration.test_failures import wait_for

from graphvine.manager.manager import Manager

StartByName = Callable[..., "subprocess.Popen[bytes]"]


def inc(number: int) -> int:
    return number + 1


def work_for(seconds: float) -> int:
    """Take so long; returns the process that made this executor."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return os.getppid()


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    directory = tmp_path / "marks"
    directory.mkdir()
    return directory


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartByName]:
    """Starts workers with any arguments; ends those that are left."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        run = "import sys; from graphvine.cli import worker_main; sys.exit(worker_main(sys.argv[1:]))"
        with open(tmp_path / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", run, *arguments, "--name", name], stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        process.wait(30)


def test_a_worker_drains_before_its_wall_time_ends(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path
) -> None:
    leaver = start_worker(bare_manager, 1, "leaver", "--wall-time", "8", "--grace", "4")
    kept = bare_manager.persist(Delayed("a", {"a": (make, str(marks), 7)}))
    assert int(kept.compute(scheduler=bare_manager.get)[0]) == 7
    start_worker(bare_manager, 1, "heir")
    log = ended(leaver, tmp_path, "leaver")
    assert "its wall time ends; whatever was needed of it lies elsewhere" in log
    assert int(kept.compute(scheduler=bare_manager.get)[0]) == 7
    assert made(marks) == {"7": 1}


def test_what_cannot_end_in_time_goes_to_who_stays(bare_manager: Manager, start_worker: StartWorker) -> None:
    stays = start_worker(bare_manager, 1, "stays")
    bare_manager.get({("n", "first"): (work_for, 2.0)}, ("n", "first"))
    # A task needs half as much again as its like took, which is never left here, however soon it joins.
    start_worker(bare_manager, 2, "short", "--wall-time", "2.9")
    joined(bare_manager, 2)
    graph: dict[Any, Any] = {("n", i): (work_for, 2.0) for i in range(2)}
    zygotes = [process.pid for process in psutil.Process(stays.pid).children()]
    assert set(bare_manager.get(graph, list(graph))) <= set(zygotes)


def test_an_idle_worker_leaves_unless_it_alone_holds_what_is_kept(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path
) -> None:
    holder = start_worker(bare_manager, 1, "holder", "--timeout", "0.5")
    kept = bare_manager.persist(Delayed("a", {"a": (make, str(marks), 7)}))
    assert int(kept.compute(scheduler=bare_manager.get)[0]) == 7
    idle = start_worker(bare_manager, 1, "idle", "--timeout", "0.5")
    assert "it had nothing to do for 0.5 s" in ended(idle, tmp_path, "idle")
    assert holder.poll() is None, "it had nothing to do for longer"
    assert int(kept.compute(scheduler=bare_manager.get)[0]) == 7
    del kept
    ended(holder, tmp_path, "holder")
    assert made(marks) == {"7": 1}


def test_a_worker_waits_for_its_manager_and_serves_the_next_one_of_that_name(
    start: StartByName, tmp_path: Path
) -> None:
    worker = start("w", "-M", "demo", "--cores", "1", "--timeout", "60")
    wait_for(lambda: "looking for a manager named demo" in (tmp_path / "w.log").read_text())
    for number in range(2):
        with Manager(name="demo", local_workers=0) as manager:
            assert manager.get({"a": (inc, number)}, "a") == number + 1
    wait_for(lambda: (tmp_path / "w.log").read_text().count("looking for a manager named demo") == 3)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_a_worker_for_one_manager_ends_with_it(start: StartByName, tmp_path: Path) -> None:
    worker = start("w", "-M", "demo", "--cores", "1", "--single-shot")
    with Manager(name="demo", local_workers=0) as manager:
        assert manager.get({"a": (inc, 1)}, "a") == 2
    assert worker.wait(30) == 0


def test_a_manager_that_never_comes_is_an_error_after_a_while(start: StartByName, tmp_path: Path) -> None:
    worker = start("w", "-M", "nobody", "--timeout", "0.3")
    assert worker.wait(30) == 1
    log = (tmp_path / "w.log").read_text()
    assert "nobody.json for 0.3 s" in log
    assert "Traceback" not in log


def test_of_several_addresses_whoever_answers_is_served_and_then_the_next(
    start: StartByName, tmp_path: Path
) -> None:
    with socket.socket() as nobody, Manager(local_workers=0) as second:
        nobody.bind(("127.0.0.1", 0))
        with Manager(local_workers=0) as first:
            ports = [nobody.getsockname()[1], first.port, second.port]
            where = ";".join(f"127.0.0.1:{port}" for port in ports)
            worker = start("w", where, "--cores", "1", "--timeout", "60")
            assert first.get({"a": (inc, 1)}, "a") == 2
        assert second.get({"a": (inc, 2)}, "a") == 3
    wait_for(lambda: (tmp_path / "w.log").read_text().count("looking for a manager at") == 3)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_nobody_at_any_of_several_addresses_is_an_error_after_a_while(
    start: StartByName, tmp_path: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        worker = start("w", f"127.0.0.1:{port};127.0.0.1:{port}", "--timeout", "0.3")
        assert worker.wait(30) == 1
    log = (tmp_path / "w.log").read_text()
    assert f"no manager answered at 127.0.0.1:{port}, 127.0.0.1:{port} for 0.3 s" in log
    assert "Traceback" not in log


def test_a_worker_leaves_when_its_parent_is_gone(bare_manager: Manager, tmp_path: Path) -> None:
    log = tmp_path / "w.log"
    command = f"{sys.executable} -m graphvine.worker 127.0.0.1 {bare_manager.port} --parent-death >{log} 2>&1"
    parent = subprocess.Popen(["/bin/sh", "-c", f"{command} & wait"])
    joined(bare_manager, 1)
    parent.kill()
    parent.wait()
    wait_for(lambda: "lies elsewhere" in log.read_text())


def test_the_log_goes_where_it_is_told(bare_manager: Manager, start: StartByName, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    worker = start("w", f"127.0.0.1:{bare_manager.port}", "-d", "all", "-o", str(own), "-w", "4096")
    joined(bare_manager, 1)
    worker.terminate()
    assert worker.wait(30) == 0
    said = own.read_text()
    assert "joined manager" in said
    assert "--tcp-window-size: nothing to do" in said
    assert (tmp_path / "w.log").read_text() == ""
