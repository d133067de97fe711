"""Values that are kept for the next task that takes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphvine.worker.recent import Recent

MB = 2**20


class Shelf:
    """Files that take ``takes_s`` to load, on a clock of its own."""

    def __init__(self, directory: Path, budget_bytes: int = 10 * MB) -> None:
        self.now = 0.0
        self.takes_s = 0.5
        self.loaded: list[str] = []
        self._directory = directory
        self.recent = Recent(self._load, budget_bytes, worth_s=0.1, unused_s=2.0, clock=lambda: self.now)

    def _load(self, path: str) -> Any:
        self.now += self.takes_s
        self.loaded.append(Path(path).name)
        return Path(path).read_text()

    def put(self, name: str, text: str = "", size: int = 0) -> None:
        path = self._directory / f"{name}.new"
        path.write_text(text or "x" * size)
        path.rename(self._directory / name)

    def path(self, name: str) -> str:
        return str(self._directory / name)

    def take(self, name: str) -> Any:
        """As a task does."""
        self.recent.begin([b"an inline value", 7, self.path(name)])
        return self.recent.take(self.path(name))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_what_the_next_task_takes_as_well_is_kept(shelf: Shelf) -> None:
    shelf.put("1", "a table")
    first, second, third = (shelf.take("1") for _ in range(3))
    assert first is second is third
    assert shelf.loaded == ["1"]


def test_what_the_next_task_does_not_take_takes_no_memory_from_it(shelf: Shelf) -> None:
    shelf.put("1", "a table")
    shelf.put("2", "another")
    shelf.take("1")
    assert shelf.recent.trial is not None
    shelf.recent.begin([shelf.path("2"), b"an inline value"])
    assert shelf.recent.trial is None


def test_what_is_taken_now_and_then_is_kept(shelf: Shelf) -> None:
    for name in ("1", "2", "3"):
        shelf.put(name, name)
    for name in ("1", "2", "1", "3", "1"):
        shelf.take(name)
    assert shelf.loaded == ["1", "2", "1", "3"]


def test_what_a_task_made_is_there_for_the_next_one(shelf: Shelf) -> None:
    shelf.put("1", "a table")
    made = ["a", "table"]
    shelf.recent.offer(shelf.path("1"), made, took_s=0.5)
    assert shelf.take("1") is made
    assert shelf.take("1") is made
    shelf.put("2", "quickly pickled")
    shelf.recent.offer(shelf.path("2"), "quickly pickled", took_s=0.001)
    assert shelf.recent.trial is None


def test_what_is_quickly_made_is_not_kept(shelf: Shelf) -> None:
    shelf.put("1", "a map of an array")
    shelf.takes_s = 0.01
    for _ in range(3):
        shelf.take("1")
    assert shelf.loaded == ["1", "1", "1"]


def test_another_file_of_the_same_name_is_another_value(shelf: Shelf) -> None:
    shelf.put("1", "old")
    assert [shelf.take("1") for _ in range(3)] == ["old"] * 3
    shelf.put("1", "new")
    assert shelf.take("1") == "new"


def test_what_is_gone_is_not_there(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("1", "a table")
    for _ in range(3):
        shelf.take("1")
    (tmp_path / "1").unlink()
    with pytest.raises(FileNotFoundError):
        shelf.take("1")


def test_nobody_took_it_lately(shelf: Shelf) -> None:
    for name in ("1", "2"):
        shelf.put(name, name)
        shelf.take(name)
        shelf.take(name)
    shelf.now += 1.8
    shelf.take("2")
    shelf.recent.forget_unused()
    shelf.take("2")
    assert shelf.loaded == ["1", "2"]
    shelf.take("1")
    assert shelf.loaded == ["1", "2", "1"]


def test_those_taken_last_stay_when_there_is_no_room(shelf: Shelf) -> None:
    for name, size in (("1", 4 * MB), ("2", 4 * MB), ("3", 4 * MB), ("4", 20 * MB)):
        shelf.put(name, size=size)
    for name in ("1", "1", "2", "2", "1", "3", "3"):
        shelf.take(name)
    del shelf.loaded[:]
    for name in ("1", "3", "2"):
        shelf.take(name)
    assert shelf.loaded == ["2"]
    # Too large for all, and yet it stays: the tasks that take it need that memory anyway.
    for name in ("4", "4", "4", "4"):
        shelf.take(name)
    assert shelf.loaded == ["2", "4"]


def test_all_is_let_go(shelf: Shelf) -> None:
    shelf.put("1", "a table")
    for _ in range(3):
        shelf.take("1")
    shelf.recent.clear()
    shelf.take("1")
    assert shelf.loaded == ["1", "1"]
