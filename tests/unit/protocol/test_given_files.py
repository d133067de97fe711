"""Files that lie anywhere: what they were like is told from what they are like now."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from graphvine.protocol.given_files import ChangedError, check_unchanged, open_given, stamp_of


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "sub" / "f").write_text("data")
    (tmp_path / "d" / "g").write_text("more")
    return tmp_path / "d"


def rewrite(file: Path) -> None:
    """Other data of the same length, and of the same age as far as seconds tell."""
    status = file.stat()
    file.write_text("atad")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def replace(file: Path) -> None:
    """Another file of the same length and age."""
    status = file.stat()
    other = file.with_name("other")
    other.write_text("atad")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(file)


@pytest.mark.parametrize("change", [rewrite, replace, lambda file: file.chmod(0o700), Path.unlink])
@pytest.mark.parametrize("name", ["g", "sub/f"])
def test_any_change_of_a_file_is_one_of_its_directory(
    directory: Path, name: str, change: Callable[[Path], None]
) -> None:
    before = stamp_of(str(directory))
    times = os.stat(directory), os.stat(directory / "sub")
    assert stamp_of(str(directory)) == before
    change(directory / name)
    for path, status in zip((directory, directory / "sub"), times, strict=True):
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert stamp_of(str(directory)) != before
    with pytest.raises(ChangedError, match="changed since it was declared"):
        open_given(str(directory), 8, True, before)


def test_nobody_looks_without_a_stamp(directory: Path) -> None:
    check_unchanged(str(directory / "nowhere"), 0)
    with pytest.raises(FileNotFoundError):
        check_unchanged(str(directory / "nowhere"), 1)
