"""Real zygotes and executors, driven through a pool."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

from graphvine.protocol import values
from graphvine.protocol.libraries import Setup, dump_setup
from graphvine.worker import library
from graphvine.worker.packets import ContextRef, Packet, PacketTask, TaskResult
from graphvine.worker.pool import Pool
from graphvine.worker.pool_events import (
    ExecutorDied,
    ExecutorReady,
    PoolEvent,
    ResultsArrived,
    ZygoteDied,
    ZygoteFailed,
    ZygoteReady,
)
from graphvine.worker.zygote import Prepare

pytestmark = pytest.mark.usefixtures("by_value")


class Driver:
    """A pool, and what an agent would do with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store"
        self.store.mkdir()
        (directory / "logs").mkdir()
        (directory / "scratch").mkdir()
        self.ours = directory / "ours"
        self.ours.mkdir()
        self.pool = Pool(str(directory / "scratch"), str(directory / "logs"), watched=(str(self.ours),))
        self.number = 0
        self.blob = 0
        self.task = 0

    def packet(
        self,
        *functions: Callable[..., Any],
        inputs: list[list[bytes | str]] | None = None,
        contexts: list[ContextRef] | None = None,
        directory: str | None = None,
        fallback: str = "",
        blob: bytes | None = None,
        patience_s: float = 60.0,
    ) -> Packet:
        """One task per function, called with its inputs. ``patience_s``: on a busy machine any packet may
        take long enough to be relieved."""
        self.number += 1
        self.blob += 1
        given = inputs or [[] for _ in functions]
        if blob is None:
            entries = [
                (f, (None,) * len(values), tuple(range(len(values))))
                for f, values in zip(functions, given, strict=True)
            ]
            blob = cloudpickle.dumps(entries)
        path = self.directory / f"blob-{self.blob}"
        path.write_bytes(blob)
        context = contexts[0].context if contexts else 0
        tasks = [
            PacketTask(self.task + i, self.blob, context, i, 0, values) for i, values in enumerate(given)
        ]
        self.task += len(tasks)
        return Packet(
            self.number,
            contexts or [],
            [(self.blob, str(path))],
            tasks,
            str(self.store) if directory is None else directory,
            8192,
            fallback,
            patience_s,
        )

    def until(self, enough: Callable[[list[PoolEvent]], bool], timeout_s: float = 30.0) -> list[PoolEvent]:
        """Events until ``enough`` of them."""
        events: list[PoolEvent] = []
        (descriptor,) = self.pool.descriptors()
        deadline = time.monotonic() + timeout_s
        while not enough(events):
            left = deadline - time.monotonic()
            assert left > 0, events
            select.select([descriptor], [], [], left)
            events += self.pool.on_readable(descriptor)
        return events

    def until_a(self, kind: type, count: int = 1) -> list[PoolEvent]:
        return self.until(lambda events: sum(isinstance(event, kind) for event in events) >= count)

    def run(self, executor: int, packet: Packet) -> list[TaskResult]:
        """Send a packet to a living executor; its results."""
        assert self.pool.send(executor, packet)
        return results(self.until(finished(packet.number)))

    def call(self, executor: int, function: Callable[..., Any], *arguments: Any) -> Any:
        (result,) = self.run(
            executor, self.packet(function, inputs=[[pickle.dumps(argument) for argument in arguments]])
        )
        assert result.kind == "", result.text
        assert result.value is not None
        return pickle.loads(result.value)


def finished(number: int) -> Callable[[list[PoolEvent]], bool]:
    def enough(events: list[PoolEvent]) -> bool:
        assert not any(isinstance(event, ExecutorDied) for event in events), events
        return any(
            isinstance(event, ResultsArrived) and event.done.finished and event.done.number == number
            for event in events
        )

    return enough


def results(events: list[PoolEvent]) -> list[TaskResult]:
    return [result for event in events if isinstance(event, ResultsArrived) for result in event.done.results]


