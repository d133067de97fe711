"""However a user's process ends, nothing of it stays behind."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from dask import delayed
from tests.integration.conftest import StartWorker, family

from graphvine.manager.local import LocalWish, LocalWorker
from graphvine.manager.manager import Manager
from graphvine.protocol.connection import sweep_connections

SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
from graphvine import Manager
ready = Path(sys.argv[1])

def inc(x):
    return x + 1

def block(directory):
    Path(directory, "started").touch()
    threading.Event().wait()

manager = Manager(local_workers=2)
assert manager.get({"a": (inc, 1)}, "a") == 2
"""

ENDINGS = {
    "falling off the end": "",
    "sys.exit": "sys.exit(0)",
    "an exception": "raise RuntimeError('on purpose')",
    "a manager forgotten": "del manager",
    "a task running": """
from dask import delayed
future = manager.compute(delayed(block)(str(ready)))
while not (ready / "started").exists():
    time.sleep(0.01)
""",
}


class Script:
    """A user's script, and all the processes it ever had."""

    def __init__(self, body: str, directory: Path) -> None:
        self.directory = directory
        source = textwrap.dedent(SCRIPT) + textwrap.dedent(body)
        path = directory / "script.py"
        path.write_text(source)
        self.process = subprocess.Popen(
            [sys.executable, str(path), str(directory)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # As from a terminal, also where the tests themselves run in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def wait_for(self, name: str) -> None:
        """Until the script has made the file ``name``."""
        while not (self.directory / name).exists():
            assert self.process.poll() is None, self.process.communicate()
            os.sched_yield()

    def end(self) -> tuple[int, str]:
        """Exit code and what it wrote to stderr."""
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.mark.parametrize("how", ENDINGS)
def test_nothing_is_left_after(how: str, tmp_path: Path) -> None:
    script = Script(ENDINGS[how], tmp_path)
    code, err = script.end()
    assert code == (1 if how == "an exception" else 0), err
    if how != "an exception":
        assert err == ""


def test_no_process_is_left_after_a_sudden_exit(tmp_path: Path, state: Path) -> None:
    script = Script(
        'print(*[p.pid for p in __import__("psutil").Process().children(True)]); os._exit(0)', tmp_path
    )
    out, _ = script.process.communicate(timeout=60)
    wait_until_gone([int(pid) for pid in out.split()])
    sweep(state)


def test_no_process_is_left_though_a_child_of_the_users_lives_on(tmp_path: Path, state: Path) -> None:
    body = """
    workers = [p.pid for p in __import__("psutil").Process().children(True)]
    child = os.fork()
    if child == 0:
        os.closerange(1, 3)
        threading.Event().wait()
    print(child, *workers, flush=True)
    os._exit(0)
    """
    script = Script(body, tmp_path)
    out, _ = script.process.communicate(timeout=60)
    child, *workers = map(int, out.split())
    try:
        assert len(workers) >= 3
        wait_until_gone(workers)
    finally:
        os.kill(child, signal.SIGKILL)
    sweep(state)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_when_it_is_killed(number: signal.Signals, tmp_path: Path, state: Path) -> None:
    script = Script('manager.get({"b": (block, str(ready))}, "b")', tmp_path)
    script.wait_for("started")
    children = [process.pid for process in family(script.process.pid)]
    assert len(children) >= 3
    script.process.send_signal(number)
    assert script.end()[0] == -number
    wait_until_gone(children)
    sweep(state)


def test_what_a_killed_manager_staged_is_removed_by_the_next(tmp_path: Path, state: Path) -> None:
    staging = tmp_path / "staging"
    body = """
    other = Manager(local_workers=0, staging_path=ready / "staging")
    (ready / "started").touch()
    threading.Event().wait()
    """
    script = Script(body, tmp_path)
    script.wait_for("started")
    (theirs,) = staging.iterdir()
    with Manager(local_workers=0, staging_path=staging):
        assert theirs.exists(), "its manager lives"
    children = [process.pid for process in family(script.process.pid)]
    script.process.kill()
    script.end()
    wait_until_gone(children)
    with Manager(local_workers=0, staging_path=staging) as manager:
        assert [str(path) for path in staging.iterdir()] == [os.path.dirname(manager.staging_directory)]
    sweep_connections()


def wait_until_gone(pids: list[int]) -> None:
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


def sweep(state: Path) -> None:
    """What the next manager does about the connection file of a dead one."""
    assert len(list(state.glob("*.json"))) == 1
    sweep_connections()


def test_ctrl_c_cancels_the_graph_and_the_manager_goes_on(tmp_path: Path) -> None:
    body = """
    try:
        manager.get({"b": (block, str(ready))}, "b")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    assert manager.get({"a": (inc, 2)}, "a") == 3
    print("went on", flush=True)
    """
    script = Script(body, tmp_path)
    script.wait_for("started")
    script.process.send_signal(signal.SIGINT)
    out, err = script.process.communicate(timeout=60)
    assert out.split("\n")[:2] == ["interrupted", "went on"], err


@pytest.mark.parametrize("how", ["on_ended", "stop"])
def test_a_local_worker_that_ends_before_it_is_told_of_its_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("graphvine.manager.local._START", "raise SystemExit(3)")
    worker = LocalWorker(1, tmp_path)
    worker.launch()
    assert worker.pid is not None
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    ended: queue.Queue[str] = queue.Queue()
    worker.join(b"a connection", lambda _, how: ended.put(how))
    assert ended.get(timeout=60) == "exit code 3"
    worker.on_ended() if how == "on_ended" else worker.stop(60)
    assert worker.pid is None


def test_only_starts_that_led_nowhere_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphvine.manager.local._START", "raise SystemExit(3)")
    worker = LocalWorker(1, tmp_path)
    hopeless = []
    for joined in (False, False, True, False, False, False):
        worker.launch()
        assert worker.pid is not None
        if joined:
            worker.on_joined(worker.pid)
        assert worker._process is not None
        assert worker._process.wait() == 3
        worker.on_ended()
        hopeless.append(worker.hopeless)
    assert hopeless == [False] * 5 + [True]


def wait_for_file(path: str) -> int:
    while not os.path.exists(path):
        os.sched_yield()
    return 1


def test_where_others_work_no_graph_fails_for_a_local_worker_that_does_not_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    start_worker: StartWorker,
) -> None:
    with Manager(local_workers=0) as manager:
        start_worker(manager)
        assert manager.get({"a": (abs, -1)}, "a", progress=False) == 1
        monkeypatch.setattr("graphvine.manager.local._START", "raise SystemExit(3)")
        manager._opening.embedded._wish = LocalWish("always", 1.0)
        future = manager.compute(delayed(wait_for_file)(str(tmp_path / "go")))
        while not any("as soon as it starts" in record.message for record in caplog.records):
            assert not future.done()
            os.sched_yield()
        (tmp_path / "go").touch()
        assert future.result(60) == 1
