"""What is killed, stopped or lost, with real processes."""

from __future__ import annotations

import contextlib
import operator
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dask.delayed import Delayed
from tests.integration.conftest import StartWorker, family

from graphvine.manager.manager import Manager
from graphvine.manager.settings import Settings
from graphvine.protocol.errors import TaskKilledError

WIDTH = 40


def meet(directory: str, number: int, seconds: float = 0.05) -> int:
    """Leave a mark, work for a while, return the number."""
    Path(directory, str(number)).touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return number


def total_graph(directory: Path) -> dict[Any, Any]:
    graph: dict[Any, Any] = {("n", i): (meet, str(directory), i) for i in range(WIDTH)}
    graph["total"] = (sum, list(graph))
    return graph


TOTAL = sum(range(WIDTH))


def in_background(manager: Manager, graph: dict[Any, Any], key: object) -> Any:
    return manager.compute(Delayed(key, graph))


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true answer; for conditions outside of our processes' reach."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)
    return answer


def some_done(directory: Path) -> bool:
    return len(list(directory.iterdir())) > 5


def processes(kind: str) -> list[psutil.Process]:
    return [p for p in family(os.getpid()) if kind in " ".join(p.cmdline())]


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    directory = tmp_path / "marks"
    directory.mkdir()
    return directory


def executors_of(worker_pid: int) -> list[psutil.Process]:
    """The leaves of a worker's process tree."""
    return [p for p in family(worker_pid) if not p.children()]


def test_a_killed_executor_is_replaced(manager: Manager, marks: Path) -> None:
    future = in_background(manager, total_graph(marks), "total")
    wait_for(lambda: some_done(marks))
    victim = executors_of(os.getpid())[0]
    victim.kill()
    assert future.result(60) == TOTAL


def test_a_killed_zygote_is_replaced(manager: Manager, marks: Path) -> None:
    future = in_background(manager, total_graph(marks), "total")
    wait_for(lambda: some_done(marks))
    (agent,) = psutil.Process().children()
    (zygote,) = agent.children()
    zygote.kill()
    assert future.result(60) == TOTAL


def test_a_killed_embedded_worker_is_started_again(manager: Manager, marks: Path) -> None:
    future = in_background(manager, total_graph(marks), "total")
    wait_for(lambda: some_done(marks))
    (agent,) = psutil.Process().children()
    agent.kill()
    assert future.result(60) == TOTAL


def test_a_killed_worker_is_made_up_for_by_others(
    bare_manager: Manager, start_worker: StartWorker, marks: Path
) -> None:
    doomed = start_worker(bare_manager)
    future = in_background(bare_manager, total_graph(marks), "total")
    wait_for(lambda: some_done(marks))
    start_worker(bare_manager)
    doomed.kill()
    assert future.result(60) == TOTAL


def test_kept_results_lost_with_their_worker_are_made_again(
    bare_manager: Manager, start_worker: StartWorker
) -> None:
    da = pytest.importorskip("dask.array")
    doomed = start_worker(bare_manager)
    kept = bare_manager.persist(da.arange(1_000_000, chunks=250_000))
    assert kept.sum().compute(scheduler=bare_manager.get) == 499_999_500_000
    doomed.kill()
    doomed.wait()
    start_worker(bare_manager)
    assert kept.sum().compute(scheduler=bare_manager.get) == 499_999_500_000


def test_a_suspended_worker_is_found_out_and_may_come_back(
    bare_manager: Manager, start_worker: StartWorker, marks: Path
) -> None:
    sleeper = start_worker(bare_manager)
    future = in_background(bare_manager, total_graph(marks), "total")
    wait_for(lambda: some_done(marks))
    sleeper.send_signal(signal.SIGSTOP)
    start_worker(bare_manager)
    assert future.result(60) == TOTAL
    sleeper.send_signal(signal.SIGCONT)
    wait_for(lambda: len(bare_manager.worker_names()) >= 2)
    again = in_background(bare_manager, total_graph(marks), "total")
    assert again.result(60) == TOTAL