def the(kind: type, events: list[PoolEvent]) -> Any:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def gone(pid: int) -> bool:
    """Wait until a process (anybody's child) has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        deadline = time.monotonic() + 10
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    return True


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After the test no process of it is left. (These tests have their own directories, not /dev/shm.)"""
    yield
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=20)
    for process in alive:
        process.kill()
    assert alive == []


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    made = Driver(tmp_path)
    yield made
    made.pool.close()


@pytest.fixture
def one(driver: Driver) -> Driver:
    """With executor 1 up."""
    driver.pool.spawn(1)
    driver.until_a(ExecutorReady)
    return driver


def read_all(path: str) -> str:
    """Waits, when it is a pipe, until somebody has opened and closed it."""
    with open(path) as file:
        return file.read()


# -- running ----------------------------------------------------------------------------------------------


def test_tasks_run_in_order_and_their_results_come_back(one: Driver) -> None:
    began = time.time()
    packet = one.packet(lambda x: x + 1, os.getpid, lambda: "text", inputs=[[pickle.dumps(41)], [], []])
    got = one.run(1, packet)
    assert [result.task for result in got] == [task.task for task in packet.tasks]
    assert [result.kind for result in got] == ["", "", ""]
    decoded = [pickle.loads(result.value or b"") for result in got]
    assert decoded[0] == 42
    assert decoded[1] != os.getpid()
    assert decoded[2] == "text"
    for result in got:
        assert began - 1 < result.began_s < time.time() + 1
        assert 0 < result.duration_s < 10


def test_packets_may_be_sent_before_the_executor_is_there(driver: Driver) -> None:
    driver.pool.spawn(1)
    assert driver.pool.send(1, driver.packet(lambda: 1))
    assert driver.pool.send(1, driver.packet(lambda: 2))
    events = driver.until_a(ResultsArrived, 2)
    assert isinstance(events[0], ExecutorReady)
    assert [pickle.loads(result.value or b"") for result in results(events)] == [1, 2]


def test_a_large_result_is_a_file_and_can_be_an_input(one: Driver) -> None:
    numpy = pytest.importorskip("numpy")
    (made,) = one.run(1, one.packet(lambda: numpy.arange(100_000)))
    path = one.store / str(made.task)
    assert made.value is None
    assert made.size == path.stat().st_size > 800_000
    assert values.loads_file(str(path)).sum() == 4999950000
    (small,) = one.run(1, one.packet(lambda x: x.sum(), inputs=[[str(path)]]))
    assert pickle.loads(small.value or b"") == 4999950000
    assert [entry.name for entry in one.store.iterdir()] == [str(made.task)]


def test_a_small_array_is_inline_and_can_be_written_to(one: Driver) -> None:
    numpy = pytest.importorskip("numpy")
    (made,) = one.run(1, one.packet(lambda: numpy.zeros(10)))
    array = pickle.loads(made.value or b"")
    array[0] = 1
    assert array.sum() == 1


