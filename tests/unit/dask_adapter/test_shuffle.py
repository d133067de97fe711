"""The shuffle setting follows the managers that live."""

from __future__ import annotations

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
