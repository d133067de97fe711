"""Directories of submissions that nobody watches over: which go, and which stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from graphvine.deploy.leftovers import sweep_submissions
from graphvine.protocol.connection import make_connection, write_connection

DAY_S = 86400.0


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def submission(parent: Path, name: str, *, pid: int, host: str = "", written_s: float) -> Path:
    """One whose jobs wrote their last so long ago."""
    directory = parent / name
    (directory / "output").mkdir(parents=True)
    made = make_connection(name.rpartition("-")[0], ("198.51.100.1",), 9123, "x" * 40)
    made = msgspec.structs.replace(made, pid=pid, host=host or made.host)
    write_connection(made, directory / "connection.json")
    (directory / "output" / "17.0.err").touch()
    for path in (
        directory / "connection.json",
        directory / "output" / "17.0.err",
        directory / "output",
        directory,
    ):
        os.utime(path, (time.time() - written_s,) * 2)
    return directory


def test_what_is_left_of_managers_that_have_ended_goes_after_a_day(tmp_path: Path, dead: int) -> None:
    old = submission(tmp_path, "m-1", pid=dead, written_s=DAY_S + 60)
    stays = [
        submission(tmp_path, "m-2", pid=dead, written_s=DAY_S - 60),
        submission(tmp_path, "m-3", pid=os.getpid(), written_s=100 * DAY_S),
        submission(tmp_path, "m-4", pid=dead, host="far", written_s=29 * DAY_S),
    ]
    said = submission(tmp_path, "m-5", pid=dead, written_s=2 * DAY_S)
    (said / "output" / "17.0.err").write_text("something lately")
    far = submission(tmp_path, "m-6", pid=os.getpid(), host="far", written_s=31 * DAY_S)
    sweep_submissions(tmp_path, time.time())
    assert sorted(tmp_path.iterdir()) == [*stays, said]
    assert not old.exists()
    assert not far.exists()


def test_what_is_not_a_submission_is_left_alone(tmp_path: Path, dead: int) -> None:
    other = submission(tmp_path, "m-1", pid=dead, written_s=DAY_S + 60).rename(tmp_path / "mine")
    readable = submission(tmp_path, "m-2", pid=dead, written_s=DAY_S + 60)
    (readable / "connection.json").chmod(0o644)
    broken = submission(tmp_path, "m-3", pid=dead, written_s=DAY_S + 60)
    (broken / "connection.json").write_text("{")
    empty = tmp_path / "m-4"
    empty.mkdir()
    sweep_submissions(tmp_path, time.time() + DAY_S)
    assert sorted(tmp_path.iterdir()) == sorted([other, readable, broken, empty])


def test_environments_go_with_the_last_submission(tmp_path: Path, dead: int) -> None:
    environments = tmp_path / "environments"
    environments.mkdir()
    submission(tmp_path, "m-1", pid=dead, written_s=DAY_S + 60)
    submission(tmp_path, "m-2", pid=dead, written_s=0.0)
    later_s = time.time() + 60
    sweep_submissions(tmp_path, later_s)
    assert environments.exists()
    sweep_submissions(tmp_path, later_s + DAY_S)
    assert list(tmp_path.iterdir()) == []
    environments.mkdir()
    sweep_submissions(tmp_path, later_s)
    assert environments.exists(), "perhaps of one that is being made"