def test_a_task_that_kills_its_executor_fails_with_every_cause(manager: Manager, marks: Path) -> None:
    def die() -> None:
        print("about to go", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    graph = total_graph(marks)
    graph["bad"] = (die,)
    with pytest.raises(TaskKilledError, match=r"SIGKILL") as caught:
        manager.get(graph, ["total", "bad"])
    assert str(caught.value).count("SIGKILL") >= 3
    assert "about to go" in str(caught.value)
    assert manager.get({"a": (operator.add, 1, 2)}, "a") == 3


@pytest.fixture
def memory_limit() -> Iterator[Callable[[int, int], None]]:
    """Holds a process and all below it to so many bytes, as batch systems do. Needs root and cgroups."""
    name = Path("/proc/self/cgroup").read_text()
    below = next((line.split(":")[2] for line in name.splitlines() if ":memory:" in line), None)
    if below is None or not os.access(f"/sys/fs/cgroup/memory{below}/cgroup.procs", os.W_OK):
        pytest.skip("there is no memory controller here that this user may use")
    outside = Path(f"/sys/fs/cgroup/memory{below}")
    group = outside / f"graphvine-test-{os.getpid()}"
    group.mkdir()

    def hold(pid: int, most_bytes: int) -> None:
        (group / "memory.limit_in_bytes").write_text(str(most_bytes))
        for process in [pid, *(child.pid for child in family(pid))]:
            (group / "cgroup.procs").write_text(str(process))

    yield hold
    while inside := (group / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (outside / "cgroup.procs").write_text(inside[0])
    group.rmdir()


def test_a_task_that_the_kernel_kills_for_its_memory_fails_with_that_as_the_cause(
    bare_manager: Manager, start_worker: StartWorker, memory_limit: Callable[[int, int], None]
) -> None:
    worker = start_worker(bare_manager, 2)
    assert bare_manager.get({"a": (abs, -1)}, "a") == 1
    memory_limit(worker.pid, 500 * 2**20)
    graph: dict[str, Any] = {f"small-{i}": (abs, -i) for i in range(100)}
    names = list(graph)
    graph["large"] = (bytearray, 2**31)
    with pytest.raises(TaskKilledError, match=r"(?s)'large' killed .*because memory ran out") as caught:
        bare_manager.get(graph, [*names, "large"])
    assert str(caught.value).count("killed by SIGKILL") == 3
    assert bare_manager.get(graph, names) == tuple(range(100))


def test_a_killer_does_not_take_its_neighbours_with_it(manager: Manager, marks: Path) -> None:
    once = marks.parent / "once"

    def die_once() -> int:
        if not once.exists():
            once.touch()
            os._exit(3)
        return 1000

    graph = total_graph(marks)
    graph["bad"] = (die_once,)
    assert manager.get(graph, ["total", "bad"]) == (TOTAL, 1000)


def test_a_task_that_holds_the_gil_is_left_alone(tmp_path: Path) -> None:
    """One C call that never releases the interpreter, longer than a worker may be silent."""
    with Manager(local_workers=1, settings=Settings(heartbeat_s=0.1, silent_s=1.0)) as manager:
        ran = tmp_path / "ran"

        def hold() -> int:
            with open(ran, "a") as file:
                file.write("x")
            return sum(range(150_000_000))

        assert manager.get({"a": (hold,)}, "a") == sum(range(150_000_000))
        assert ran.read_text() == "x"


def test_a_file_that_somebody_deletes_is_made_again(manager: Manager, state: Path, marks: Path) -> None:
    """A cleaner of temporary files, say, between the making of a result and its use."""
    stores = Path(os.environ["GRAPHVINE_MEMORY_DIR"])
    gate = marks / "gate"

    def large(number: int) -> bytes:
        Path(marks, f"made-{number}").touch()
        return bytes([number]) * 2_000_000

    def wait(data: int) -> int:
        while not gate.exists():
            time.sleep(0.01)
        return data

    def join(first: bytes, second: int) -> tuple[int, int]:
        return len(first), second

    graph = {"large": (large, 7), "wait": (wait, 1), "join": (join, "large", "wait")}
    future = in_background(manager, graph, "join")
    wait_for(lambda: (marks / "made-7").exists() and [p for p in stores.glob("*/*") if is_large(p)])
    for path in stores.glob("*/*"):
        if is_large(path):
            path.unlink()
    gate.touch()
    assert future.result(60) == (2_000_000, 1)


def is_large(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 1_000_000
