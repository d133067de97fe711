"""Files: levels, numbers that are given back, circles."""

from __future__ import annotations

import gc
import io

import pytest

from graphvine.taskvine.files import Buffer, LocalFile, MiniTask, Temp, check_acyclic, level_of
from graphvine.taskvine.task import Task


@pytest.mark.parametrize(
    ("cache", "level"),
    [(False, "task"), (None, "task"), (True, "workflow"), ("worker", "worker"), ("forever", "forever")],
)
def test_levels(cache, level):
    assert level_of(cache) == level


def test_no_level():
    with pytest.raises(ValueError, match="cache='often'"):
        level_of("often")


def test_a_number_is_given_back_once():
    released = []
    file = Temp(None, "workflow")
    file.hold(7, released.extend)
    file.hold(8, released.extend)
    assert released == [7]
    file.let_go()
    file.let_go()
    assert (released, file.number) == ([7, 8], None)
    file.hold(9, released.extend)
    del file
    gc.collect()
    assert released == [7, 8, 9]


def test_every_file_is_true_whatever_its_length():
    file = Buffer(None, b"", "task")
    assert len(file) == 0
    assert file


def test_platform_names_are_filled_in(tmp_path, monkeypatch):
    import platform

    kind = platform.uname()
    monkeypatch.chdir(tmp_path)
    assert LocalFile(None, "x.$OS.$ARCH", "task").resolved() == f"x.{kind.system}.{kind.machine}"
    (tmp_path / "x.$OS").write_text("")
    assert LocalFile(None, "x.$OS", "task").resolved() == "x.$OS"


def test_contents_through_an_unpickler():
    class Owner:
        def _contents_of(self, file):
            return file.read_here()

    file = Buffer(Owner(), b"12", "task")
    assert file.contents() == b"12"
    assert file.contents(lambda stream: int(stream.read())) == 12
    assert file.contents(io.BufferedReader).read() == b"12"


def test_a_circle_of_mini_tasks():
    first, second = Task("one"), Task("two")
    a = MiniTask(None, first, "a", "task")
    b = MiniTask(None, second, "b", "task")
    second.add_input(a, "a")
    check_acyclic([a, b])
    first.add_input(b, "b")
    with pytest.raises(ValueError, match="circle: the mini-task 'one' needs the mini-task 'two' needs"):
        check_acyclic([a])
