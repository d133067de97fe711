"""Outputs that grow here while their tasks run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import graphvine as vine
from graphvine.manager.manager import Manager

pytestmark = pytest.mark.usefixtures("by_value")


@pytest.fixture
def gates(tmp_path: Path) -> list[str]:
    """Pipes that a task waits at, one after the other."""
    paths = [str(tmp_path / f"gate{i}") for i in range(2)]
    for path in paths:
        os.mkfifo(path)
    return paths


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does; fails when it does not come."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def open_gate(path: str) -> None:
    Path(path).write_text("go\n")


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def trickle(gates: list[str]) -> str:
    with open("log", "w", buffering=1) as log:
        for i, gate in enumerate(gates):
            print("line", i, file=log)
            Path(gate).read_text()
        print("end", file=log)
    return "done"


@pytest.mark.parametrize("kind", ["command", "python"])
def test_a_file_grows_while_its_task_writes_it(
    manager: Manager, tmp_path: Path, gates: list[str], kind: str
) -> None:
    path = tmp_path / "deep" / "log"
    task: vine.Task
    if kind == "command":
        task = vine.Task(f"exec > log; echo line 0; cat {gates[0]}; echo line 1; cat {gates[1]}; echo end")
    else:
        task = vine.PythonTask(trickle, gates)
    task.add_output(manager.declare_file(str(path)), "log", watch=True)
    manager.submit(task)
    until(lambda: size(path) > 0)
    begun = path.read_text()
    assert begun == "line 0\n"
    with path.open() as seen:
        open_gate(gates[0])
        until(lambda: "line 1" in path.read_text())
        assert manager.wait(0) is None
        open_gate(gates[1])
        assert manager.wait(60) is task
        assert task.result == "success"
        assert path.read_text().endswith("line 1\n" + ("go\n" if kind == "command" else "") + "end\n")
        # For who has had it open since, too.
        assert seen.read() == path.read_text()


def test_a_buffer_grows(manager: Manager, gates: list[str]) -> None:
    buffer, large = manager.declare_buffer(), manager.declare_buffer()
    task = vine.Task(f"echo begun > out; head -c 3000000 /dev/zero > large; cat {gates[0]} >> out")
    task.add_output(buffer, "out", watch=True)
    task.add_output(large, "large", watch=True)
    manager.submit(task)
    until(lambda: buffer.growing == b"begun\n")
    assert buffer.contents() == b"begun\n"
    open_gate(gates[0])
    assert manager.wait(60) is task
    assert buffer.contents() == b"begun\ngo\n"
    assert large.contents() == bytes(3_000_000)


def test_a_file_that_becomes_shorter_begins_anew(manager: Manager, tmp_path: Path, gates: list[str]) -> None:
    path = tmp_path / "log"
    task = vine.Task(
        f"echo first and long > log; cat {gates[0]} > /dev/null; echo new > log; cat {gates[1]} >> log"
    )
    task.add_output(manager.declare_file(str(path)), "log", watch=True)
    manager.submit(task)
    until(lambda: size(path) > 0)
    open_gate(gates[0])
    until(lambda: path.read_text() == "new\n")
    open_gate(gates[1])
    assert manager.wait(60) is task
    assert path.read_text() == "new\ngo\n"


def test_outputs_that_cannot_grow_come_in_the_end(manager: Manager, tmp_path: Path) -> None:
    task = vine.Task("mkdir directory; echo x > directory/x; echo y > temp")
    path = tmp_path / "directory"
    temp = manager.declare_temp()
    task.add_output(manager.declare_file(str(path)), "directory", watch=True)
    task.add_output(temp, "temp", watch=True)
    manager.submit(task)
    assert manager.wait(60) is task
    assert task.result == "success"
    assert (path / "x").read_text() == "x\n"
    assert temp.contents() == b"y\n"


def test_one_that_runs_again_elsewhere_begins_anew(
    bare_manager: Manager, start_worker: Callable[..., object], tmp_path: Path, gates: list[str]
) -> None:
    path = tmp_path / "log"
    m = bare_manager
    task = vine.Task(f"echo $$ > log; cat {gates[0]} >> log")
    task.add_output(m.declare_file(str(path)), "log", watch=True)
    m.submit(task)
    first = start_worker(m, 1)
    until(lambda: size(path) > 0)
    number = path.read_text()
    start_worker(m, 1)
    first.kill()  # type: ignore[attr-defined]
    until(lambda: size(path) > 0 and path.read_text() != number)
    open_gate(gates[0])
    assert m.wait(60) is task
    assert task.result == "success"
    assert path.read_text().endswith("\ngo\n")
    assert not path.read_text().startswith(number)
