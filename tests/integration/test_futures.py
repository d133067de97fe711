"""``FuturesExecutor``: TaskVine scripts, and what the standard library promises of an executor."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

import pytest

import graphvine as vine


def my_sum(x: Any, y: Any, negate: bool = False) -> Any:
    return -(x + y) if negate else x + y


def fail(text: str = "Expected failure.") -> None:
    raise LookupError(text)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def read(pipe: Path) -> str:
    """Waits until somebody writes to it."""
    return pipe.read_text()


@pytest.fixture
def executor() -> Iterator[vine.FuturesExecutor]:
    made = vine.FuturesExecutor(opts={"cores": 2})
    yield made
    made.shutdown(cancel_futures=True)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


# -- scripts ---------------------------------------------------------------------------------------------


def test_tasks_with_futures_as_arguments(executor: vine.FuturesExecutor) -> None:
    t1 = executor.future_task(my_sum, 7, 4)
    t1.set_cores(1)
    a = executor.submit(t1)
    t2 = executor.future_task(my_sum, a, y=a)
    b = executor.submit(t2)
    t3 = executor.future_task(my_sum, [a], [b])
    c = executor.submit(t3)
    assert t3.output() == c.result() == [11, 22]
    assert c.exception() is None
    assert executor.task_table == [t1, t2, t3]
    assert t1.resources_requested.cores == 1
    assert executor.manager.empty()
    assert executor.manager.wait(0) is None


def test_function_calls_and_plain_functions_with_each_others_futures(executor: vine.FuturesExecutor) -> None:
    executor.install_library(
        executor.create_library_from_functions("lib", my_sum, hoisting_modules=None, add_env=False)
    )
    a = executor.submit(executor.future_funcall("lib", "my_sum", 7, 4))
    b = executor.submit(my_sum, a, 1)
    c = executor.submit(my_sum, b, executor.submit(my_sum, 1, 2))
    d = executor.submit(executor.future_funcall("lib", "my_sum", {"a": [c]}["a"][0], b, negate=True))
    e = executor.submit(my_sum, (d,), (a,))
    assert [one.result() for one in (a, b, c, d, e)] == [11, 12, 15, -27, (-27, 11)]


def test_map_reduce_and_allpairs(executor: vine.FuturesExecutor) -> None:
    numbers = list(range(101))
    table = executor.allpairs(lambda x, y: x * y, range(3), numbers, chunk_size=11).result()
    assert table == [[row * number for number in numbers] for row in range(3)]
    assert executor.map(lambda x: 2 * x, numbers, chunk_size=13).result() == [2 * n for n in numbers]
    for options in ({"fn_arity": 2}, {"fn_arity": 25}, {"fn_arity": 1000}, {"fn_arity": 2, "chunk_size": 50}):
        assert executor.reduce(max, numbers, **options).result() == 100
    assert executor.reduce(sum, numbers, fn_arity=11, chunk_size=13).result() == sum(numbers)
    assert executor.reduce(my_sum, ["a", "b", "c"]).result() == "abc"
    assert executor.allpairs(my_sum, [], [1]).result() == []


def test_the_same_with_a_library(executor: vine.FuturesExecutor) -> None:
    executor.install_library(executor.create_library_from_functions("lib", my_sum, sum_of))
    assert executor.map("my_sum", [1, 2], [3, 4], library_name="lib").result() == [4, 6]
    assert executor.allpairs("my_sum", [1, 2], [3, 4], library_name="lib").result() == [[4, 5], [5, 6]]
    assert executor.reduce("sum_of", range(10), fn_arity=3, library_name="lib").result() == 45
    manager = executor.manager
    assert manager.remote_map("sum_of", [[1, 2], [3, 4]], "lib") == [3, 7]
    assert manager.remote_pair("sum_of", [1, 2], [3], "lib") == [4, 5]
    wrong = manager.remote_map("sum_of", [1, [2]], "lib")
    assert isinstance(wrong[0], TypeError)
    assert wrong[1] == 2
    assert manager.remote_tree_reduce("sum_of", range(10), "lib", chunk_size=3) == 45
    assert manager.remote_tree_reduce("sum_of", range(10), "lib", "items") == 45


def sum_of(items: list[int]) -> int:
    return sum(items)


def test_chunks_under_a_name(executor: vine.FuturesExecutor) -> None:
    def doubled(items: list[int]) -> list[int]:
        return [2 * item for item in items]

    executor.install_library(executor.create_library_from_functions("lib", doubled))
    assert executor.manager.remote_map("doubled", range(5), "lib", "items", 2) == [0, 2, 4, 6, 8]


def test_a_library_that_is_not_there(executor: vine.FuturesExecutor) -> None:
    future = executor.submit(executor.future_funcall("nothing", "my_sum", 1, 2))
    with pytest.raises(Exception, match="library nothing is not installed"):
        future.result()


def test_a_manager_of_ones_own_stays() -> None:
    with vine.Manager(local_workers=1) as manager:
        with vine.FuturesExecutor(manager=manager) as executor:
            future = executor.submit(executor.future_task(my_sum, 1, 2))
            task = vine.PythonTask(my_sum, 3, 4)
            manager.submit(task)
        assert future.result() == 3
        # ``wait`` returns what was submitted to the manager, and nothing else.
        assert manager.wait(30) is task
        assert task.output == 7
        assert manager.wait(0) is None
        assert not manager.closed
    assert executor.port == manager.port


def test_errors(executor: vine.FuturesExecutor) -> None:
    task, plain = executor.submit(executor.future_task(fail)), executor.submit(fail)
    for future in (task, plain):
        with pytest.raises(LookupError, match=r"Expected failure\."):
            future.result()
        assert isinstance(future.exception().__cause__, vine.RemoteTraceback)
        # What builds on it fails in the same way.
        for further in (
            executor.submit(my_sum, future, 1),
            executor.submit(executor.future_task(my_sum, future, 1)),
        ):
            assert isinstance(further.exception(), LookupError)
    killed = executor.submit(executor.future_task(die))
    assert isinstance(killed.exception(), vine.TaskKilledError)
    unpicklable = executor.submit(executor.future_task(my_sum, threading.Lock(), 1))
    assert isinstance(unpicklable.exception(), vine.NotPicklableError)


def test_cancelling(executor: vine.FuturesExecutor, pipe: Path) -> None:
    running = executor.submit(executor.future_task(read, pipe))
    waiting = executor.submit(executor.future_task(my_sum, running, "!"))
    plain = executor.submit(my_sum, running, "!")
    assert not running.done()
    assert running.cancel()
    assert running.cancelled()
    assert not running.running()
    for future in (running, waiting, plain):
        with pytest.raises(CancelledError):
            future.result(timeout=30)
    # The worker is free again.
    assert executor.submit(executor.future_task(my_sum, 1, 2)).result() == 3
    done = executor.submit(my_sum, 1, 2)
    done.result()
    assert not done.cancel()


def test_a_task_is_submitted_once(executor: vine.FuturesExecutor) -> None:
    task = executor.future_task(my_sum, 1, 2)
    assert executor.submit(task).result() == 3
    with pytest.raises(ValueError, match="submitted before"):
        executor.submit(task)
    assert executor.submit(task.clone()).result() == 3


def test_closing_the_manager_ends_the_waiting(pipe: Path) -> None:
    executor = vine.FuturesExecutor(opts={"cores": 1})
    task = executor.submit(executor.future_task(read, pipe))
    executor.manager.close()
    with pytest.raises(vine.ManagerClosedError):
        task.result(timeout=30)
    executor.shutdown()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"opts": {"coars": 1}}, ValueError, "no option 'coars' for workers"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        vine.FuturesExecutor(**options)


def test_a_name_and_a_port(state: Path) -> None:
    executor = vine.FuturesExecutor(port=[20000, 40000], manager_name="named", factory=False)
    assert executor.manager.name == "named"
    assert 20000 <= executor.port <= 40000
    executor.set("min-workers", 2)
    assert executor.opts == {"min-workers": 2}
    executor.shutdown()


# -- what the standard library promises, of each way to submit -------------------------------------------

KINDS = ("function", "task", "call")


class Ways:
    """Submits the same in each way."""

    def __init__(self, executor: vine.FuturesExecutor, kind: str) -> None:
        self.executor = executor
        self._kind = kind
        if kind == "call":
            executor.install_library(executor.create_library_from_functions("lib", my_sum, fail, read))

    def submit(self, function: Any, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._kind == "function":
            return self.executor.submit(function, *args, **kwargs)
        if self._kind == "task":
            task = self.executor.future_task(function, *args, **kwargs)
            task.set_cores(1)  # or it has the worker to itself
            return self.executor.submit(task)
        return self.executor.submit(self.executor.future_funcall("lib", function, *args, **kwargs))


@pytest.fixture(params=KINDS)
def ways(request: pytest.FixtureRequest, executor: vine.FuturesExecutor) -> Ways:
    return Ways(executor, request.param)


def test_it_is_an_executor_of_futures(ways: Ways) -> None:
    assert isinstance(ways.executor, Executor)
    future = ways.submit(my_sum, 1, y=2)
    assert isinstance(future, Future)
    assert future.result(timeout=60) == 3
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert future.exception() is None


def test_timeouts_wait_and_as_completed(ways: Ways, pipe: Path) -> None:
    slow, quick = ways.submit(read, pipe), ways.submit(my_sum, 1, 2)
    assert next(concurrent.futures.as_completed([slow, quick], timeout=60)) is quick
    done, left = vine.futures.wait([slow, quick], return_when=vine.futures.FIRST_COMPLETED)
    assert (done, left) == ({quick}, {slow})
    with pytest.raises(concurrent.futures.TimeoutError):
        slow.result(timeout=0)
    with pytest.raises(concurrent.futures.TimeoutError):
        slow.exception(timeout=0)
    pipe.write_text("read")
    assert set(vine.futures.as_completed([slow, quick], timeout=60)) == {slow, quick}
    assert slow.result() == "read"


def test_callbacks(ways: Ways) -> None:
    heard = []
    called = threading.Event()
    future = ways.submit(my_sum, 1, 2)
    future.add_done_callback(lambda one: (heard.append(one), called.set()))
    assert called.wait(60)
    future.add_done_callback(heard.append)
    assert heard == [future, future]


def test_first_exception(ways: Ways, pipe: Path) -> None:
    slow, wrong = ways.submit(read, pipe), ways.submit(fail)
    done, left = concurrent.futures.wait([slow, wrong], 60, concurrent.futures.FIRST_EXCEPTION)
    assert (done, left) == ({wrong}, {slow})
    assert slow.cancel()


def test_shutdown_runs_what_was_submitted(ways: Ways) -> None:
    futures = [ways.submit(my_sum, number, 1) for number in range(20)]
    ways.executor.shutdown(wait=True)
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == list(range(1, 21))
    with pytest.raises(RuntimeError, match="after shutdown"):
        ways.submit(my_sum, 1, 2)


def test_shutdown_that_cancels(ways: Ways, pipe: Path) -> None:
    futures = [ways.submit(read, pipe) for _ in range(10)]
    ways.executor.shutdown(wait=True, cancel_futures=True)
    assert all(future.cancelled() for future in futures)


def test_who_interrupts_the_block_waits_for_none(ways: Ways, pipe: Path) -> None:
    def interrupted() -> None:
        with ways.executor:
            futures.extend(ways.submit(read, pipe) for _ in range(3))
            raise KeyboardInterrupt

    futures: list[Future[Any]] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(future.cancelled() for future in futures)


def test_a_manager_s_executor_that_is_interrupted_waits_for_none(pipe: Path) -> None:
    def interrupted() -> None:
        with manager.executor() as executor:
            futures.append(executor.submit(read, pipe))
            raise KeyboardInterrupt

    futures: list[Future[Any]] = []
    with vine.Manager(local_workers=1) as manager:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert futures[0].cancelled()


def test_map_as_the_standard_library_has_it(executor: vine.FuturesExecutor, pipe: Path) -> None:
    found = executor.map(my_sum, [1, 2, 3], [4, 5])
    assert next(found) == 5
    assert list(found) == [7]
    assert list(executor.map(my_sum, range(10), range(10), chunksize=3)) == list(range(0, 20, 2))
    assert list(executor.map(str, [])) == []
    with pytest.raises(ValueError, match="chunk_size=0"):
        executor.map(str, [1], chunksize=0)
    with pytest.raises(concurrent.futures.TimeoutError):
        list(executor.map(read, [pipe], timeout=0))
    several = executor.map(fail, ["first", "second"])
    with pytest.raises(LookupError, match="first"):
        next(several)


def test_shutdown_without_waiting() -> None:
    executor = vine.FuturesExecutor(opts={"cores": 1})
    future = executor.submit(executor.future_task(my_sum, 1, 2))
    executor.shutdown(wait=False)
    assert future.result(timeout=60) == 3


def test_what_a_long_chain_builds_on_fails(executor: vine.FuturesExecutor, pipe: Path) -> None:
    root = executor.submit(executor.future_task(read, pipe))
    chain = [root]
    for _ in range(2000):
        chain.append(executor.submit(executor.future_task(my_sum, chain[-1], "!")))
    root.cancel()
    assert all(isinstance(error_of(future), CancelledError) for future in chain)


def error_of(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception(timeout=60)
    except CancelledError as error:
        return error
