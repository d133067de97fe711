"""Tasks that use more than they stated, where the manager is told to see to that."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

import graphvine as vine
from graphvine.manager.manager import Manager

pytestmark = pytest.mark.usefixtures("by_value")


@pytest.fixture
def m(manager: Manager) -> Manager:
    manager.enable_monitoring()
    return manager


def done(m: Manager, task: Any) -> Any:
    """Submit a task, and wait for it."""
    m.submit(task)
    assert m.wait(100) is task
    return task


def fill(megabytes: int, end: bool) -> int:
    data = bytearray(megabytes * 2**20)
    while not end:
        time.sleep(0.01)
    return len(data)


#: Ends at once, or never.
MUCH = f"exec {sys.executable} -c 'import time; x = bytearray(400 << 20); time.sleep({{}})'"


@pytest.mark.parametrize("seconds", [0, 1000])
def test_a_command_that_uses_too_much_memory(m: Manager, seconds: int) -> None:
    task = vine.Task(MUCH.format(seconds), memory=200, cores=1)
    done(m, task)
    assert task.result == "resource exhaustion"
    assert "MB of memory, and may use 200 MB" in task.reason
    assert task.resources_measured.memory > 200
    assert task.limits_exceeded.memory == 200
    assert task.limits_exceeded.disk == -1
    assert not task.completed()


def test_processes_count_together(m: Manager) -> None:
    one = f"{sys.executable} -c 'import time; x = bytearray(120 << 20); time.sleep(1000)'"
    task = vine.Task(f"{one} & {one} & wait", memory=200, cores=1)
    assert done(m, task).result == "resource exhaustion"


@pytest.mark.parametrize("rest", ["true", "sleep 1000"])
def test_a_command_that_uses_too_much_disk(m: Manager, rest: str) -> None:
    task = vine.Task(f"mkdir x; head -c 60000000 /dev/zero > x/y; {rest}", disk=50, cores=1)
    done(m, task)
    assert (task.result, task.limits_exceeded.disk) == ("resource exhaustion", 50)
    assert task.resources_measured.disk > 50


def test_what_keeps_to_its_limits_is_left_alone(m: Manager) -> None:
    task = vine.Task("head -c 20000000 /dev/zero > y; echo done", disk=50, memory=200, cores=1)
    done(m, task)
    assert (task.result, task.output, task.limits_exceeded) == ("success", "done\n", None)
    call = vine.PythonTask(fill, 10, True)
    call.set_memory(1000)
    assert done(m, call).output == 10 * 2**20
    unlimited = vine.Task(MUCH.format(0))
    assert done(m, unlimited).result == "success"


@pytest.mark.parametrize("end", [True, False])
def test_a_function_that_uses_too_much_memory(m: Manager, end: bool) -> None:
    task = vine.PythonTask(fill, 500, end)
    task.set_memory(300)
    done(m, task)
    assert (task.result, task.limits_exceeded.memory) == ("resource exhaustion", 300)
    assert isinstance(task.output, vine.PythonTaskNoResult)
    assert "may use 300 MB" in task.reason
    after = vine.PythonTask(fill, 1, True)
    after.set_memory(300)
    assert done(m, after).output == 2**20


def test_a_function_that_does_not_let_go(m: Manager) -> None:
    def stubborn() -> None:
        data = bytearray(500 * 2**20)
        while True:
            try:
                while data:
                    time.sleep(0.01)
            except BaseException:  # noqa: BLE001 -- that is what it is about
                continue

    task = vine.PythonTask(stubborn)
    task.set_memory(300)
    done(m, task)
    assert (task.result, task.limits_exceeded.memory) == ("resource exhaustion", 300)
    assert "may use 300 MB" in task.reason


@pytest.mark.parametrize("mode", ["direct", "fork"])
def test_calls_that_sleep_or_wait_are_ended_too(m: Manager, mode: str) -> None:
    def sleep() -> int:
        data = bytearray(500 * 2**20)
        time.sleep(1000)
        return len(data)

    def wait() -> int:
        code = "import time; x = bytearray(500 << 20); time.sleep(1000)"
        return subprocess.run([sys.executable, "-c", code], check=True).returncode

    library = m.create_library_from_functions("library", sleep, wait, exec_mode=mode)
    m.install_library(library)
    for name in ("sleep", "wait"):
        call = vine.FunctionCall("library", name)
        call.set_memory(300)
        done(m, call)
        assert (call.result, call.limits_exceeded.memory) == ("resource exhaustion", 300)
        # It was told so, and not killed.
        assert "attempt" not in str(call.output)


def test_a_call_that_uses_too_much_disk(m: Manager) -> None:
    def write() -> str:
        with open("large", "wb") as file:
            file.write(bytes(60_000_000))
        return os.getcwd()

    m.install_library(m.create_library_from_functions("library", write))
    call = vine.FunctionCall("library", "write")
    call.set_disk(50)
    done(m, call)
    assert (call.result, call.limits_exceeded.disk) == ("resource exhaustion", 50)


def test_limits_of_a_category(m: Manager) -> None:
    m.set_category_resources_max("small", {"memory": 200, "cores": 1})
    task = vine.Task(MUCH.format(1000), category="small")
    assert done(m, task).result == "resource exhaustion"


def test_nothing_is_stopped_unless_it_is_asked_for(manager: Manager) -> None:
    assert done(manager, vine.Task(MUCH.format(0), memory=200, cores=1)).result == "success"
    manager.enable_monitoring(watchdog=False)
    task = vine.Task(MUCH.format(0), memory=200, cores=1)
    assert done(manager, task).result == "success"
    assert task.resources_measured.memory > 400
