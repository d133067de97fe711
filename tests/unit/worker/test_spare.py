"""Memory of dropped files serves new ones, and never one that somebody reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphvine.protocol import values
from graphvine.protocol.values import REUSED_BYTES
from graphvine.worker.executor import write_value_file
from graphvine.worker.spare import SENT_MODE, Spares, take

LARGE = 2 * REUSED_BYTES


@pytest.fixture
def spares(tmp_path: Path) -> Spares:
    return Spares(str(tmp_path), 10 * LARGE)


def write(directory: Path, task: int, content: bytes) -> Path:
    write_value_file(str(directory), task, values.layout(*values.dumps(content)))
    return directory / str(task)


def drop(spares: Spares, path: Path) -> bool:
    kept = spares.keep(str(path), path.stat().st_size)
    if not kept:
        path.unlink()
    return kept


def test_a_dropped_file_is_written_over(spares: Spares, tmp_path: Path) -> None:
    first = write(tmp_path, 1, bytes(LARGE))
    inode = first.stat().st_ino
    assert drop(spares, first)
    assert not first.exists()
    content = os.urandom(LARGE - 2000)
    second = write(tmp_path, 2, content)
    assert second.stat().st_ino == inode
    assert values.loads_file(str(second)) == content


def test_a_larger_result_takes_a_smaller_spare(spares: Spares, tmp_path: Path) -> None:
    first = write(tmp_path, 1, bytes(LARGE))
    inode = first.stat().st_ino
    drop(spares, first)
    content = os.urandom(3 * LARGE)
    second = write(tmp_path, 2, content)
    assert second.stat().st_ino == inode
    assert values.loads_file(str(second)) == content


def test_what_is_still_mapped_is_left_alone(spares: Spares, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(LARGE / 8)
    write_value_file(str(tmp_path), 1, values.layout(*values.dumps(array)))
    mapped = values.loads_file(str(tmp_path / "1"))
    view = mapped[10:20]
    del mapped
    assert not drop(spares, tmp_path / "1")
    write(tmp_path, 2, os.urandom(LARGE))
    assert view.tolist() == list(range(10, 20))
    del view


def test_once_nobody_maps_it_it_is_a_spare(spares: Spares, tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    write_value_file(str(tmp_path), 1, values.layout(*values.dumps(numpy.zeros(LARGE))))
    mapped = values.loads_file(str(tmp_path / "1"))
    del mapped
    assert drop(spares, tmp_path / "1")


def test_who_comes_too_late_finds_no_file(spares: Spares, tmp_path: Path) -> None:
    """A reader that opened the file before it was dropped and locks it after."""
    path = write(tmp_path, 1, bytes(LARGE))
    descriptor = os.open(path, os.O_RDONLY)
    assert drop(spares, path)
    with pytest.raises(FileNotFoundError):
        values.lock_for_reading(descriptor, str(path))
    os.close(descriptor)


def test_what_was_sent_is_no_spare(spares: Spares, tmp_path: Path) -> None:
    path = write(tmp_path, 1, bytes(LARGE))
    path.chmod(SENT_MODE)
    assert not drop(spares, path)


def test_small_files_and_too_many_are_not_kept(tmp_path: Path) -> None:
    spares = Spares(str(tmp_path), 2 * LARGE)
    assert not drop(spares, write(tmp_path, 1, bytes(1000)))
    paths = [write(tmp_path, number, bytes(LARGE - 500)) for number in range(2, 5)]
    assert [drop(spares, path) for path in paths] == [True, True, False]
    spares.clear()
    assert list((tmp_path / ".spare").iterdir()) == []


def test_a_much_larger_spare_is_not_cut_down(spares: Spares, tmp_path: Path) -> None:
    drop(spares, write(tmp_path, 1, bytes(5 * LARGE)))
    assert not take(str(tmp_path), LARGE, str(tmp_path / "new"))
    assert take(str(tmp_path), 4 * LARGE, str(tmp_path / "new"))