def test_no_room_in_one_directory_takes_the_other_and_none_is_told(one: Driver, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    (made,) = one.run(1, one.packet(lambda: bytes(10_000), directory=absent, fallback=str(one.store)))
    assert (one.store / str(made.task)).stat().st_size == made.size
    (failed,) = one.run(1, one.packet(lambda: bytes(10_000), directory=absent, fallback=absent + "2"))
    assert failed.kind == "storage"
    assert "No such file" in failed.text


def test_long_packets_and_many_results_arrive(one: Driver) -> None:
    packet = one.packet(*[lambda x: x] * 100, inputs=[[pickle.dumps(bytes(5000))] for _ in range(100)])
    got = one.run(1, packet)
    assert len(got) == 100
    assert all(len(result.value or b"") > 5000 for result in got)
    assert list((one.directory / "scratch").iterdir()) == []


def test_a_packet_is_relieved_of_what_waits_for_a_slow_task(one: Driver, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def slow() -> None:
        while not gate.exists():
            time.sleep(0.001)

    packet = one.packet(int, slow, int, int, patience_s=0.5)
    quick, slow_one, *others = [task.task for task in packet.tasks]
    one.pool.send(1, packet)
    (relieved,) = one.until_a(ResultsArrived)
    assert [result.task for result in relieved.done.results] == [quick]
    assert relieved.done.given_back == others
    assert not relieved.done.finished
    gate.touch()
    events = one.until(finished(packet.number))
    assert [result.task for result in results(events)] == [slow_one]


def test_peak_memory_is_of_the_task_not_of_those_before(one: Driver) -> None:
    def hungry() -> int:
        import time

        block = bytearray(300 * 2**20)
        block[::4096] = b"x" * len(block[::4096])
        time.sleep(0.01)
        return len(block)

    def modest() -> None:
        import time

        time.sleep(0.01)

    (first,) = one.run(1, one.packet(hungry))
    (second,) = one.run(1, one.packet(modest))
    assert first.memory_mb > 300
    assert 0 < second.memory_mb < first.memory_mb - 250


# -- what user code may do --------------------------------------------------------------------------------


def test_whatever_a_task_raises_is_a_result(one: Driver) -> None:
    def fail(error: BaseException) -> None:
        raise error

    errors = [ValueError("v"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()]
    got = one.run(1, one.packet(*[fail] * 5, inputs=[[pickle.dumps(error)] for error in errors]))
    assert {result.kind for result in got} == {"raised"}
    for result, error in zip(got, errors, strict=True):
        assert type(pickle.loads(result.error)) is type(error)
        assert type(error).__name__ in result.text
        assert "in fail" in result.text
        assert "executor.py" not in result.text


def test_what_cannot_be_carried_is_told_by_kind(one: Driver) -> None:
    def stubborn() -> Any:
        class Stubborn:
            def __reduce__(self) -> Any:
                raise KeyboardInterrupt

        return Stubborn()

    (unpicklable,) = one.run(1, one.packet(lambda: (x for x in ())))
    (also,) = one.run(1, one.packet(stubborn))
    (undecodable,) = one.run(1, one.packet(lambda x: x, inputs=[[b"rubbish"]]))
    assert (unpicklable.kind, also.kind, undecodable.kind) == ("unpicklable", "unpicklable", "undecodable")
    assert "generator" in unpicklable.text
    assert "UnpicklingError" in undecodable.text
    (missing,) = one.run(1, one.packet(None, blob=b"cgv_absent_module\nf\n.", inputs=[[]]))  # type: ignore[arg-type]
    assert missing.kind == "undecodable"
    assert "gv_absent_module" in missing.text


def test_processes_threads_and_children_work_in_a_task(one: Driver) -> None:
    def busy() -> tuple[str, int, int, str]:
        import multiprocessing
        import subprocess
        import sys
        import threading

        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=queue.put, args=("child",))
        process.start()
        word = queue.get()
        process.join()
        counted = []
        threads = [threading.Thread(target=counted.append, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        code = subprocess.run([sys.executable, "-c", "raise SystemExit(7)"], check=False).returncode
        return word, len(counted), code, sys.stdin.read()

    assert one.call(1, busy) == ("child", 3, 7, "")
    assert one.call(1, lambda: __import__("threading").current_thread().name) == "MainThread"


def test_main_is_empty_and_the_working_directory_no_source_of_modules(one: Driver) -> None:
    assert one.call(1, lambda: sorted(vars(__import__("__main__")))) == sorted(vars(type(os)("x")))
    assert os.getcwd() not in one.call(1, lambda: __import__("sys").path)


def test_executors_do_not_share_random_numbers(driver: Driver) -> None:
    pytest.importorskip("numpy")
    for executor in (1, 2):
        driver.pool.spawn(executor, ContextRef(1, "", ["numpy"]))
    driver.until_a(ExecutorReady, 2)

    def draw() -> tuple[float, float]:
        import random
        import sys

        return random.random(), sys.modules["numpy"].random.random()

    first, second = driver.call(1, draw), driver.call(2, draw)
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_interrupts_from_the_terminal_do_not_reach_a_task(one: Driver) -> None:
    assert one.call(1, lambda: os.getsid(0)) != os.getsid(0)
    pid = one.call(1, os.getpid)
    os.kill(pid, signal.SIGINT)
    assert one.call(1, os.getpid) == pid


# -- contexts ---------------------------------------------------------------------------------------------


def test_modules_of_a_context_are_found_each_in_its_own(one: Driver, tmp_path: Path) -> None:
    refs = []
    for number in (1, 2):
        path = tmp_path / f"modules-{number}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("gvt_shared.py", f"def which():\n    return {number}\n")
        refs.append(ContextRef(number, str(path), []))
    blob = _blob_of("gvt_shared", "which")
    for ref in (refs[0], refs[1], refs[0]):
        (result,) = one.run(1, one.packet(None, blob=blob, contexts=[ref], inputs=[[]]))  # type: ignore[arg-type]
        assert pickle.loads(result.value or b"") == ref.context


def _blob_of(module: str, name: str) -> bytes:
    """A blob of one entry whose function is found by name, in a module that does not exist here."""
    made = type(os)(module)
    exec(f"def {name}(): pass", made.__dict__)
    sys.modules[module] = made
    try:
        return pickle.dumps([(getattr(made, name), (), ())])
    finally:
        del sys.modules[module]


def with_modules(directory: Path) -> dict[str, str]:
    """An environment in which modules of ``directory`` can be imported, too."""
    return {"PYTHONPATH": os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_modules_are_imported_once_before_forking_and_bad_ones_do_no_harm(
    driver: Driver, tmp_path: Path
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "gvt_once.py").write_text("import os\npid = os.getpid()\n")
    (modules / "gvt_exits.py").write_text("raise SystemExit(5)\n")
    driver.pool.close()
    environment = with_modules(modules)
    driver.pool = Pool(str(tmp_path / "scratch"), str(tmp_path / "logs"), environment=environment)
    context = ContextRef(1, "", ["gvt_exits", "gvt_absent", "gvt_once", "graphvine"])
    for executor in (1, 2):
        driver.pool.spawn(executor, context)
    driver.until_a(ExecutorReady, 2)
    where = lambda: __import__("sys").modules["gvt_once"].pid  # noqa: E731
    assert driver.call(1, where) == driver.call(2, where) != driver.call(1, os.getpid)


def test_a_module_whose_import_kills_the_zygote_is_left_out_the_next_time(
    driver: Driver, tmp_path: Path
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "gvt_kills.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    driver.pool.close()
    driver.pool = Pool(str(tmp_path / "scratch"), str(tmp_path / "logs"), environment=with_modules(modules))
    driver.pool.spawn(1, ContextRef(1, "", ["gvt_kills"]))
    events = driver.until_a(ZygoteDied)
    assert the(ExecutorDied, events).task is None
    assert "SIGSEGV" in the(ZygoteDied, events).cause
    assert "gvt_kills" in the(ZygoteDied, events).cause
    driver.pool.spawn(2, ContextRef(1, "", ["gvt_kills"]))
    driver.until_a(ExecutorReady)
    assert driver.call(2, lambda: 1) == 1


@pytest.mark.parametrize("module", ["numpy", "pandas", "pyarrow.compute", "coffea.nanoevents"])
def test_libraries_with_threads_survive_the_fork(driver: Driver, module: str) -> None:
    pytest.importorskip(module)
    for executor in (1, 2):
        driver.pool.spawn(executor, ContextRef(1, "", [module]))

    def use() -> float:
        import numpy

        return float((numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum())

    driver.until_a(ExecutorReady, 2)
    for executor in (1, 2):
        assert driver.call(executor, use) == 300.0**3


# -- libraries --------------------------------------------------------------------------------------------


def prepare(driver: Driver, setup: Setup, archive: str = "", limit_s: float = 60.0) -> Prepare:
    path = driver.directory / f"setup-{len(list(driver.directory.glob('setup-*')))}"
    path.write_bytes(dump_setup(setup))
    return Prepare(str(path), archive, [], str(driver.directory / "scratch"), limit_s)


def test_a_set_up_runs_once_and_every_executor_has_what_it_made(driver: Driver) -> None:
    def set_up(base: int) -> dict[str, Any]:
        return {"pid": os.getpid(), "values": [base] * 3}

    driver.pool.start("lib", prepare(driver, Setup(set_up, (7,))), {"GVT_COLOUR": "blue"})
    assert the(ZygoteReady, driver.until_a(ZygoteReady)).zygote == "lib"
    for executor in (1, 2):
        driver.pool.spawn(executor, zygote="lib")
    driver.pool.spawn(3)
    driver.until_a(ExecutorReady, 3)

    def read() -> tuple[Any, ...]:
        from graphvine.worker.library import load_variable

        return load_variable("pid"), load_variable("values"), os.environ.get("GVT_COLOUR")

    first, second = driver.call(1, read), driver.call(2, read)
    assert first == second
    assert first[1:] == ([7, 7, 7], "blue")
    assert driver.call(3, lambda: os.environ.get("GVT_COLOUR")) is None


def test_a_set_up_uses_the_users_own_modules_and_executors_have_them_as_they_are_then(
    driver: Driver, tmp_path: Path
) -> None:
    archive = tmp_path / "modules.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("gvt_state.py", "value = 1\n")

    def set_up() -> None:
        import gvt_state  # type: ignore[import-not-found]

        gvt_state.value = 2

    driver.pool.start("lib", prepare(driver, Setup(set_up), str(archive)), {})
    driver.until_a(ZygoteReady)
    driver.pool.spawn(1, zygote="lib")
    driver.until_a(ExecutorReady)
    ref = ContextRef(5, str(archive), [])
    (result,) = driver.run(1, driver.packet(lambda: __import__("gvt_state").value, contexts=[ref]))
    assert pickle.loads(result.value or b"") == 2


def test_a_set_up_that_raises_says_so_and_is_gone(driver: Driver) -> None:
    def set_up() -> None:
        raise ValueError("no such calibration")

    driver.pool.start("lib", prepare(driver, Setup(set_up)), {})
    failed = the(ZygoteFailed, driver.until_a(ZygoteFailed))
    assert failed.zygote == "lib"
    assert str(pickle.loads(failed.error)) == "no such calibration"
    assert "in set_up" in failed.text
    driver.pool.start("lib", prepare(driver, Setup(dict)), {})
    driver.until_a(ZygoteReady)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: os._exit(4), "exited with code 4"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
        (lambda: (print("last words", file=sys.stderr), os.abort()), "last words"),
    ],
)
def test_a_set_up_that_ends_its_process_touches_nobody_else(
    one: Driver, act: Callable[[], Any], words: str
) -> None:
    one.pool.start("other", prepare(one, Setup(dict)), {})
    one.until_a(ZygoteReady)
    one.pool.spawn(2, zygote="other")
    one.until_a(ExecutorReady)
    one.pool.start("lib", prepare(one, Setup(act)), {})
    died = the(ZygoteDied, one.until_a(ZygoteDied))
    assert died.zygote == "lib"
    assert words in died.cause
    assert one.call(1, lambda: 1) == one.call(2, lambda: 1) == 1


def test_a_set_up_that_does_not_end_is_ended_and_where_it_was_is_told(driver: Driver) -> None:
    def wait_for_ever() -> None:
        import subprocess

        subprocess.run(["sleep", "600"], check=False)

    driver.pool.start("lib", prepare(driver, Setup(wait_for_ever), limit_s=0.2), {})
    died = the(ZygoteDied, driver.until_a(ZygoteDied))
    assert "its set-up did not end within 0.2 s" in died.cause
    assert "wait_for_ever" in died.cause


def test_a_zygote_that_is_killed_takes_its_own_executors_only(one: Driver) -> None:
    one.pool.start("lib", prepare(one, Setup(lambda: {"pid": os.getpid()})), {})
    one.until_a(ZygoteReady)
    one.pool.spawn(2, zygote="lib")
    one.until_a(ExecutorReady)
    os.kill(one.call(2, lambda: library.load_variable("pid")), signal.SIGKILL)
    events = one.until_a(ZygoteDied)
    assert the(ExecutorDied, events).executor == 2
    assert the(ZygoteDied, events).zygote == "lib"
    assert one.call(1, lambda: 1) == 1


def test_a_zygote_that_is_ended_is_gone_without_a_word_and_can_be_started_again(one: Driver) -> None:
    for round_ in (2, 3):
        one.pool.start("lib", prepare(one, Setup(lambda: {"pid": os.getpid()})), {})
        one.until_a(ZygoteReady)
        one.pool.spawn(round_, zygote="lib")
        one.until_a(ExecutorReady)
        pid = one.call(round_, lambda: library.load_variable("pid"))
        one.pool.end("lib")
        events = one.until(lambda events: any(isinstance(event, ExecutorDied) for event in events))
        assert the(ExecutorDied, events).killed_by_us
        assert gone(pid)
        # It is not this process that is gone.
        assert one.ours.is_dir()
    assert one.call(1, lambda: 1) == 1


def test_an_agent_that_is_killed_during_a_set_up_leaves_nothing(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)

    def set_up(path: str) -> None:
        import subprocess

        with subprocess.Popen(["sleep", "600"]) as child:
            with open(path, "w") as file:
                file.write(f"{os.getpid()} {child.pid}")
            child.wait()

    (tmp_path / "setup").write_bytes(dump_setup(Setup(set_up, (str(begun),))))
    script = (
        "import sys, time\n"
        "from graphvine.worker.pool import Pool\n"
        "from graphvine.worker.zygote import Prepare\n"
        "base = sys.argv[1]\n"
        "pool = Pool(base, base)\n"
        "pool.start('lib', Prepare(base + '/setup', '', [], base, 600.0), {})\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as agent:
        pids = [int(word) for word in read_all(str(begun)).split()]
        agent.kill()
    assert all(gone(pid) for pid in pids)


# -- calls in a child ---------------------------------------------------------------------------------------


def forked(driver: Driver, function: Callable[..., Any], *arguments: Any) -> TaskResult:
    """One call in a child of executor 1."""
    blob = cloudpickle.dumps([(library.call_forked, (function, arguments, {}), ())])
    (result,) = driver.run(1, driver.packet(None, blob=blob, inputs=[[]]))  # type: ignore[arg-type]
    return result


def test_a_forked_call_leaves_no_trace_in_its_executor(one: Driver) -> None:
    def mark() -> int:
        sys.gvt_mark = True  # type: ignore[attr-defined]
        return os.getpid()

    result = forked(one, mark)
    assert pickle.loads(result.value or b"") != one.call(1, os.getpid)
    assert not one.call(1, lambda: hasattr(sys, "gvt_mark"))
    assert result.duration_s > 0


def test_the_result_of_a_forked_call_is_stored_like_any_other(one: Driver) -> None:
    result = forked(one, bytes, 50_000)
    assert result.value is None
    path = one.store / str(result.task)
    assert path.stat().st_size == result.size
    assert values.loads_file(str(path)) == bytes(50_000)


def test_a_forked_call_that_raises_or_cannot_be_carried_is_told_as_ever(one: Driver) -> None:
    def fail() -> None:
        raise ValueError("mine")

    result = forked(one, fail)
    assert result.kind == "raised"
    assert str(pickle.loads(result.error)) == "mine"
    assert forked(one, lambda: (x for x in ())).kind == "unpicklable"


def test_a_forked_call_that_crashes_is_its_own_failure_only(one: Driver) -> None:
    pid = one.call(1, os.getpid)

    def crash() -> None:
        print("about to crash", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGSEGV)

    result = forked(one, crash)
    assert result.kind == "killed"
    assert "SIGSEGV" in result.text
    assert "about to crash" in result.text
    assert "could not" not in result.text
    assert forked(one, lambda: os._exit(5)).text.startswith("exited with code 5")
    assert one.call(1, os.getpid) == pid


def test_a_forked_call_dies_with_its_executor(one: Driver, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)

    def wait(path: str) -> None:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)

    blob = cloudpickle.dumps([(library.call_forked, (wait, (str(begun),), {}), ())])
    assert one.pool.send(1, one.packet(None, blob=blob, inputs=[[]]))  # type: ignore[arg-type]
    child = int(read_all(str(begun)))
    one.pool.kill(1)
    one.until_a(ExecutorDied)
    assert gone(child)


# -- dying ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: os._exit(7), "exited with code 7"),
        (lambda: os.kill(os.getpid(), 9), "killed by SIGKILL (signal 9)"),
        (lambda: __import__("ctypes").string_at(0), "killed by SIGSEGV (signal 11)"),
        (lambda: os.abort(), "killed by SIGABRT (signal 6)"),
    ],
)
def test_a_death_names_its_task_and_its_cause(one: Driver, act: Callable[[], None], words: str) -> None:
    def told() -> None:
        print("said before the end")
        act()

    packet = one.packet(lambda: 1, told, lambda: 3)
    one.pool.send(1, packet)
    died = the(ExecutorDied, one.until_a(ExecutorDied))
    assert died.cause.startswith(words)
    assert "MB" in died.cause
    assert "said before the end" in died.cause
    assert (died.task, died.packet) == (packet.tasks[1].task, packet.number)
    assert not died.killed_by_us
    assert not one.pool.send(1, packet)
    assert one.pool.take_back(1) == []


def test_results_written_before_a_death_come_before_it(one: Driver) -> None:
    def slow() -> str:
        time.sleep(0.02)
        return "done"

    pid = one.call(1, os.getpid)
    for task in (slow, slow, lambda: os._exit(1)):
        one.pool.send(1, one.packet(task))
    assert gone(pid)
    events = one.until_a(ExecutorDied)
    assert [result.task for result in results(events)] == [1, 2]
    assert isinstance(events[-1], ExecutorDied)
    assert events[-1].task == 3


def test_one_that_dies_between_packets_blames_nobody(one: Driver) -> None:
    pid = one.call(1, os.getpid)
    os.kill(pid, signal.SIGKILL)
    died = the(ExecutorDied, one.until_a(ExecutorDied))
    assert (died.task, died.packet) == (None, None)


def test_a_kill_takes_the_process_group_and_is_called_ours(one: Driver) -> None:
    def spawn_and_sleep(path: str) -> None:
        child = subprocess.Popen(["sleep", "600"])
        with open(path, "w") as file:
            file.write(f"{child.pid}\n")
        time.sleep(600)

    path = one.directory / "child"
    one.pool.send(1, one.packet(spawn_and_sleep, inputs=[[pickle.dumps(str(path))]]))
    while not (path.exists() and path.read_text().endswith("\n")):
        time.sleep(0.01)
    one.pool.kill(1)
    died = the(ExecutorDied, one.until_a(ExecutorDied))
    assert died.killed_by_us
    assert died.task == 0
    assert gone(int(path.read_text()))


def test_one_killed_before_it_was_forked_dies(driver: Driver) -> None:
    driver.pool.spawn(1)
    driver.pool.kill(1)
    driver.pool.kill(99)
    died = the(ExecutorDied, driver.until_a(ExecutorDied))
    assert died.killed_by_us
    assert died.task is None


def test_packets_that_were_not_read_can_be_taken_back_and_run_elsewhere(one: Driver) -> None:
    gate = one.directory / "gate"
    os.mkfifo(gate)

    first = one.packet(read_all, inputs=[[pickle.dumps(str(gate))]])
    one.pool.send(1, first)
    with open(gate, "w") as opened:
        # It has begun now.
        second = one.packet(lambda: 2)
        huge = one.packet(len, inputs=[[pickle.dumps(bytes(200_000))]])
        one.pool.send(1, second)
        one.pool.send(1, huge)
        assert one.pool.take_back(1) == [second.number, huge.number]
        assert one.pool.take_back(1) == []
        assert list((one.directory / "scratch").iterdir()) == []
        opened.write("open")
    (result,) = results(one.until(finished(first.number)))
    assert pickle.loads(result.value or b"") == "open"
    one.pool.spawn(2)
    one.until_a(ExecutorReady)
    assert len(one.run(2, second)) == 1


def test_a_full_inbox_is_said_so(one: Driver) -> None:
    gate = one.directory / "gate"
    os.mkfifo(gate)
    one.pool.send(1, one.packet(read_all, inputs=[[pickle.dumps(str(gate))]]))
    with open(gate, "w"):
        sent = []
        while one.pool.send(1, packet := one.packet(len, inputs=[[pickle.dumps(bytes(60_000))]])):
            sent.append(packet.number)
            assert len(sent) < 10_000
    events = one.until(finished(sent[-1]))
    assert len(results(events)) == len(sent) + 1
    assert one.call(1, lambda: "still here") == "still here"


def test_an_unfinished_result_file_of_a_dead_executor_is_removed(one: Driver) -> None:
    def make() -> Any:
        from graphvine.protocol import values

        write = values.write

        def partly(descriptor: int, pieces: Any) -> int:
            write(descriptor, [b"part"])
            os._exit(3)

        values.write = partly
        return bytes(10**6)

    one.pool.send(1, one.packet(make))
    assert the(ExecutorDied, one.until_a(ExecutorDied)).task == 0
    assert list(one.store.iterdir()) == []


def test_a_killed_zygote_takes_its_executors_and_is_replaced(driver: Driver) -> None:
    for executor in (1, 2):
        driver.pool.spawn(executor)
    driver.until_a(ExecutorReady, 2)
    zygote = driver.call(1, os.getppid)
    pids = [driver.call(1, os.getpid), driver.call(2, os.getpid)]
    gate = driver.directory / "gate"
    os.mkfifo(gate)
    driver.pool.send(2, driver.packet(read_all, inputs=[[pickle.dumps(str(gate))]]))
    with open(gate, "w"):
        os.kill(zygote, signal.SIGKILL)
        events = driver.until_a(ZygoteDied)
    assert isinstance(events[-1], ZygoteDied)
    died = {event.executor: event for event in events if isinstance(event, ExecutorDied)}
    assert died[1].task is None
    assert died[2].task is not None
    assert "zygote" in died[1].cause
    assert "SIGKILL" in died[1].cause
    assert all(gone(pid) for pid in pids)
    driver.pool.spawn(3)
    driver.until_a(ExecutorReady)
    assert driver.call(3, lambda: 1) == 1


def test_an_agent_killed_with_minus_nine_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from graphvine.worker.pool import Pool, ExecutorReady\n"
        "from graphvine.worker.store import Store\n"
        "base = sys.argv[1]\n"
        "store = Store(base + '/m', base + '/d', 10**6)\n"
        "store.put_bytes(1, b'x')\n"
        "pool = Pool(store.scratch, base, watched=store.directories)\n"
        "for executor in (1, 2): pool.spawn(executor)\n"
        "pids = []\n"
        "while len(pids) < 2:\n"
        "    pids += [e.pid for e in pool.on_readable(0) if isinstance(e, ExecutorReady)]\n"
        "    time.sleep(0.01)\n"
        "print(*pids, pool._zygotes[''].process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    (tmp_path / "m").mkdir()
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        pids = [int(word) for word in agent.stdout.readline().split()]
        assert len(pids) == 3
        assert len(list((tmp_path / "m").iterdir())) == 1
        agent.kill()
    assert all(gone(pid) for pid in pids)
    assert list((tmp_path / "m").iterdir()) == []
    assert list((tmp_path / "d").iterdir()) == []


def test_children_that_left_their_group_go_with_the_pool(one: Driver) -> None:
    def daemon() -> int:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        child.returncode = 0
        return child.pid

    pid = one.call(1, daemon)
    one.pool.close()
    assert gone(pid)
