"""Libraries with files of their own, with slots, and with workers that vanish during their set-up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.integration.conftest import StartWorker, family

import graphvine as vine
from graphvine.manager.manager import Manager

pytestmark = pytest.mark.usefixtures("by_value")


def set_up(counter: str) -> dict[str, Any]:
    with open(counter, "a") as file:
        file.write(f"{os.getpid()}\n")
    with open("model/weights") as file:
        return {"weights": file.read(), "names": sorted(os.listdir())}


def infer(x: int) -> tuple[int, list[str]]:
    with open("table") as file:
        table = len(file.read())
    weights = vine.load_variable_from_library("weights")
    return len(weights) + table + x, vine.load_variable_from_library("names")


def with_files(m: Manager, tmp_path: Path, **options: Any) -> Any:
    """A library with a directory that a task makes, a local file, and a buffer."""
    model = m.declare_temp()
    maker = vine.Task("mkdir model; head -c 200000 /dev/zero | tr '\\\\0' w > model/weights")
    maker.add_output(model, "model")
    maker.set_cores(1)
    m.submit(maker)
    (tmp_path / "table").write_text("t" * 50_000)
    library = m.create_library_from_functions(
        "library", infer, library_context_info=[set_up, [str(tmp_path / "counter")], {}], **options
    )
    library.add_input(model, "model")
    library.add_input(m.declare_file(str(tmp_path / "table")), "table")
    library.add_input(m.declare_buffer("small"), "notes.txt")
    m.install_library(library)
    return library


def results(m: Manager, count: int) -> list[Any]:
    over = []
    for _ in range(count):
        task = m.wait(60)
        assert task is not None
        over.append(task)
    return over


@pytest.mark.parametrize("mode", ["direct", "fork"])
def test_files_of_a_library_are_there_for_its_set_up_and_its_calls(
    manager: Manager, tmp_path: Path, mode: str
) -> None:
    with_files(manager, tmp_path, exec_mode=mode, init_command="test -f table")
    # In two batches: the files stay between them.
    for batch in range(2):
        calls = [vine.FunctionCall("library", "infer", i) for i in range(10)]
        for call in calls:
            manager.submit(call)
        over = results(manager, 10 + (not batch))
        assert [task.reason for task in over if not task.successful()] == []
        assert [call.output[0] for call in calls] == [250_000 + i for i in range(10)]
        assert calls[0].output[1] == ["model", "notes.txt", "table"]
    assert len((tmp_path / "counter").read_text().splitlines()) == 1


def test_a_file_that_cannot_be_had_is_named(manager: Manager, tmp_path: Path) -> None:
    library = manager.create_library_from_functions("library", infer)
    library.add_input(manager.declare_file(str(tmp_path / "nowhere")), "model")
    manager.install_library(library)
    call = vine.FunctionCall("library", "infer", 1)
    manager.submit(call)
    assert manager.wait(60) is call
    assert not call.successful()
    assert "nowhere" in call.reason


def test_an_input_that_its_task_did_not_make(manager: Manager) -> None:
    model = manager.declare_temp()
    maker = vine.Task("exit 3")
    maker.add_output(model, "model")
    manager.submit(maker)
    library = manager.create_library_from_functions("library", infer)
    library.add_input(model, "model")
    manager.install_library(library)
    call = vine.FunctionCall("library", "infer", 1)
    manager.submit(call)
    over = results(manager, 2)
    assert set(over) == {maker, call}
    assert call.result == "missing library"
    assert "model: the command did not make 'model'" in call.reason


def test_a_library_s_files_get_to_other_workers(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path
) -> None:
    m = bare_manager
    with_files(m, tmp_path)
    start_worker(m, 1, "one", "--feature", "one")
    start_worker(m, 1, "two", "--feature", "two")
    for feature in ("one", "two"):
        call = vine.FunctionCall("library", "infer", 1)
        call.add_feature(feature)
        m.submit(call)
    over = results(m, 3)
    assert [task.reason for task in over if not task.successful()] == []
    assert len((tmp_path / "counter").read_text().splitlines()) == 2


def test_slots_are_how_many_calls_run_at_a_time(tmp_path: Path) -> None:
    def meet(directory: str, slots: int) -> int:
        """How many are here at the most: each waits for as many as there should be, and a while for more."""
        mine = os.path.join(directory, str(os.getpid()) + str(time.monotonic_ns()))
        Path(mine).touch()
        most = 0
        for many, seconds in ((slots, 10.0), (slots + 1, 0.3)):
            end = time.monotonic() + seconds
            while most < many and time.monotonic() < end:
                most = max(most, len(os.listdir(directory)))
                time.sleep(0.001)
        os.unlink(mine)
        return most

    with vine.Manager(local_workers=4) as m:
        for slots, cores, expected in ((2, 0, 2), (8, 0, 8), (2, 1, 2), (1, 0, 1)):
            directory = tmp_path / f"{slots}-{cores}"
            directory.mkdir()
            library = m.create_library_from_functions(f"with {slots} {cores}", meet)
            library.set_function_slots(slots)
            m.install_library(library)
            for _ in range(2 * slots):
                call = vine.FunctionCall(library.name, "meet", str(directory), expected)
                if cores:
                    call.set_cores(cores)
                m.submit(call)
            most = [task.output for task in results(m, 2 * slots)]
            assert max(most) == expected


def test_a_worker_that_is_killed_while_a_library_starts(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)

    def wait(gate: str) -> dict[str, int]:
        with open(gate) as file:
            return {"read": len(file.read())}

    m = bare_manager
    m.install_library(
        m.create_library_from_functions("slow", lambda_named(), library_context_info=[wait, [gate], {}])
    )
    first = start_worker(m, 1)
    call = vine.FunctionCall("slow", "read_again")
    m.submit(call)
    # It is at it when somebody has the other end open.
    with open(gate, "w"):
        processes = family(first.pid)
        first.kill()
        first.wait()
        # What ends with the worker must not be the one that reads what is for the next.
        assert psutil.wait_procs(processes, timeout=20)[1] == []
    start_worker(m, 1)
    with open(gate, "w") as file:
        file.write("four")
    assert m.wait(60) is call
    assert (call.output, call.result) == (4, "success")


def lambda_named() -> Callable[[], int]:
    def read_again() -> int:
        return vine.load_variable_from_library("read")  # type: ignore[no-any-return]

    return read_again


def test_time_that_is_over_ends_calls_and_what_has_not_begun(bare_manager: Manager, manager: Manager) -> None:
    def soon() -> int:
        return int((time.time() + 0.5) * 1e6)

    for m, kind in ((manager, "runs"), (bare_manager, "waits")):
        for task in (vine.PythonTask(time.sleep, 1000), vine.Task("sleep 1000")):
            task.set_time_end(soon())
            m.submit(task)
            assert m.wait(60) is task, kind
            assert task.result == "max end time"
            assert task.limits_exceeded is not None
            assert task.limits_exceeded.end > 0


def write_beside() -> dict[str, Any]:
    Path("noted").write_text("x")
    return {"names": sorted(os.listdir())}


def names_of_the_set_up() -> list[str]:
    names: list[str] = vine.load_variable_from_library("names")
    return names


def test_a_set_up_without_files_has_a_directory_of_its_own(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    library = manager.create_library_from_functions(
        "library",
        names_of_the_set_up,
        library_context_info=[write_beside, [], {}],
        init_command="touch before",
    )
    manager.install_library(library)
    call = vine.FunctionCall("library", "names_of_the_set_up")
    manager.submit(call)
    assert manager.wait(60) is call
    assert call.output == ["before", "noted"]
    assert os.listdir() == []


def bump() -> int:
    count: list[int] = vine.load_variable_from_library("count")
    count[0] += 1
    return count[0]


def test_libraries_that_are_the_same_share_nothing(bare_manager: Manager, start_worker: StartWorker) -> None:
    m = bare_manager
    start_worker(m, 1)

    def output(name: str) -> int:
        call = vine.FunctionCall(name, "bump")
        m.submit(call)
        assert m.wait(60) is call
        found: int = call.output
        return found

    library = {
        name: m.create_library_from_functions(name, bump, library_context_info=[lambda: {"count": [0]}])
        for name in ("one", "other")
    }
    for name in library:
        m.install_library(library[name])
    assert [output("one"), output("other")] == [1, 1]
    m.remove_library("other")
    m.install_library(library["other"])
    assert output("other") == 1
