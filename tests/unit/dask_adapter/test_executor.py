"""The Executor for plain functions."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import CancelledError, Executor, as_completed, wait
from pathlib import Path
from typing import Any

import pytest

from graphvine.dask_adapter.client import DaskClient
from graphvine.dask_adapter.inprocess import InProcessEngine
from graphvine.protocol.errors import NotPicklableError, RemoteTraceback

TIMEOUT_S = 60


def inc(x: int) -> int:
    return x + 1


def add(*args: int, more: int = 0) -> int:
    return sum(args) + more


def show(value: Any) -> Any:
    return value


class Bad(Exception):
    pass


def boom(x: int) -> int:
    raise Bad(f"no {x}")


def make_lock() -> Any:
    return threading.Lock()


def test_submit_and_map(client: DaskClient) -> None:
    with client.executor() as executor:
        assert isinstance(executor, Executor)
        future = executor.submit(add, 1, 2, more=3)
        assert future.result(TIMEOUT_S) == 6
        assert list(executor.map(add, range(5), range(5))) == [0, 2, 4, 6, 8]
        assert list(executor.map(inc, range(3), chunksize=2, timeout=TIMEOUT_S)) == [1, 2, 3]


def test_thousands_are_few_plans(local: InProcessEngine) -> None:
    with local.executor() as executor:
        futures = [executor.submit(inc, n) for n in range(5000)]
        assert not wait(futures, TIMEOUT_S).not_done
        assert sum(future.result() for future in futures) == sum(range(1, 5001))
    assert len(local.plans) < 1000


def test_lambdas_and_closures(client: DaskClient) -> None:
    offset = 10
    with client.executor() as executor:
        assert executor.submit(lambda x: x + offset, 5).result(TIMEOUT_S) == 15


def test_futures_as_arguments(client: DaskClient) -> None:
    with client.executor() as executor:
        a = executor.submit(inc, 0)
        b = executor.submit(add, a, a, more=a)
        c = executor.submit(show, {"list": [a, (b,)], "plain": "x", b: 5})
        assert c.result(TIMEOUT_S) == {"list": [1, (3,)], "plain": "x", 3: 5}
        assert b.result(TIMEOUT_S) == 3
        # Of an earlier plan, and done.
        assert executor.submit(add, a, b).result(TIMEOUT_S) == 4


def test_a_future_does_not_pass_through_here(local: InProcessEngine) -> None:
    with local.executor() as executor:
        large = executor.submit(bytes, 1_000_000)
        assert len(large.result(TIMEOUT_S)) == 1_000_000
        assert executor.submit(len, large).result(TIMEOUT_S) == 1_000_000
    assert local.plans[-1].externals
    assert sum(map(len, local.plans[-1].blobs)) < 10_000


def test_chains_of_futures(client: DaskClient) -> None:
    with client.executor() as executor:
        future = executor.submit(inc, 0)
        for _ in range(300):
            future = executor.submit(inc, future)
        assert future.result(TIMEOUT_S) == 301


def test_exceptions_are_the_users(client: DaskClient) -> None:
    with client.executor() as executor:
        future = executor.submit(boom, 1)
        other = executor.submit(inc, 1)
        error = future.exception(TIMEOUT_S)
        assert type(error) is Bad
        assert str(error) == "no 1"
        assert isinstance(error.__cause__, RemoteTraceback)
        assert "in boom" in str(error.__cause__)
        assert "boom" in error.__notes__[0]
        assert other.result(TIMEOUT_S) == 2


def test_what_builds_on_a_failure_fails_alike(client: DaskClient) -> None:
    with client.executor() as executor:
        first = executor.submit(boom, 1)
        second = executor.submit(add, 1, first)
        third = executor.submit(show, [second])
        assert type(third.exception(TIMEOUT_S)) is Bad
        # Also when it is known before.
        assert type(executor.submit(inc, first).exception(TIMEOUT_S)) is Bad
        assert executor.submit(inc, 1).result(TIMEOUT_S) == 2


@pytest.mark.parametrize("argument", [threading.Lock(), lambda: threading.Lock()])
def test_what_cannot_be_pickled_fails_alone(client: DaskClient, argument: Any) -> None:
    with client.executor() as executor:
        futures = [executor.submit(inc, n) for n in range(3)]
        wrong = executor.submit(show, argument if not callable(argument) else argument())
        futures += [executor.submit(inc, n) for n in range(3)]
        assert isinstance(wrong.exception(TIMEOUT_S), NotPicklableError)
        assert [future.result(TIMEOUT_S) for future in futures] == [1, 2, 3, 1, 2, 3]


def test_a_call_that_fails_for_good_fails_alone(local: InProcessEngine) -> None:
    with local.executor() as executor:
        before = [executor.submit(inc, n) for n in range(20)]
        wrong = executor.submit(make_lock)
        built_on_it = executor.submit(show, wrong)
        after = [executor.submit(inc, future) for future in before]
        assert [future.result(TIMEOUT_S) for future in after] == list(range(2, 22))
        assert isinstance(wrong.exception(TIMEOUT_S), NotPicklableError)
        assert isinstance(built_on_it.exception(TIMEOUT_S), NotPicklableError)
    keys = [key for plan in local.plans for key in plan.keys]
    assert len(keys) == len(set(keys)), "no call was run twice"


def test_retries(client: DaskClient, tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    def flaky() -> int:
        with open(marks, "a") as file:
            file.write("x")
        if os.path.getsize(marks) < 3:
            raise Bad("not yet")
        return os.path.getsize(marks)

    with client.executor(retries=2) as executor:
        assert executor.submit(flaky).result(TIMEOUT_S) == 3


def test_shutdown(client: DaskClient) -> None:
    executor = client.executor()
    future = executor.submit(inc, 1)
    executor.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(inc, 1)
    executor.shutdown()


def test_cancelled_before_it_began(local: InProcessEngine) -> None:
    executor = local.executor()
    with executor._condition:  # the submitting thread has to wait
        future = executor.submit(inc, 1)
        dependent = executor.submit(inc, future)
        assert future.cancel()
    with pytest.raises(CancelledError):
        dependent.result(TIMEOUT_S)
    assert future.cancelled()
    executor.shutdown()


def test_as_completed(client: DaskClient) -> None:
    with client.executor() as executor:
        futures = [executor.submit(inc, n) for n in range(10)]
        assert sorted(future.result() for future in as_completed(futures, TIMEOUT_S)) == list(range(1, 11))


def test_files_are_released_with_their_futures(local: InProcessEngine) -> None:
    with local.executor() as executor:
        futures = [executor.submit(inc, n) for n in range(10)]
        wait(futures, TIMEOUT_S)
        assert len(local.files) == 10
    gc.disable()
    try:
        futures.clear()
        del executor
    finally:
        gc.enable()
    gc.collect()
    assert local.files == {}


def test_no_threads_stay(local: InProcessEngine) -> None:
    executor = local.executor()
    executor.submit(inc, 1).result(TIMEOUT_S)
    threads = list(executor._threads)
    local.close()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_is_raised_too(client: DaskClient, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind("enough")

    with client.executor() as executor:
        with pytest.raises(kind, match="enough"):
            executor.submit(leave).result(TIMEOUT_S)
        assert executor.submit(inc, 1).result(TIMEOUT_S) == 2


def when_there(path: str) -> bool:
    while not os.path.exists(path):
        os.sched_yield()
    return True


def test_a_callback_that_leaves_does_not_stop_the_others(client: DaskClient, tmp_path: Path) -> None:
    def leave(_: object) -> None:
        raise SystemExit

    with client.executor() as executor:
        first = executor.submit(when_there, str(tmp_path / "go"))
        first.add_done_callback(leave)
        (tmp_path / "go").touch()
        assert first.result(TIMEOUT_S)
        assert executor.submit(inc, 2).result(TIMEOUT_S) == 3
