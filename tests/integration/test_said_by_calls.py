"""What Python tasks and calls print is their standard output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import cloudpickle
import pytest

import graphvine as vine
from graphvine.manager.manager import Manager

pytestmark = pytest.mark.usefixtures("by_value")


def done(m: Manager, task: Any) -> Any:
    """Submit a task, and wait for it."""
    task.set_cores(1)
    m.submit(task)
    assert m.wait(60) is task
    return task


def speak(text: str, times: int = 1, ending: str = "") -> int:
    for _ in range(times):
        print(text, end="", flush=True)
    sys.stderr.write("!")
    subprocess.run(["echo", "and a child"], check=True)
    os.write(1, b"and the descriptor\n")
    if ending == "raise":
        raise ValueError(text[:10])
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return len(text)


SAID = "hello!and a child\nand the descriptor\n"


@pytest.fixture(params=["task", "direct", "fork"])
def call(request: pytest.FixtureRequest, manager: Manager) -> Any:
    """Makes tasks that call ``speak``."""
    if request.param == "task":
        return lambda *args: vine.PythonTask(speak, *args)
    manager.install_library(manager.create_library_from_functions("library", speak, exec_mode=request.param))
    return lambda *args: vine.FunctionCall("library", "speak", *args)


def test_what_is_printed_is_the_standard_output_of_its_own_task(manager: Manager, call: Any) -> None:
    for _ in range(2):
        task = done(manager, call("hello"))
        assert (task.output, task.std_output) == (5, SAID)
    assert done(manager, vine.PythonTask(len, "x")).std_output == ""


def test_with_what_is_raised_comes_what_was_printed(manager: Manager, call: Any) -> None:
    task = done(manager, call("hello", 1, "raise"))
    assert isinstance(task.output, ValueError)
    assert task.std_output.startswith(SAID)
    assert "Traceback" in task.std_output
    assert task.reason == "ValueError: hello"


@pytest.mark.parametrize("ending", ["", "raise"])
def test_much_that_is_printed(manager: Manager, call: Any, ending: str) -> None:
    text = "0123456789" * 1000
    task = done(manager, call(text, 100, ending))
    assert task.std_output.startswith(text * 100 + "!and a child\n")
    if ending:
        assert isinstance(task.output, ValueError)
        assert task.output.args == ("0123456789",)
    else:
        assert task.output == len(text)
    assert done(manager, call("hello")).std_output == SAID


def test_much_that_is_printed_beside_outputs(manager: Manager) -> None:
    def work() -> str:
        print("x" * 200_000)
        with open("made", "w") as file:
            file.write("made")
        return "value" * 20_000

    made = manager.declare_buffer()
    task = vine.PythonTask(work)
    task.add_output(made, "made")
    done(manager, task)
    assert task.result == "success"
    assert task.std_output == "x" * 200_000 + "\n"
    assert task.output == "value" * 20_000
    assert made.contents() == b"made"


def test_a_result_that_stays_there_and_much_that_is_printed(manager: Manager) -> None:
    task = vine.PythonTask(speak, "x" * 100, 1000)
    task.enable_temp_output()
    done(manager, task)
    assert task.std_output.startswith("x" * 100_000)
    assert cloudpickle.loads(task.output_file.contents()) == 100


def test_a_temp_beside_a_long_standard_output_is_a_file(manager: Manager) -> None:
    temp = manager.declare_temp()
    task = vine.Task("head -c 100000 /dev/zero; echo made > made")
    task.add_output(temp, "made")
    assert len(done(manager, task).std_output) == 100_000
    assert temp.contents() == b"made\n"


def test_a_large_exception_beside_outputs(manager: Manager) -> None:
    def fail() -> None:
        raise ValueError("x" * 300_000)

    task = vine.PythonTask(fail)
    task.add_output(manager.declare_buffer(), "never", success_only=True)
    done(manager, task)
    assert isinstance(task.output, ValueError)
    assert len(task.output.args[0]) == 300_000


def test_last_words_of_one_that_kills_its_process(manager: Manager, call: Any) -> None:
    task = done(manager, call("the last thing that was said ", 1, "kill"))
    assert task.result == "max retries"
    assert "the last thing that was said" in task.reason


def test_what_a_task_forks_leaves_it_alone(manager: Manager) -> None:
    def fork() -> list[str]:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            print("parent")
            return sorted(os.listdir())
        print("child")
        return []

    made = manager.declare_buffer()
    for outputs in (False, True):
        task = vine.PythonTask(fork)
        task.add_input(manager.declare_buffer("data"), "given")
        if outputs:
            task.add_output(made, "given")
        done(manager, task)
        assert (task.output, task.std_output) == (["given"], "child\nparent\n")
    assert made.contents() == b"data"


def test_streams_that_a_task_closes_or_replaces(manager: Manager) -> None:
    def close() -> None:
        print("before", flush=True)
        sys.stdout.close()
        os.close(2)

    def replace() -> str:
        import io

        sys.stdout = io.StringIO()
        print("nowhere")
        return "ok"

    assert done(manager, vine.PythonTask(close)).std_output == "before\n"
    assert done(manager, vine.PythonTask(speak, "hello")).std_output == SAID
    assert done(manager, vine.PythonTask(replace)).output == "ok"
    assert done(manager, vine.PythonTask(speak, "hello")).std_output == SAID


def leave(ending: str) -> tuple[list[str], str]:
    """What lies in the working directory, and in the one for temporary files."""
    found = os.listdir("."), os.getcwd()
    for path in ("left", "../left"):
        with open(path, "w") as file:
            file.write("left")
    print("left", flush=True)
    os.write(1, b"long" * (20_000 if ending == "long" else 0))
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return found


def test_calls_in_processes_of_their_own_leave_nothing_to_each_other() -> None:
    with Manager(local_workers=1) as m:
        m.install_library(m.create_library_from_functions("library", leave, exec_mode="fork"))
        for ending in ("", "long", "kill", ""):
            task = done(m, vine.FunctionCall("library", "leave", ending))
            assert task.completed() == (ending != "kill")
            if ending != "kill":
                assert task.std_output == "left\n" + "long" * (20_000 if ending == "long" else 0)
                found, directory = task.output
                assert found == []
                assert not os.path.exists(f"{directory}/../left")
