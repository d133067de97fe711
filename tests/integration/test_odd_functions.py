"""Functions that do to their process what they should not."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_failures import wait_for

import graphvine as vine
from graphvine.manager.manager import Manager

pytestmark = pytest.mark.usefixtures("by_value")


def run(m: Manager, function: Any, *args: Any, **kwargs: Any) -> Any:
    """What became of a call."""
    task = vine.PythonTask(function, *args, **kwargs)
    task.set_cores(1)
    m.submit(task)
    assert m.wait(60) is task
    return task


def test_arguments_may_have_any_name(manager: Manager) -> None:
    def names(self: int, func: int, name: int = 0, **others: int) -> list[Any]:
        return [self, func, name, sorted(others)]

    task = run(manager, names, self=1, func=2, name=3, spec=4, library_name=5)
    assert task.output == [1, 2, 3, ["library_name", "spec"]]
    with vine.FuturesExecutor(manager=manager, factory=False) as executor:
        future = executor.submit(executor.future_task(names, self=1, func=2, fn=3))
        assert future.result(60) == [1, 2, 0, ["fn"]]


def test_one_that_removes_modules_harms_nobody(manager: Manager) -> None:
    def remove() -> int:
        ours = [name for name in sys.modules if name.partition(".")[0] in ("graphvine", "cloudpickle")]
        for name in ours:
            del sys.modules[name]
        return len(ours)

    assert run(manager, remove).output > 10
    assert run(manager, len, "abc").output == 3
    assert run(manager, os.listdir).output == []


@pytest.mark.parametrize("levels", [1, 2])
def test_one_that_removes_its_directory_harms_nobody(manager: Manager, levels: int) -> None:
    def remove() -> str:
        path = os.getcwd()
        os.chdir("/")
        for _ in range(levels - 1):
            path = os.path.dirname(path)
        shutil.rmtree(path)
        return "done"

    assert run(manager, remove).output == "done"
    assert run(manager, os.listdir).output == []


@pytest.mark.parametrize("ending", ["return", "raise", "exit"])
def test_what_a_set_up_forks_is_no_library(manager: Manager, ending: str) -> None:
    def fork() -> dict[str, str]:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            return {"who": "parent"}
        if ending == "raise":
            raise ValueError("of the child")
        if ending == "exit":
            sys.exit(3)
        return {"who": "child"}

    def who() -> str:
        return vine.load_variable_from_library("who")  # type: ignore[no-any-return]

    library = manager.create_library_from_functions("forking", who, library_context_info=[fork, [], {}])
    manager.install_library(library)
    calls = [vine.FunctionCall("forking", "who") for _ in range(5)]
    for call in calls:
        manager.submit(call)
    for _ in calls:
        assert manager.wait(60) is not None
    assert [call.output for call in calls] == ["parent"] * 5


def test_tasks_that_are_over_are_forgotten(manager: Manager) -> None:
    """With what they returned, which may be large."""
    tasks = []
    for i in range(20):
        task = vine.PythonTask(len, "x" * i)
        task.set_cores(1)
        tasks.append(weakref.ref(task))
        manager.submit(task)
    del task
    while not manager.empty():
        assert manager.wait(60) is not None
    gc.collect()
    # The thread that told of the last ones lets go of them a moment after that.
    wait_for(lambda: [one() for one in tasks] == [None] * 20)


def test_cancelling_by_tag_comes_to_an_end(manager: Manager) -> None:
    """As the manual has it: until nothing is left to be cancelled."""
    for _ in range(5):
        task = vine.PythonTask(time.sleep, 1000)
        task.set_tag("tag")
        task.set_cores(1)
        manager.submit(task)
    counts = iter(lambda: manager.cancel_by_task_tag("tag"), 0)
    assert list(counts) == [1] * 5
    assert manager.cancel_all() == 0
    for _ in range(5):
        cancelled = manager.wait(60)
        assert cancelled is not None
        assert cancelled.result == "cancelled"
    assert manager.empty()


REMOVED = """
import os
import graphvine as vine
os.rmdir(os.getcwd())
with vine.Manager(local_workers=1) as m:
    assert m.get({"x": (max, 1, 2)}, "x") == 2
    m.install_library(m.create_library_from_functions("lib", max))
    call = vine.FunctionCall("lib", "max", 1, 2)
    for task in (vine.Task("pwd", cores=1), vine.PythonTask(max, 1, 2), call):
        m.submit(task)
        assert m.wait(60).successful(), task.reason
"""


def test_a_script_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    (gone := tmp_path / "gone").mkdir()
    (script := tmp_path / "script.py").write_text(REMOVED)
    subprocess.run([sys.executable, str(script)], cwd=gone, check=True, timeout=60)
