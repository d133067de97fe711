"""Names of contents: the same for the same, other ones for all else."""

from __future__ import annotations

from graphvine.taskvine.files import Buffer, LocalFile, MiniTask, Unpacked, Url
from graphvine.taskvine.naming import content_of, kept_name, to_be_named
from graphvine.taskvine.remote.sources import Validator
from graphvine.taskvine.task import Task


def url(tag: str, level: str = "forever") -> Url:
    file = Url(None, "http://host/f", level)
    file.validator = Validator(tag, 3)
    return file


def mini(
    line: str = "cat x", name: str = "x", data: bytes = b"d", output: str = "out", **env: str
) -> MiniTask:
    task = Task(line, env=env)
    task.add_input(Buffer(None, data, "task"), name)
    return MiniTask(None, task, output, "forever")


def test_the_same_has_the_same_name():
    assert content_of(mini(A="1")) == content_of(mini(A="1"))
    assert kept_name(url("1")) == kept_name(url("1"))


def test_whatever_is_different_has_another_name():
    files = [
        url("1"), url("2"), mini(), mini("cat ./x"), mini("cat y", "y"), mini(data=b"e"), mini(output="o"),
        mini(A="1"), mini(A="2"), Unpacked(None, url("1"), "forever"), Unpacked(None, url("2"), "forever"),
    ]  # fmt: skip
    names = [kept_name(file) for file in files]
    assert all(names)
    assert len(set(names)) == len(names)


def test_what_cannot_be_named_is_not_kept():
    assert kept_name(url("")) == ""
    assert kept_name(url("1", "workflow")) == ""
    assert kept_name(LocalFile(None, "x", "forever")) == ""
    assert kept_name(Unpacked(None, LocalFile(None, "x", "task"), "forever")) == ""
    task = Task("cat x")
    task.add_input(url(""), "x")
    assert kept_name(MiniTask(None, task, "out", "forever")) == ""


def test_what_must_be_looked_at_first():
    archive, plain = url("", "task"), url("", "task")
    assert to_be_named([Unpacked(None, archive, "forever"), plain]) == [archive]
    assert to_be_named([Unpacked(None, archive, "workflow")]) == []
