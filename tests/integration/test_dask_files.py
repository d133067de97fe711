"""Declared files in the working directories of a graph's tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from graphvine.manager.manager import Manager


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager(local_workers=2) as made:
        yield made


def read(suffix: str, name: str = "data.txt") -> str:
    return Path(name).read_text() + suffix


def here(*_: str) -> list[str]:
    return sorted(os.listdir())


def test_get_persist_and_compute(manager: Manager, tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text("x" * 100_000)
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "leaf").write_text("leaf")
    files = {
        manager.declare_file(path): "data.txt",
        manager.declare_buffer("small"): "sub/b.txt",
        manager.declare_file(tmp_path / "tree"): "tree",
    }
    graph = {
        "a": (read, "!"),
        "b": (read, "a", "sub/b.txt"),
        "c": (read, "", "tree/below/leaf"),
        "d": (here, "b"),
    }
    found = manager.get(graph, ["b", "c", "d"], extra_files=files)
    assert found == ("small" + "x" * 100_000 + "!", "leaf", ["data.txt", "sub", "tree"])
    value = dask.delayed(read)("?")
    assert manager.compute(value, extra_files=files).result() == "x" * 100_000 + "?"
    kept = manager.persist(value, extra_files=files)
    assert kept.compute(scheduler=manager.get) == "x" * 100_000 + "?"
    # Without them tasks are where they were.
    with pytest.raises(FileNotFoundError):
        manager.get({"a": (read, "!")}, "a")


def test_a_file_that_is_not_there(manager: Manager, tmp_path: Path) -> None:
    file = manager.declare_file(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        manager.get({"a": (read, "!")}, "a", extra_files={file: "data.txt"})


def test_what_is_no_file(manager: Manager) -> None:
    with pytest.raises(TypeError, match="is no file: declare it first"):
        manager.get({"a": (read, "!")}, "a", extra_files={"data.txt": "data.txt"})


def test_a_temp_of_a_task(manager: Manager) -> None:
    import graphvine as vine

    temp = manager.declare_temp()
    task = vine.Task("echo made > out")
    task.add_output(temp, "out")
    manager.submit(task)
    assert manager.get({"a": (read, "!")}, "a", extra_files={temp: "data.txt"}) == "made\n!"
    assert manager.wait(30) is task
