"""Workers that are told to leave, with real processes: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import threading
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
from dask.delayed import Delayed
from tests.integration.conftest import StartWorker, family
from tests.integration.test_failures import wait_for

from graphvine.manager.manager import Manager
from graphvine.protocol.trees import NewTree, Tree
from graphvine.taskvine.task import Task
from graphvine.worker.scratch import directory as new_directory

LARGE = 100_000
"""Elements: too large for a message."""


def make(directory: str, number: int) -> Any:
    """A large value; how often it was made can be seen."""
    with open(Path(directory, str(number)), "a") as mark:
        mark.write("x")
    return numpy.full(LARGE, number)


def make_when_told(directory: str, number: int) -> Any:
    """The like, which ends when the test says so."""
    Path(directory, "begun").touch()
    while not Path(directory, "go on").exists():
        threading.Event().wait(0.01)
    return make(directory, number)


def joined(manager: Manager, count: int) -> None:
    wait_for(lambda: manager.counts().workers == count)


def made(directory: Path) -> Counter[str]:
    """How often each value was made."""
    return Counter({path.name: len(path.read_text()) for path in directory.iterdir() if path.name.isdigit()})


def persist(manager: Manager, directory: Path, count: int) -> Delayed:
    graph: dict[Any, Any] = {("n", i): (make, str(directory), i) for i in range(count)}
    graph["all"] = (list, list(graph))
    return manager.persist(Delayed("all", graph))


def begin_slow(manager: Manager, directory: Path) -> Future[Any]:
    """A task that runs, and goes on until it is told to end (see ``make_when_told``)."""
    future: Future[Any] = manager.compute(Delayed("slow", {"slow": (make_when_told, str(directory), 0)}))
    wait_for((directory / "begun").exists)
    return future


def wait_until_leaving(tmp_path: Path) -> None:
    """Wait until the worker "leaver" knows that it is to leave."""
    wait_for(lambda: "leaving within" in (tmp_path / "leaver.log").read_text())


def ended(process: subprocess.Popen[bytes], tmp_path: Path, name: str) -> str:
    """Wait for a worker's good end; what it logged."""
    assert process.wait(30) == 0
    return (tmp_path / f"{name}.log").read_text()


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    directory = tmp_path / "marks"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_kept_results_are_handed_over_before_a_worker_leaves(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path, number: signal.Signals
) -> None:
    leaver = start_worker(bare_manager, 1, "leaver")
    kept = [bare_manager.persist(Delayed("a", {"a": (make, str(marks), i)})) for i in range(5)]
    for value in kept:
        assert bare_manager.get({"b": (len, value.key), **value.dask}, "b") == LARGE
    start_worker(bare_manager, 1, "heir")
    joined(bare_manager, 2)
    leaver.send_signal(number)
    log = ended(leaver, tmp_path, "leaver")
    assert "whatever was needed of it lies elsewhere" in log
    assert [int(value.compute(scheduler=bare_manager.get)[0]) for value in kept] == list(range(5))
    assert made(marks) == {str(i): 1 for i in range(5)}, "nothing was made again"


def test_a_running_task_ends_and_its_result_is_handed_over(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path
) -> None:
    leaver = start_worker(bare_manager, 1, "leaver")
    graph: dict[Any, Any] = {"slow": (make_when_told, str(marks), 0), "len": (len, "slow")}
    graph |= {("n", i): (make, str(marks), i) for i in range(1, 20)}
    graph["total"] = (total, "len", [("n", i) for i in range(1, 20)])
    future = bare_manager.compute(Delayed("total", graph))
    wait_for((marks / "begun").exists)
    leaver.send_signal(signal.SIGTERM)
    wait_until_leaving(tmp_path)
    start_worker(bare_manager, 1, "heir")
    wait_for(lambda: len(made(marks)) == 19)
    (marks / "go on").touch()
    ended(leaver, tmp_path, "leaver")
    assert future.result(60) == 20 * LARGE
    assert made(marks) == {str(i): 1 for i in range(20)}


def total(length: int, arrays: list[Any]) -> int:
    return length + sum(map(len, arrays))


def test_a_second_signal_ends_a_worker_at_once(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path
) -> None:
    leaver = start_worker(bare_manager, 1, "leaver")
    future = begin_slow(bare_manager, marks)
    leaver.terminate()
    wait_until_leaving(tmp_path)
    leaver.send_signal(signal.SIGINT)
    assert "stopped by SIGINT" in ended(leaver, tmp_path, "leaver")
    (marks / "go on").touch()
    start_worker(bare_manager, 1, "other")
    assert int(future.result(60)[0]) == 0


