"""Graphs through a real manager and a real worker."""

from __future__ import annotations

import operator
import os
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import dask
import pytest
from dask import delayed

from graphvine.manager.gate import Gate
from graphvine.manager.manager import Manager
from graphvine.protocol.errors import ManagerClosedError, RemoteTraceback


def inc(x: int) -> int:
    return x + 1


def tree(width: int) -> dict[Any, Any]:
    graph: dict[Any, Any] = {("x", 0, i): (inc, i) for i in range(width)}
    level, keys = 0, list(graph)
    while len(keys) > 1:
        level += 1
        groups = [keys[i : i + 16] for i in range(0, len(keys), 16)]
        graph.update({("x", level, i): (sum, group) for i, group in enumerate(groups)})
        keys = [("x", level, i) for i in range(len(groups))]
    graph["top"] = keys[0]
    return graph


def test_a_tree_of_a_thousand_sums(manager: Manager) -> None:
    assert manager.get(tree(1000), "top") == sum(range(1, 1001))


def test_graphs_one_after_another(manager: Manager) -> None:
    for width in (1, 2, 17, 100):
        assert manager.get(tree(width), "top") == sum(range(1, width + 1))


def test_nested_keys_come_back_in_their_shape(manager: Manager) -> None:
    graph = {"a": 1, "b": (inc, "a"), "c": (operator.add, "a", "b")}
    for keys in ("c", ["a"], ["a", ["b", "c"], []], [["a", "b"], "c"]):
        assert manager.get(graph, keys) == dask.get(graph, keys)


def test_it_runs_in_other_processes(manager: Manager) -> None:
    pids = manager.get(dict.fromkeys(range(10), (os.getpid,)), list(range(10)))
    assert os.getpid() not in pids


