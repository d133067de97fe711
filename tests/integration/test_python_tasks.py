"""Python tasks, libraries and calls of them on real workers, as scripts written for TaskVine run them."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphvine as vine
from graphvine.manager.manager import Manager
from graphvine.protocol.errors import LibraryError, RemoteTraceback, TaskKilledError

pytestmark = pytest.mark.usefixtures("by_value")


@pytest.fixture
def m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "cache"))
    with vine.Manager(local_workers=2) as manager:
        yield manager


def done(m: Manager, task: vine.Task) -> Any:
    """Submit a task, and wait for it."""
    m.submit(task)
    over = m.wait(60)
    assert over is task
    return task


def everything(m: Manager) -> Iterator[Any]:
    """All tasks, as they are over."""
    while not m.empty():
        task = m.wait(60)
        assert task is not None
        yield task


def all_done(m: Manager) -> dict[str | None, Any]:
    """What became of all tasks, by tag."""
    return {task.tag: task for task in everything(m)}


def one_core(task: vine.Task, tag: object = None) -> vine.Task:
    task.set_cores(1)
    task.set_tag(str(tag))
    return task


class MyError(Exception):
    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"{what} ({code})")
        self.code = code

    def __reduce__(self) -> Any:
        return MyError, (self.code, "again")


def work(x: int, add: int = 0) -> int:
    if x == 30:
        raise MyError(7, "thirty")
    if x == 31:
        raise KeyError("thirty-one")
    if x == 32:
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 33:
        sys.exit(5)
    return x + add


def check_all(over: dict[str | None, Any], count: int) -> None:
    """What ``work`` made of so many numbers."""
    assert len(over) == count
    failed = {tag for tag, task in over.items() if not task.successful()}
    assert failed == {"30", "31", "32", "33"}
    assert all(over[str(i)].output == i + 100 for i in range(count) if str(i) not in failed)
    assert all(isinstance(over[tag].output, vine.PythonTaskNoResult) for tag in failed)
    mine = over["30"]
    assert type(mine.output) is MyError
    assert mine.output.code == 7
    assert isinstance(mine.output.__cause__, RemoteTraceback)
    assert "in work" in mine.std_output
    assert (mine.result, mine.exit_code, mine.completed()) == ("success", 1, True)
    assert isinstance(over["31"].output, KeyError)
    assert isinstance(over["32"].output, TaskKilledError)
    assert over["32"].result == "max retries"
    assert isinstance(over["33"].output, SystemExit)


def test_hundreds_of_python_tasks_and_each_failure_is_its_own(m):
    for i in range(300):
        m.submit(one_core(vine.PythonTask(work, i, add=100), i))
    check_all(all_done(m), 300)


@pytest.mark.parametrize(("mode", "count"), [("direct", 300), ("fork", 60)])
def test_hundreds_of_calls_and_each_failure_is_its_own(m, mode, count):
    m.install_library(m.create_library_from_functions("lib", work, exec_mode=mode))
    for i in range(count):
        m.submit(one_core(vine.FunctionCall("lib", "work", i, add=100), i))
    check_all(all_done(m), count)


def test_results_that_are_no_results_are_told_from_exceptions_that_are():
    assert not isinstance(ValueError("a value"), vine.PythonTaskNoResult)
    assert isinstance(vine.PythonTaskNoResult("none"), vine.PythonTaskNoResult)


def test_a_returned_exception_is_a_result(m):
    task = done(m, vine.PythonTask(lambda: ValueError("x")))
    assert task.successful()
    assert isinstance(task.output, ValueError)
    assert not isinstance(task.output, vine.PythonTaskNoResult)


def test_arguments_and_functions_are_taken_when_they_are_submitted(m):
    held = [1]
    factor = 1

    def times(values: list[int]) -> int:
        return sum(values) * factor

    for i in range(4):
        factor = 10**i
        m.submit(one_core(vine.PythonTask(times, held), i))
        held.append(1)
    over = all_done(m)
    assert [over[str(i)].output for i in range(4)] == [1, 20, 300, 4000]


def test_large_results_and_arguments(m):
    for i in range(6):
        m.submit(one_core(vine.PythonTask(lambda data, i: data[: 2**20] * i, b"x" * 3 * 2**20, i), i))
    over = all_done(m)
    assert [len(over[str(i)].output) for i in range(6)] == [2**20 * i for i in range(6)]


def test_inputs_and_outputs_stand_in_its_directory_and_nothing_stays(m, tmp_path):
    here = os.getcwd()

    def copy(left: str) -> tuple[list[str], str]:
        names = sorted(os.listdir())
        Path("made").mkdir()
        Path("made/one").write_text(Path("in/data").read_text() * 2)
        Path("large").write_bytes(bytes(100_000))
        Path(left).write_text("left behind")
        return names, os.environ["GVT_WORD"]

    for i in range(2):
        made, large = m.declare_file(str(tmp_path / f"made{i}")), m.declare_temp()
        task = vine.PythonTask(copy, f"left{i}")
        task.add_input(m.declare_buffer("text"), "in/data")
        task.add_output(made, "made")
        task.add_output(large, "large")
        task.set_env_var("GVT_WORD", "word")
        done(m, task)
        assert (task.result, task.output) == ("success", (["in"], "word"))
        assert (tmp_path / f"made{i}" / "one").read_text() == "texttext"
        assert large.contents() == bytes(100_000)
    assert done(m, vine.PythonTask(os.listdir)).output == []
    assert done(m, vine.PythonTask(os.getenv, "GVT_WORD")).output is None
    assert os.getcwd() == here


def test_outputs_of_one_that_raises_and_outputs_that_are_missing(m):
    def fail() -> None:
        Path("log").write_text("so far")
        raise MyError(1, "late")

    log, other = m.declare_buffer(), m.declare_buffer()
    task = vine.PythonTask(fail)
    task.add_output(log, "log", failure_only=True)
    task.add_output(other, "other", success_only=True)
    done(m, task)
    assert isinstance(task.output, MyError)
    assert (task.result, task.exit_code, log.contents()) == ("success", 1, b"so far")
    missing = vine.PythonTask(lambda: 5)
    missing.add_output(m.declare_buffer(), "never")
    done(m, missing)
    assert (missing.result, missing.successful(), missing.output) == ("output missing", False, 5)


def test_an_input_that_cannot_be_had(m, tmp_path):
    task = vine.PythonTask(work, 1)
    task.add_input(m.declare_file(str(tmp_path / "nowhere")), "in")
    done(m, task)
    assert task.result == "input missing"
    assert isinstance(task.output, vine.PythonTaskNoResult)
    assert "nowhere" in str(task.output)


def test_temp_outputs_pass_from_task_to_task(m):
    def read(name: str) -> int:
        with open(name, "rb") as file:
            return pickle.load(file) + 1  # type: ignore[no-any-return]

    first = vine.PythonTask(work, 5)
    first.enable_temp_output()
    m.submit(one_core(first, 0))
    before = first
    for i in range(1, 5):
        assert before.output_file is not None
        task = vine.PythonTask(read, "before")
        task.add_input(before.output_file, "before")
        task.enable_temp_output()
        m.submit(one_core(task, i))
        before = task
    over = all_done(m)
    assert [over[str(i)].result for i in range(5)] == ["success"] * 5
    with pytest.raises(ValueError, match="output_file"):
        _ = before.output
    assert before.output_file.contents(pickle.load) == 9


def test_what_builds_on_one_that_raised_lacks_its_input(m):
    first = vine.PythonTask(work, 31)
    first.enable_temp_output()
    m.submit(one_core(first, 0))
    task = vine.PythonTask(work, 1)
    task.add_input(first.output_file, "before")
    m.submit(one_core(task, 1))
    over = all_done(m)
    assert isinstance(over["0"].output, KeyError)
    assert over["1"].result == "input missing"
    assert "thirty-one" in over["1"].reason


def test_bytes_without_a_pickle(m):
    task = vine.PythonTask(lambda: b"raw")
    task.disable_output_serialization()
    assert done(m, task).output == b"raw"
    assert task.output_file.contents() == b"raw"
    task.enable_temp_output()
    done(m, task)
    assert task.output_file.contents() == b"raw"


def test_time_limits_and_cancelling(m):
    slow = vine.PythonTask(time.sleep, 100)
    slow.set_time_max(0.2)
    done(m, slow)
    assert (slow.result, slow.successful()) == ("max wall time", False)
    assert isinstance(slow.output, TimeoutError)
    other = vine.PythonTask(time.sleep, 100)
    m.cancel_by_task_id(m.submit(other))
    assert m.wait(60) is other
    assert other.result == "cancelled"
    assert isinstance(other.output, vine.PythonTaskNoResult)


def test_measured(m):
    task = done(m, one_core(vine.PythonTask(lambda: len(bytearray(50 * 2**20)))))
    assert task.resources_measured.memory > 50
    assert task.resources_measured.wall_time > 0
    assert task.resources_measured.exit_status == 0


def test_what_cannot_be_sent_is_said_at_once(m):
    with pytest.raises(vine.NotPicklableError, match="arguments of len"):
        m.submit(vine.PythonTask(len, threading.Lock()))
    assert m.empty()
    task = done(m, vine.PythonTask(lambda: (i for i in ())))
    assert task.result == "output missing"
    assert isinstance(task.output, vine.NotPicklableError)


def test_a_task_may_be_submitted_again(m):
    task = vine.PythonTask(work, 1)
    assert done(m, task).output == 1
    assert done(m, task).output == 1
    assert done(m, task.clone()).output == 1


# -- libraries -------------------------------------------------------------------------------------------


def test_a_set_up_runs_once_and_its_variables_are_there(m, tmp_path):
    def set_up(path: str, *, base: int) -> dict[str, int]:
        with open(path, "a") as file:
            file.write("started\n")
        return {"base": base}

    def shifted(x: int) -> float:
        return vine.load_variable_from_library("base") + fractions.Fraction(x)  # noqa: F821 -- hoisted

    marks = tmp_path / "marks"
    hoisted = [importlib.import_module("fractions")]
    library = m.create_library_from_functions(
        "shifts",
        shifted,
        library_context_info=[set_up, [str(marks)], {"base": 100}],
        hoisting_modules=hoisted,
    )
    m.install_library(library)
    for i in range(100):
        m.submit(vine.FunctionCall("shifts", "shifted", i))
    outputs = sorted(task.output for task in everything(m))
    assert outputs == [100 + i for i in range(100)]
    assert marks.read_text() == "started\n"


def test_a_set_up_that_raises_says_why_and_the_others_go_on(m):
    def broken() -> None:
        raise OSError("no calibration at /nowhere")

    m.install_library(m.create_library_from_functions("bad", work, library_context_info=[broken, [], {}]))
    m.install_library(m.create_library_from_functions("good", work))
    for i in range(20):
        m.submit(one_core(vine.FunctionCall("good" if i % 2 else "bad", "work", i), i))
    over = all_done(m)
    assert all(over[str(i)].output == i for i in range(1, 20, 2))
    for i in range(0, 20, 2):
        task = over[str(i)]
        assert (task.result, task.successful()) == ("missing library", False)
        assert isinstance(task.output, LibraryError)
        assert isinstance(task.output, vine.PythonTaskNoResult)
        assert "no calibration at /nowhere" in task.reason


def test_calls_of_what_is_not_installed_are_over_at_once(m):
    m.install_library(m.create_library_from_functions("lib", work))
    m.submit(one_core(vine.FunctionCall("none", "work", 1), "none"))
    m.submit(one_core(vine.FunctionCall("lib", "wrok", 1), "wrok"))
    m.submit(one_core(vine.FunctionCall("lib", "work", 1), "held"))
    m.remove_library("lib")
    m.submit(one_core(vine.FunctionCall("lib", "work", 1), "removed"))
    over = all_done(m)
    assert {tag: task.result for tag, task in over.items()} == {
        "none": "missing library",
        "wrok": "missing library",
        "held": "success",
        "removed": "missing library",
    }
    assert "it has: work" in str(over["wrok"].output)
    with pytest.raises(KeyError, match="lib"):
        m.remove_library("lib")


def test_what_a_forked_call_changes_is_gone_with_it(m):
    seen: list[int] = []

    def remember(x: int) -> int:
        vine.load_variable_from_library("seen").append(x)
        return len(vine.load_variable_from_library("seen"))

    m.install_library(
        m.create_library_from_functions(
            "lib", remember, library_context_info=[lambda: {"seen": seen}, [], {}], exec_mode="fork"
        )
    )
    for i in range(8):
        m.submit(vine.FunctionCall("lib", "remember", i))
    assert [task.output for task in everything(m)] == [1] * 8


def test_a_library_has_its_variables_and_its_command(m, tmp_path):
    library = m.create_library_from_functions(
        "lib", os.getenv, init_command=f"echo $GVT_WORD > {tmp_path}/word"
    )
    library.set_env_var("GVT_WORD", "there")
    m.install_library(library)
    assert done(m, vine.FunctionCall("lib", "getenv", "GVT_WORD")).output == "there"


def test_files_of_a_call(m):
    def read(name: str) -> str:
        return Path(name).read_text()

    m.install_library(m.create_library_from_functions("lib", read, exec_mode="fork"))
    for i in range(4):
        task = vine.FunctionCall("lib", "read", "in")
        task.add_input(m.declare_buffer(f"text {i}"), "in")
        assert done(m, task).output == f"text {i}"


def test_resources_of_calls_are_heeded(m):
    """Two cores; a call that needs both runs alone."""

    def spans(path: str) -> None:
        with open(path, "x"):
            pass
        time.sleep(0.02)
        os.unlink(path)

    m.install_library(m.create_library_from_functions("lib", spans))
    directory = m.staging_directory
    for _ in range(10):
        task = vine.FunctionCall("lib", "spans", os.path.join(directory, "alone"))
        task.set_cores(2)
        m.submit(task)
    assert [task.output for task in everything(m)] == [None] * 10


def test_slots_share_what_the_library_has():
    from graphvine.taskvine.libraries import make

    library = make("lib", [work], None, None, None)
    assert (library.share().cores, library.share().memory) == (1.0, -1)
    library.set_cores(8)
    library.set_memory(4000)
    library.set_function_slots(4)
    assert (library.share().cores, library.share().memory) == (2.0, 1000)


def test_wrong_libraries_are_refused(m):
    with pytest.raises(TypeError, match="library_context_info"):
        m.create_library_from_functions("lib", work, library_context_info=work)
    with pytest.raises(ValueError, match="exec_mode='thread'"):
        m.create_library_from_functions("lib", work, exec_mode="thread")
    with pytest.raises(TypeError, match="is no library"):
        m.install_library(vine.Task("true"))
    task = done(m, m.create_library_from_functions("lib", work))
    assert "install_library" in task.reason
    with pytest.raises(TypeError, match="mini-tasks"):
        m.declare_minitask(vine.PythonTask(work, 1), "x")


def test_a_script_whose_functions_and_classes_are_its_own(tmp_path):
    """``__main__`` of a script is no module that a worker could import."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import graphvine as vine

            class Odd(Exception):
                pass

            LIMIT = 3

            def check(x):
                if x > LIMIT:
                    raise Odd(x)
                return x

            if __name__ == "__main__":
                with vine.Manager(local_workers=2) as m:
                    m.install_library(m.create_library_from_functions("lib", check))
                    for i in range(6):
                        for task in (vine.PythonTask(check, i), vine.FunctionCall("lib", "check", i)):
                            task.set_cores(1)
                            m.submit(task)
                    outputs = []
                    while not m.empty():
                        t = m.wait(60)
                        outputs.append(repr(t.output))
                        if isinstance(t.output, vine.PythonTaskNoResult):
                            assert type(t.output) is Odd and not t.successful()
                    print(sorted(outputs))
            """
        )
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    expected = [f"Odd({i})" for i in (4, 4, 5, 5)] + [str(i) for i in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert run.stdout.strip() == str(sorted(expected))
