"""Managers by their names: which of several connection files is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphvine.protocol.connection import ConnectionFileError, make_connection, write_connection
from graphvine.worker.finding import SearchByName


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHVINE_STATE", str(tmp_path))
    return tmp_path


@pytest.fixture
def stop() -> Iterator[int]:
    """Nobody asks this process to stop."""
    receiver, sender = os.pipe()
    yield receiver
    os.close(receiver)
    os.close(sender)


def manager(state: Path, name: str, changed_s: float = 0.0) -> Path:
    path = state / f"{name}.json"
    write_connection(make_connection(name, ("198.51.100.1",), 9123, name.ljust(40, "x")), path)
    os.utime(path, (changed_s, changed_s))
    return path


def names(search: SearchByName, count: int) -> list[str]:
    found = [search.next(0.0) for _ in range(count)]
    return [connection.name for connection in found if connection is not None]


def test_one_of_that_very_name_is_meant(state: Path, stop: int) -> None:
    manager(state, "a.b", 1.0)
    manager(state, "axb", 2.0)
    search = SearchByName("a.b", stop)
    assert names(search, 1) == ["a.b"]
    with pytest.raises(ConnectionFileError, match=r"no manager wrote .*/a\.b\.json for 0 s"):
        search.next(0.0)


def test_a_regular_expression_means_all_that_it_fits_the_latest_first(state: Path, stop: int) -> None:
    for changed_s, name in enumerate(("run-1", "run-2", "rerun-3", "run-4x")):
        manager(state, name, changed_s)
    search = SearchByName(r"run-\d", stop)
    assert names(search, 2) == ["run-2", "run-1"]
    with pytest.raises(ConnectionFileError, match="no manager wrote"):
        search.next(0.0)
    manager(state, "run-5")
    assert names(search, 1) == ["run-5"]


def test_files_that_must_not_be_used_are_told_of_one_that_was_named(state: Path, stop: int) -> None:
    manager(state, "run-1", 2.0).chmod(0o644)
    manager(state, "run-2", 1.0)
    assert names(SearchByName("run-.", stop), 1) == ["run-2"]
    with pytest.raises(ConnectionFileError, match="can be read by others"):
        SearchByName("run-1", stop).next(0.0)


def test_a_name_that_is_no_regular_expression(state: Path, stop: int) -> None:
    manager(state, "run[")
    assert names(SearchByName("run[", stop), 1) == ["run["]