def test_being_told_twice_by_a_batch_system_changes_nothing(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path
) -> None:
    leaver = start_worker(bare_manager, 1, "leaver")
    future = begin_slow(bare_manager, marks)
    leaver.terminate()
    wait_until_leaving(tmp_path)
    leaver.terminate()
    (marks / "go on").touch()
    assert int(future.result(60)[0]) == 0
    assert "whatever was needed of it lies elsewhere" in ended(leaver, tmp_path, "leaver")


def test_what_does_not_end_in_time_is_done_elsewhere(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path
) -> None:
    leaver = start_worker(bare_manager, 1, "leaver", "--grace", "0.5")
    future = begin_slow(bare_manager, marks)
    leaver.terminate()
    assert "the time for leaving is over" in ended(leaver, tmp_path, "leaver")
    (marks / "go on").touch()
    start_worker(bare_manager, 1, "other")
    assert int(future.result(60)[0]) == 0


def test_workers_are_retired_by_name_and_by_number(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path
) -> None:
    first = start_worker(bare_manager, 1, "first", "--job", "12.3")
    kept = bare_manager.persist(Delayed("a", {"a": (make, str(marks), 7)}))
    assert int(kept.compute(scheduler=bare_manager.get)[0]) == 7
    second = start_worker(bare_manager, 1, "second")
    joined(bare_manager, 2)
    assert bare_manager.retire("12.3", "nobody") == 1
    assert "it is not needed any more" in ended(first, tmp_path, "first")
    assert int(kept.compute(scheduler=bare_manager.get)[0]) == 7
    assert made(marks) == {"7": 1}
    assert bare_manager.workers_shutdown() == 1
    ended(second, tmp_path, "second")


def make_tree(directory: str) -> NewTree:
    """A directory as a result."""
    make(directory, 0)
    path = new_directory()
    Path(path, "inside.txt").write_text("kept")
    return NewTree(path)


def read(tree: Tree, array: Any) -> tuple[str, int]:
    return Path(tree.path, "inside.txt").read_text(), int(array.sum())


def test_the_last_worker_leaves_its_results_with_the_manager(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path
) -> None:
    leaver = start_worker(bare_manager, 1, "leaver")
    tree = bare_manager.persist(Delayed("tree", {"tree": (make_tree, str(marks))}))
    array = bare_manager.persist(Delayed("array", {"array": (make, str(marks), 1)}))
    graph = {"both": (read, "tree", "array"), **tree.dask, **array.dask}
    assert bare_manager.get(graph, "both") == ("kept", LARGE)
    leaver.terminate()
    ended(leaver, tmp_path, "leaver")
    staged = Path(bare_manager.staging_directory).parent / "trees" / "staged"
    assert len(list(staged.iterdir())) == 2
    assert int(array.compute(scheduler=bare_manager.get).sum()) == LARGE, "fetched without a worker"
    start_worker(bare_manager, 1, "heir")
    assert bare_manager.get(graph, "both") == ("kept", LARGE)
    assert made(marks) == {"0": 1, "1": 1}
    del tree, array, graph
    gc.collect()
    wait_for(lambda: not list(staged.iterdir()))


def end_child() -> int:
    """How a child ended that was told to."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    return os.waitpid(pid, 0)[1]


def test_a_batch_system_may_signal_every_process_of_a_job(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path, marks: Path
) -> None:
    leaver = start_worker(bare_manager, 1, "leaver")
    assert bare_manager.get({"a": (end_child,)}, "a") == signal.SIGTERM, (
        "what tasks start ends when it is told to"
    )
    future = begin_slow(bare_manager, marks)
    for process in [*family(leaver.pid), psutil.Process(leaver.pid)]:
        process.terminate()
    wait_until_leaving(tmp_path)
    (marks / "go on").touch()
    assert int(future.result(60)[0]) == 0
    ended(leaver, tmp_path, "leaver")
    assert made(marks) == {"0": 1}


def test_a_command_that_dies_with_its_whole_job_is_done_elsewhere(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path
) -> None:
    """As Slurm has it: every process of a job is told to end, the agent among them."""
    first = tmp_path / "first"
    leaver = start_worker(bare_manager, 1, "leaver")
    task = Task(f"mkdir {first} 2>/dev/null && exec sleep 600; echo again")
    bare_manager.submit(task)
    wait_for(first.exists)
    start_worker(bare_manager, 1, "heir")
    joined(bare_manager, 2)
    for process in [*reversed(family(leaver.pid)), psutil.Process(leaver.pid)]:
        process.terminate()
    assert bare_manager.wait(60) is task
    assert (task.result, task.output) == ("success", "again\n")
    ended(leaver, tmp_path, "leaver")


def test_a_command_that_ends_itself_with_sigterm_has_done_so(manager: Manager) -> None:
    task = Task("kill -TERM $$")
    manager.submit(task)
    assert manager.wait(60) is task
    assert (task.result, task.exit_code) == ("signal", signal.SIGTERM)
