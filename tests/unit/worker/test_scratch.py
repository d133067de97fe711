from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphvine.worker import scratch


@pytest.fixture(autouse=True)
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scratch, "_parent", "")
    yield
    scratch.end_task()


def test_outside_of_a_task_there_is_none() -> None:
    with pytest.raises(RuntimeError, match="only a task"):
        scratch.directory()


def test_each_call_gives_another_one_and_all_go_with_the_task(tmp_path: Path) -> None:
    scratch.begin(str(tmp_path))
    first, second = Path(scratch.directory()), Path(scratch.directory())
    assert first != second
    (first / "sub").mkdir()
    (first / "sub" / "file").write_bytes(b"x")
    assert scratch.holds(str(first / "sub" / "file"))
    assert not scratch.holds(f"{first}x")
    assert not scratch.holds(str(tmp_path))
    second.rmdir()
    scratch.end_task()
    assert list(tmp_path.iterdir()) == []
    assert not scratch.holds(str(first))


def test_what_a_dead_executor_had_is_found(tmp_path: Path) -> None:
    scratch.begin(str(tmp_path))
    mine = scratch.directory()
    assert scratch.left_by(str(tmp_path), os.getpid()) == [mine]
    assert scratch.left_by(str(tmp_path), os.getpid() + 1) == []


def test_one_stays_from_task_to_task(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="only a task"):
        scratch.lasting()
    scratch.begin(str(tmp_path))
    mine = scratch.lasting()
    scratch.end_task()
    assert scratch.lasting() == mine
    assert not scratch.holds(mine)
    assert scratch.left_by(str(tmp_path), os.getpid()) == [mine]
    os.rmdir(mine)
    assert scratch.lasting() != mine
