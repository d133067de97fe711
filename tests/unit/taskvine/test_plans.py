"""Batches of tasks as plans: what is shared is there once, and each task knows its own entry."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from graphvine.manager.plan import GivenFile, GivenValue
from graphvine.protocol.given_files import stamp_of
from graphvine.taskvine.files import Buffer, File, LocalFile, MiniTask, Temp, Unpacked, Url, glances
from graphvine.taskvine.plans import BLOB_TASKS, Builder, MissingInputError
from graphvine.taskvine.remote import command
from graphvine.taskvine.remote.contents import SMALL_BYTES, SmallFile
from graphvine.taskvine.results import Summary
from graphvine.taskvine.task import Task


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(str(tmp_path), {"c": Summary(cores=3)}, {"c": "category c"})


def task(*inputs: File, outputs: tuple[File, ...] = (), **options: Any) -> Task:
    made = Task("true", **options)
    for number, file in enumerate(inputs):
        made.add_input(file, f"in{number}")
    for number, file in enumerate(outputs):
        made.add_output(file, f"out{number}")
    return made


def entry(plan: Any, number: int) -> Any:
    return pickle.loads(plan.blobs[plan.blob_of[number]])[plan.blob_index[number]]


def test_what_tasks_share_is_one_entry(builder):
    url = Url(None, "http://host/f", "workflow")
    unpacked = Unpacked(None, url, "workflow")
    for _ in range(3):
        task(unpacked, url, unpacked)._enter(builder)
    plan = builder.plan()
    functions = [entry(plan, number)[0] for number in range(len(plan))]
    assert sorted(function.__name__ for function in functions) == ["fetch", "run", "run", "run", "untar"]
    assert plan.inputs[-1] == plan.inputs[-2]
    assert len(plan.inputs[-1]) == 2
    assert builder.limits == {"source host"}


def test_chains_within_a_plan_and_from_earlier_ones(builder):
    earlier, temp = Temp(None, "workflow"), Temp(None, "workflow")
    earlier.number = 77
    task(earlier, outputs=(temp,))._enter(builder)
    task(temp, earlier)._enter(builder)
    plan = builder.plan()
    assert plan.externals == [77]
    assert plan.inputs == [(-1,), (0, -1)]
    assert plan.separate
    assert plan.wanted == [0, 1]


def test_several_outputs_are_picked(builder):
    a, b = Temp(None, "workflow"), Temp(None, "workflow")
    task(outputs=(a, b))._enter(builder)
    task(b)._enter(builder)
    plan = builder.plan()
    assert plan.inputs == [(), (0,), (0,), (2,)]
    (begun, _) = builder.begun
    assert (begun.entry, begun.outputs) == (0, [(a, 1), (b, 2)])


def test_content_that_is_here(builder, tmp_path):
    (tmp_path / "small").write_text("small")
    (tmp_path / "small").chmod(0o755)
    (tmp_path / "large").write_bytes(bytes(SMALL_BYTES + 1))
    files = [
        LocalFile(None, str(tmp_path / "small"), "task"),
        LocalFile(None, str(tmp_path / "large"), "task"),
        Buffer(None, b"b", "task"),
        Buffer(None, bytes(SMALL_BYTES + 1), "task"),
    ]
    task(*files)._enter(builder)
    given = builder.plan().given
    assert pickle.loads(given[0].data) == SmallFile(b"small", 0o755)
    assert isinstance(given[1], GivenFile)
    assert (given[1].path, given[1].size) == (str(tmp_path / "large"), SMALL_BYTES + 1)
    assert isinstance(given[2], GivenValue)
    assert Path(given[3].path).read_bytes() == bytes(SMALL_BYTES + 1)


def test_a_local_file_that_changed_is_given_again(builder, tmp_path):
    path = tmp_path / "x"
    path.write_text("1")
    file = LocalFile(None, str(path), "workflow")
    file.number = 5
    builder.input(file)
    assert file.number is None
    assert builder.plan().externals == []


def test_a_directory_in_which_something_changed_is_given_again(builder, tmp_path):
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "sub" / "f").write_text("before")
    file = LocalFile(None, str(tmp_path / "d"), "workflow")
    builder.input(file)
    file.hold(7, lambda numbers: None)
    assert Builder(str(tmp_path)).input(file) == -1
    (tmp_path / "d" / "sub" / "f").write_text("behind")
    again = Builder(str(tmp_path))
    again.input(file)
    assert isinstance(again.plan().given[0], GivenFile)


def test_a_task_takes_local_files_as_they_were_when_it_was_submitted(builder, tmp_path):
    path = tmp_path / "f"
    path.write_text("one")
    file = LocalFile(None, str(path), "workflow")
    first = glances([file])
    builder.check_unchanged(first)
    other = tmp_path / "other"
    other.write_text("two")
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    other.rename(path)  # of the same size, and as old
    with pytest.raises(MissingInputError, match="changed after the task was submitted"):
        builder.check_unchanged(first)
    builder.check_unchanged(glances([file]))
    # What another task brought is what this one waited for.
    file.hold(7, lambda numbers: None)
    file.stamp = stamp_of(str(path))
    builder.check_unchanged(first)
    file.producer = task()
    assert not glances([file])


def test_what_is_kept_by_its_content_is_named_by_what_it_holds(builder, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(bytes(SMALL_BYTES + 1))
    file = LocalFile(None, str(path), "forever")
    file.content, file.named = "content-abc", stamp_of(str(path))
    path.write_bytes(bytes(SMALL_BYTES + 2))
    with pytest.raises(MissingInputError, match="changed"):
        builder.input(file)


@pytest.mark.parametrize(
    "file",
    [
        LocalFile(None, "/no/such/file", "task"),
        Buffer(None, None, "task"),
        Temp(None, "task"),
        Unpacked(None, Buffer(None, None, "task"), "task"),
        MiniTask(None, task(Temp(None, "task")), "x", "task"),
    ],
    ids=lambda file: file.label,
)
def test_what_nobody_has_is_missing(builder, file):
    with pytest.raises(MissingInputError):
        task(file)._enter(builder)


def test_categories_say_what_tasks_do_not(builder):
    task(category="c")._enter(builder)
    task(category="c", cores=1)._enter(builder)
    plan = builder.plan()
    assert [plan.options.get(number, plan.default_options).request.cores for number in (0, 1)] == [3, 1]
    assert plan.options.get(0, plan.default_options).limit == "category c"


def test_blobs_hold_so_many_entries(builder):
    for _ in range(BLOB_TASKS + 1):
        task()._enter(builder)
    plan = builder.plan()
    assert [len(pickle.loads(blob)) for blob in plan.blobs] == [BLOB_TASKS, 1]
    assert entry(plan, BLOB_TASKS)[0] is command.run
