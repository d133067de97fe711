"""One short run of everything a user touches first. On every Python version, and from the wheel."""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
from pathlib import Path

import dask
import pytest

import graphvine as gv
from graphvine.manager.settings import Settings


@pytest.fixture
def manager():
    with gv.Manager(local_workers=2) as manager:
        yield manager


def double(x: int) -> int:
    return 2 * x


def test_get(manager):
    graph = {"a": 1, "b": (double, "a"), "c": (sum, ["a", "b"])}
    assert manager.get(graph, ["c", ["b"]]) == (3, (2,))


def test_delayed_functions_of_this_file_and_closures(manager):
    offset = 5
    parts = [dask.delayed(double)(i) for i in range(20)]
    total = dask.delayed(lambda values: sum(values) + offset)(parts)
    assert total.compute(scheduler=manager.get) == 2 * sum(range(20)) + 5


def test_a_large_result_comes_back_whole(manager):
    value = dask.delayed(lambda: bytes(range(256)) * 40_000)().compute(scheduler=manager.get)
    assert value == bytes(range(256)) * 40_000


def test_work_is_done_elsewhere(manager):
    assert dask.delayed(os.getpid)().compute(scheduler=manager.get) != os.getpid()


def test_the_users_exception_comes_back(manager):
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        dask.delayed(lambda: 1 / 0)().compute(scheduler=manager.get)
    assert manager.get({"x": (double, 4)}, "x") == 8


def test_persist_compute_and_executor(manager):
    kept = manager.persist(dask.delayed(double)(21))
    assert (kept + 0).compute(scheduler=manager.get) == 42
    assert manager.compute(dask.delayed(double)(4)).result(timeout=60) == 8
    with manager.executor() as executor:
        assert list(executor.map(double, range(5))) == [0, 2, 4, 6, 8]


def test_progress_is_silent_here_unless_asked(manager, capsys):
    graph = {"x": (double, 4)}
    manager.get(graph, "x")
    assert capsys.readouterr().err == ""
    manager.get(graph, "x", progress=True)
    assert "100%" in capsys.readouterr().err


def test_a_script_without_a_main_guard(tmp_path):
    # Nothing is imported again on workers, so the guard that multiprocessing needs is not needed.
    script = tmp_path / "script.py"
    script.write_text(
        "import dask, graphvine as gv\n"
        "def f(x):\n    return x + 1\n"
        "m = gv.Manager(local_workers=1)\n"
        "print(dask.delayed(f)(1).compute(scheduler=m.get))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_stores_lie_where_the_environment_says(manager, stores: Path):
    assert manager.get({"a": (len, (1, 2))}, "a") == 2
    assert [path.name.partition("-")[0] for path in stores.iterdir()] == ["graphvine"]


def test_without_a_worker_the_log_says_how_to_start_one():
    lines: queue.Queue[str] = queue.Queue()
    handler = logging.Handler()
    handler.emit = lambda record: lines.put(record.getMessage())
    logging.getLogger("graphvine.manager").addHandler(handler)
    try:
        with gv.Manager(local_workers=0, settings=Settings(first_worker_s=0.01)) as manager:
            future = manager.compute(dask.delayed(double)(1))
            line = lines.get(timeout=60)
            assert line.endswith(f"start one with: graphvine worker localhost {manager.port}")
            assert not future.done()
    finally:
        logging.getLogger("graphvine.manager").removeHandler(handler)
