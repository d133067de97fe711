"""``get`` and what surrounds it."""

from __future__ import annotations

import gc
import threading
from typing import Any

import dask
import pytest

from graphvine.dask_adapter.client import DaskClient
from graphvine.dask_adapter.get import wait_for
from graphvine.dask_adapter.inprocess import InProcessEngine
from graphvine.protocol.errors import NotPicklableError


def inc(x: int) -> int:
    return x + 1


class Bad(Exception):
    pass


def boom(x: int) -> int:
    raise Bad(f"no {x}")


def test_keys_in_any_shape(client: DaskClient) -> None:
    graph = {"a": (inc, 0), "b": (inc, "a"), ("c", 0): (inc, "b")}
    assert client.get(graph, "b") == 2
    assert client.get(graph, [["a", ["b"]], [], ("c", 0), "a"]) == ((1, (2,)), (), 3, 1)
    assert client.get(graph, []) == ()


def test_the_users_exception(client: DaskClient) -> None:
    with pytest.raises(Bad, match="no 1"):
        client.get({"a": (inc, 0), "b": (boom, "a")}, "b")
    assert client.get({"a": (inc, 0)}, "a") == 1


def test_unknown_options_list_the_known(client: DaskClient) -> None:
    with pytest.raises(TypeError, match=r"unknown option colour; known are resources, retries"):
        client.get({"a": 1}, "a", colour="red")


def test_what_any_dask_scheduler_takes(client: DaskClient) -> None:
    x = dask.delayed(inc)(1)
    assert x.compute(scheduler=client.get, num_workers=4, optimize_graph=False) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resources": {"coers": 1}}, "unknown resource 'coers'; known are cores"),
        ({"resources": {"cores": -1}}, "not negative"),
        ({"resources": {"cores": "two"}}, "should be a finite number"),
        ({"retries": -1}, "retries should not be negative"),
        ({"priority": 1.5}, "priority should be a whole number"),
    ],
)
def test_wrong_options(client: DaskClient, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        client.get({"a": (inc, 1)}, "a", **options)


def test_options_become_the_plans_default(local: InProcessEngine) -> None:
    local.get({"a": (inc, 1)}, "a", resources={"cores": 2, "memory": 500}, retries=3, priority=-1)
    default = local.plans[-1].default_options
    assert (default.request.cores, default.request.memory_mb) == (2, 500)
    assert (default.retries, default.priority) == (3, -1)


def test_an_argument_that_cannot_be_pickled(client: DaskClient) -> None:
    lock = threading.Lock()
    graph = {"a": (inc, 1), "wrong": (inc, [1, {"lock": lock}]), "b": (sum, ["a", "wrong"])}
    with pytest.raises(NotPicklableError, match=r"task 'wrong' .* type lock"):
        client.get(graph, "b")


def test_a_function_that_cannot_be_pickled(client: DaskClient) -> None:
    lock = threading.Lock()

    def locked(x: int) -> int:
        with lock:
            return x

    with pytest.raises(NotPicklableError, match=r"task 'b' .*the function .*locked"):
        client.get({"a": (inc, 1), "b": (locked, 1), "c": (sum, ["a", "b"])}, "c")


def test_lambdas_and_closures(client: DaskClient) -> None:
    offset = 5
    graph = {f"x-{i}": (lambda x: x + offset, i) for i in range(10)}
    assert client.get(graph, list(graph)) == tuple(range(5, 15))


def test_the_garbage_collector_is_left_as_it_was(client: DaskClient) -> None:
    assert gc.isenabled()
    client.get({"a": (inc, 1)}, "a")
    assert gc.isenabled()
    gc.disable()
    try:
        client.get({"a": (inc, 1)}, "a")
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(KeyError):
        client.get({}, "a")
    assert gc.isenabled()


class Interrupted:
    """A run whose waiting user presses Ctrl-C."""

    cancelled = False

    def result(self, timeout: float | None = None) -> list[Any]:
        raise KeyboardInterrupt

    def cancel(self) -> bool:
        self.cancelled = True
        return True


def test_interrupting_cancels() -> None:
    run = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        wait_for(run)  # type: ignore[arg-type]
    assert run.cancelled


def test_as_the_default_scheduler(client: DaskClient) -> None:
    with dask.config.set(scheduler=client.get):
        assert dask.delayed(inc)(1).compute() == 2
        assert dask.compute(dask.delayed(inc)(1), 5, [dask.delayed(inc)(2)]) == (2, 5, [3])
