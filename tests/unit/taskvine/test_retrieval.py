"""What is brought to the manager's machine, put in its place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from graphvine.protocol.trees import Tree
from graphvine.taskvine.remote.contents import SmallFile
from graphvine.taskvine.retrieval import write_path


def directory(path: Path, **members: str) -> Tree:
    path.mkdir()
    for name, text in members.items():
        (path / name).write_text(text)
    return Tree(str(path), 0)


def contents(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def test_a_file_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path):
    place = tmp_path / "made" / "out"
    write_path(SmallFile(b"old"), str(place))
    write_path(SmallFile(b"new"), str(place))
    assert contents(tmp_path / "made") == {"out": "new"}
    assert [file.name for file in place.parent.iterdir()] == ["out"]


def test_a_directory_of_the_user_s_is_not_lost_to_a_file(tmp_path: Path):
    results = tmp_path / "results"
    directory(results, last_year="figures")
    with pytest.raises(IsADirectoryError, match="a file cannot replace the directory"):
        write_path(SmallFile(b"1"), str(results))
    assert contents(tmp_path) == {"results/last_year": "figures"}


def test_a_directory_keeps_what_the_new_one_has_not(tmp_path: Path):
    results = tmp_path / "results"
    directory(results, last_year="figures", both="old")
    (results / "plots").mkdir()
    (results / "plots" / "old").write_text("o")
    made = directory(tmp_path / "made", both="new", mine="m")
    (tmp_path / "made" / "plots").mkdir()
    (tmp_path / "made" / "plots" / "new").write_text("n")
    for _ in range(2):
        write_path(made, str(results))
        assert contents(results) == {
            "last_year": "figures", "both": "new", "mine": "m", "plots/old": "o", "plots/new": "n",
        }  # fmt: skip


def test_a_directory_takes_the_place_of_a_file(tmp_path: Path):
    (tmp_path / "results").write_text("a file")
    write_path(directory(tmp_path / "made", a="1"), str(tmp_path / "results"))
    assert contents(tmp_path / "results") == {"a": "1"}


def test_links_of_the_user_s_to_directories_are_followed(tmp_path: Path):
    directory(tmp_path / "disk", last_year="figures")
    results = tmp_path / "results"
    results.symlink_to("disk")
    write_path(directory(tmp_path / "made", a="1"), str(results))
    assert results.is_symlink()
    assert contents(tmp_path / "disk") == {"last_year": "figures", "a": "1"}
    with pytest.raises(IsADirectoryError):
        write_path(SmallFile(b"1"), str(results))


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path: Path):
    (tmp_path / "big").mkdir()
    place = tmp_path / "out"
    place.symlink_to("big/out")
    for text in (b"made", b"made anew"):
        write_path(SmallFile(text), str(place))
        assert (tmp_path / "big" / "out").read_bytes() == text
        assert place.is_symlink()
    assert contents(tmp_path / "big") == {"out": "made anew"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes devices")
def test_a_device_is_written_to_and_never_replaced(tmp_path: Path):
    null = tmp_path / "null"
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (tmp_path / "made").write_bytes(bytes(10_000))
    for value in (SmallFile(b"1"), Tree(str(tmp_path / "made"), 10_000)):
        write_path(value, str(null))
        assert stat.S_ISCHR(null.stat().st_mode)
    assert null.read_bytes() == b""


def test_a_pipe_stays(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="what is there is no file, and stays"):
        write_path(SmallFile(b"1"), str(tmp_path / "pipe"))
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
