"""Where submissions lie, and what becomes of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphvine.deploy.cluster import JobsDirectory
from graphvine.deploy.errors import DeployError


def test_it_goes_with_all_that_is_in_it(tmp_path: Path):
    home = JobsDirectory(tmp_path / "jobs", keep=False)
    (home.path / "submission-1").mkdir()
    other = JobsDirectory(tmp_path / "jobs", keep=False)
    home.remove()
    assert list((tmp_path / "jobs").iterdir()) == [other.path]
    other.remove()
    other.remove()
    assert list(tmp_path.iterdir()) == []


def test_that_of_jobs_that_are_kept_stays_for_good(tmp_path: Path):
    home = JobsDirectory(tmp_path, keep=True)
    (home.path / "submission-1").mkdir()
    home.remove()
    JobsDirectory(tmp_path, keep=False).remove()
    assert (home.path / "submission-1").is_dir()


def test_nobody_else_can_look_into_it(tmp_path: Path):
    for keep in (False, True):
        home = JobsDirectory(tmp_path / "jobs", keep=keep)
        assert home.path.stat().st_mode & 0o077 == 0
        home.remove()


def test_a_place_where_none_can_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DeployError, match="there is no directory for jobs in"):
        JobsDirectory(tmp_path / "file", keep=False)