def test_graphs_of_several_threads_at_once(manager: Manager) -> None:
    results: dict[int, int] = {}

    def run(width: int) -> None:
        results[width] = manager.get(tree(width), "top")

    threads = [threading.Thread(target=run, args=(width,)) for width in (50, 60, 70)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {width: sum(range(1, width + 1)) for width in (50, 60, 70)}


def test_large_values_pass_between_tasks_and_come_back_writable(manager: Manager) -> None:
    numpy = pytest.importorskip("numpy")
    graph = {("a", i): (numpy.full, 200_000, float(i)) for i in range(8)}
    graph["total"] = (sum, list(graph))
    total = manager.get(graph, "total")
    assert (total == 28.0).all()
    total[0] = 1.0


def test_a_chain_of_ten_thousand(manager: Manager) -> None:
    graph: dict[Any, Any] = {("c", 0): 0, **{("c", i): (inc, ("c", i - 1)) for i in range(1, 10_001)}}
    assert manager.get(graph, ("c", 10_000)) == 10_000


@pytest.mark.slow
def test_a_chain_of_a_hundred_thousand_of_which_the_middle_is_wanted(manager: Manager) -> None:
    count = 100_000
    chain: dict[Any, Any] = {("c", i): (inc, ("c", i - 1)) for i in range(1, count)}
    chain["c", 0] = 0
    assert manager.get(chain, [("c", count - 1), ("c", count // 2)]) == (count - 1, count // 2)


@pytest.mark.slow
def test_a_task_of_a_hundred_thousand_inputs(manager: Manager) -> None:
    count = 100_000
    graph: dict[Any, Any] = {("x", i): (operator.neg, -i) for i in range(count)}
    graph["sum"] = (sum, [("x", i) for i in range(count)])
    assert manager.get(graph, "sum") == count * (count - 1) // 2


def test_dask_collections(manager: Manager) -> None:
    da = pytest.importorskip("dask.array")
    x = da.ones((400, 400), chunks=(100, 100))
    assert (x + x.T).sum().compute(scheduler=manager.get) == 320_000
    with dask.config.set(scheduler=manager.get):
        assert delayed(inc)(delayed(inc)(1)).compute() == 3


def test_the_users_exception_comes_back_as_itself(manager: Manager) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        manager.get({"a": 0, "bad": (operator.truediv, 1, "a"), "c": (inc, "bad")}, "c")
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "bad" in "".join(getattr(caught.value, "__notes__", []))
    assert manager.get(tree(20), "top") == 210


class WordyError(Exception):
    """Cannot be made anew from its ``args``."""

    def __init__(self, what: str, where: int) -> None:
        super().__init__(f"{what} at {where}")
        self.where = where


def raise_wordy() -> None:
    raise WordyError("no beam", 7)


def test_an_exception_with_a_constructor_of_its_own_comes_back_as_itself(manager: Manager) -> None:
    with manager.executor() as executor:
        of_call = executor.submit(raise_wordy).exception()
    with pytest.raises(WordyError, match=r"^no beam at 7") as of_task:
        manager.get({"a": (raise_wordy,)}, "a", progress=False)
    assert isinstance(of_call, WordyError)
    assert of_task.value.where == of_call.where == 7


def test_retries_run_a_task_again(manager: Manager, tmp_path: Path) -> None:
    def fails_twice() -> int:
        tries = tmp_path / "tries"
        with open(tries, "a") as file:
            file.write("x")
        if tries.stat().st_size < 3:
            raise OSError("not yet")
        return 1

    with pytest.raises(OSError, match="not yet"):
        manager.get({"a": (fails_twice,)}, "a")
    (tmp_path / "tries").unlink()
    assert manager.get({"a": (fails_twice,)}, "a", retries=2) == 1


def test_persisted_results_stay_and_are_used(manager: Manager) -> None:
    da = pytest.importorskip("dask.array")
    x = da.arange(1_000_000, chunks=100_000)
    kept = manager.persist(x)
    assert kept.sum().compute(scheduler=manager.get) == 499_999_500_000
    assert kept[:5].compute(scheduler=manager.get).tolist() == [0, 1, 2, 3, 4]


def test_futures(manager: Manager) -> None:
    future = manager.compute(delayed(inc)(1))
    assert future.result(30) == 2
    bad = manager.compute(delayed(operator.truediv)(1, 0))
    assert isinstance(bad.exception(30), ZeroDivisionError)


def test_the_executor(manager: Manager) -> None:
    with manager.executor() as executor:
        first = executor.submit(inc, 1)
        second = executor.submit(operator.add, first, 10)
        assert second.result(30) == 12
        assert list(executor.map(inc, range(100))) == list(range(1, 101))


def test_a_closed_manager_says_so() -> None:
    with Manager(local_workers=1) as made:
        assert made.get({"a": (inc, 1)}, "a") == 2
    with pytest.raises(ManagerClosedError, match="make a new one"):
        made.get({"a": (inc, 1)}, "a")
    made.close()


def test_closing_ends_what_runs(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)

    def wait_for_ever() -> None:
        with open(started, "w") as file:
            file.write("x")
        threading.Event().wait()

    made = Manager(local_workers=1)
    future = made.compute(delayed(wait_for_ever)())
    started.read_text()
    made.close()
    with pytest.raises((ManagerClosedError, CancelledError)):
        future.result(0)


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the frames that the manager sends."""
    lengths: list[int] = []
    send = Gate.send

    def measured(gate: Gate, identity: bytes, frame: bytes) -> bool:
        lengths.append(len(frame))
        return send(gate, identity, frame)

    monkeypatch.setattr(Gate, "send", measured)
    return lengths


def test_a_large_literal_goes_in_pieces(manager: Manager, frames: list[int]) -> None:
    literal = os.urandom(20 * 2**20)
    assert manager.get({"a": (hash, literal), "b": (len, literal)}, "b") == len(literal)
    assert delayed(bytes.count)(literal, b"a").compute(scheduler=manager.get) == literal.count(b"a")
    assert sum(frames) > 2 * len(literal)
    assert max(frames) < 2 * 2**20


def test_two_managers_of_one_name_are_refused(bare_manager: Manager) -> None:
    with pytest.raises(ValueError, match="runs already: choose another name"):
        Manager(name=bare_manager.name)
    assert bare_manager.connection_file.exists()
