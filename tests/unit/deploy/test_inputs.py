"""What jobs bring lies where only its owner can read it."""

import os
from pathlib import Path

import pytest

from graphvine.deploy import inputs
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec


def test_all_of_it(tmp_path: Path) -> None:
    spec = made(tmp_path)
    directory = tmp_path / "jobs" / "one's"
    directory.mkdir(parents=True, mode=0o755)
    placed = inputs.place(spec, directory)
    assert placed == inputs.planned(spec, directory)
    for path, source in zip(placed.named().values(), ("c", "e.tar.gz", "p", "t"), strict=True):
        assert Path(path).read_text() == source
    for path in (placed.connection_file, placed.proxy, placed.token):
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    told = inputs.around(placed, job="$$")
    assert told.token == f"'{tmp_path}/jobs/one'\"'\"'s/token'"
    assert (told.job, told.scratch) == ("$$", "")


def test_what_is_not_brought(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("c")
    spec = WorkerSpec(connection_file=str(tmp_path / "c"), python="/cvmfs/python")
    directory = tmp_path / "one"
    directory.mkdir()
    assert list(inputs.place(spec, directory).named()) == ["connection_file"]
    assert [path.name for path in directory.iterdir()] == ["connection.json"]


def test_an_environment_lies_there_once(tmp_path: Path) -> None:
    spec = made(tmp_path)
    numbers = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        numbers.add(os.stat(inputs.place(spec, tmp_path / name).archive).st_ino)
    assert numbers == {os.stat(spec.archive).st_ino}


def test_an_environment_of_another_disk_is_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: str, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    spec = made(tmp_path)
    numbers = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        numbers.append(os.stat(inputs.place(spec, tmp_path / name).archive).st_ino)
    assert numbers[0] == numbers[1] != os.stat(spec.archive).st_ino
    Path(spec.archive).write_text("made anew")
    (tmp_path / "three").mkdir()
    assert Path(inputs.place(spec, tmp_path / "three").archive).read_text() == "made anew"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    spec = WorkerSpec(connection_file=str(tmp_path / "nothing"), python="/usr/bin/python3")
    with pytest.raises(DeployError, match="No such file or directory"):
        inputs.place(spec, tmp_path)


def test_what_is_renewed_is_copied_again(tmp_path: Path) -> None:
    spec = made(tmp_path)
    directories = [tmp_path / "one", tmp_path / "two"]
    renewals = inputs.Renewals()
    for directory in directories:
        directory.mkdir()
        inputs.place(spec, directory)
        renewals.look(spec, directories)
    before = os.stat(tmp_path / "one/token").st_ino
    Path(spec.proxy).write_text("a newer proxy")
    renewals.look(spec, [*directories, tmp_path / "nothing there"])
    for directory in directories:
        assert (directory / "proxy").read_text() == "a newer proxy"
        assert os.stat(directory / "proxy").st_mode & 0o777 == 0o600
        assert sorted(path.name for path in directory.iterdir()) == ["connection.json", "proxy", "token"]
    assert os.stat(tmp_path / "one/token").st_ino == before
    os.unlink(spec.proxy)
    renewals.look(spec, directories)
    assert (tmp_path / "one/proxy").read_text() == "a newer proxy"


def made(tmp_path: Path) -> WorkerSpec:
    for name in ("c", "e.tar.gz", "p", "t"):
        (tmp_path / name).write_text(name)
    return WorkerSpec(
        connection_file=str(tmp_path / "c"),
        archive=str(tmp_path / "e.tar.gz"),
        proxy=str(tmp_path / "p"),
        token=str(tmp_path / "t"),
    )
