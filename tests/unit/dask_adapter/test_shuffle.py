"""The shuffle setting follows the managers that live."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import dask.config
import pytest

from graphvine.dask_adapter import shuffle
from graphvine.dask_adapter.inprocess import InProcessEngine

KEY = "dataframe.shuffle.method"


@pytest.fixture(autouse=True)
def _nobody_holds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if there were no other manager in this process."""
    monkeypatch.setattr(shuffle, "_holders", 0)
    monkeypatch.setattr(shuffle, "_chosen", False)
    with dask.config.set({KEY: None}):
        yield


def test_set_while_a_manager_lives() -> None:
    first, second = InProcessEngine(), InProcessEngine()
    assert dask.config.get(KEY) == "tasks"
    first.close()
    first.close()
    assert dask.config.get(KEY) == "tasks"
    second.close()
    assert dask.config.get(KEY) is None


def test_an_earlier_choice_is_left_alone() -> None:
    with dask.config.set({KEY: "disk"}):
        engine = InProcessEngine()
        assert dask.config.get(KEY) == "disk"
        engine.close()
        assert dask.config.get(KEY) == "disk"


def test_a_later_choice_is_left_alone() -> None:
    engine = InProcessEngine()
    with dask.config.set({KEY: "p2p"}):
        engine.close()
        assert dask.config.get(KEY) == "p2p"


def test_a_manager_that_is_dropped_lets_go() -> None:
    engine = InProcessEngine()
    del engine
    assert dask.config.get(KEY) is None


def in_a_fresh_process(script: str) -> list[str]:
    """What ``script`` prints, in a process that has not imported dask."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


HOLD = """
import sys
from graphvine.dask_adapter.shuffle import hold_task_shuffle, release_task_shuffle
hold_task_shuffle()
assert not [name for name in sys.modules if name.partition(".")[0] == "dask"]
def waits():
    return any("graphvine" in type(finder).__module__ for finder in sys.meta_path)
assert waits()
"""


def test_set_when_dask_is_imported_later() -> None:
    script = f"""{HOLD}
import inspect
import dask.array, dask.config
print(dask.config.get("{KEY}"), waits())
inspect.getsource(dask.config)
release_task_shuffle()
print(dask.config.get("{KEY}"))
"""
    assert in_a_fresh_process(script) == ["tasks", "False", "None"]


def test_the_users_environment_is_left_alone() -> None:
    script = f"""{HOLD}
import os
os.environ["DASK_DATAFRAME__SHUFFLE__METHOD"] = "disk"
import dask.config
print(dask.config.get("{KEY}"))
release_task_shuffle()
print(dask.config.get("{KEY}"))
"""
    assert in_a_fresh_process(script) == ["disk", "disk"]


def test_nothing_is_awaited_for_nobody() -> None:
    script = f"""{HOLD}
release_task_shuffle()
print(waits())
import dask.config
print(dask.config.get("{KEY}"))
"""
    assert in_a_fresh_process(script) == ["False", "None"]


def test_frames_after_a_manager() -> None:
    """The whole way: a manager, then dask, then a shuffle, before anything was computed."""
    pytest.importorskip("pandas")
    script = """
from graphvine.dask_adapter.inprocess import InProcessEngine
engine = InProcessEngine()
import pandas
import dask.dataframe as dd
frame = dd.from_pandas(pandas.DataFrame({"a": [1, 2, 3, 4] * 5}), npartitions=4).shuffle("a")
print(any("partd" in str(type(part)) + str(part) for part in dict(frame.optimize().__dask_graph__())))
print(len(frame.compute(scheduler=engine.get)))
"""
    assert in_a_fresh_process(script) == ["False", "20"]
