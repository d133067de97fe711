"""Tasks as data: what can be said of one, and what is refused at once."""

from __future__ import annotations

import math

import pytest

from graphvine.taskvine.files import Buffer, LocalFile, Temp
from graphvine.taskvine.results import Report, Summary
from graphvine.taskvine.task import Task


def buffer(text: str = "words") -> Buffer:
    return Buffer(None, text.encode(), "task")


def test_options_by_keyword_are_those_of_the_methods():
    made = Task(
        "true", cores=2, memory=100, disk=5, gpus=1, priority=3, retries=4, category="c", tag="t",
        features="a", time_max=7, env={"X": "1", "Y": None},
    )  # fmt: skip
    said = Task("true")
    said.set_cores(2)
    said.set_memory(100)
    said.set_disk(5)
    said.set_gpus(1)
    said.set_priority(3)
    said.set_retries(4)
    said.set_category("c")
    said.set_tag("t")
    said.add_feature("a")
    said.set_time_max(7)
    assert made.options(Summary()) == said.options(Summary())
    assert (made.tag, made.category) == ("t", "c")
    assert made._variables == {"X": "1", "Y": None}


def test_retries_that_are_stated_count_and_no_others():
    assert [Task("true", retries=n).options(Summary()).max_deaths for n in (-1, 0, 1, 4)] == [0, 0, 2, 5]


def test_a_limit_of_losses_counts_from_none_on():
    assert Task("true").options(Summary()).max_losses == -1
    assert [Task("true", max_forsaken=n).options(Summary()).max_losses for n in (-5, 0, 3)] == [-1, 0, 3]
    assert Task("true")._asking() != Task("true", max_forsaken=0)._asking()


def test_inputs_and_outputs_by_keyword():
    a, b, c = buffer(), buffer(), Temp(None, "workflow")
    task = Task(
        "true",
        inputs={a: "a", b: {"remote_name": "d/b", "mount_symlink": True}},
        output_files={c: {"remote_name": "c", "cache": False}},
    )
    assert [(mount.file, mount.name, mount.symlink) for mount in task._inputs] == [
        (a, "a", False),
        (b, "d/b", True),
    ]
    assert [(output.file, output.name) for output in task._outputs] == [(c, "c")]


def test_what_is_not_stated_is_left_to_its_share_or_the_category():
    assert Task("true").options(Summary()).request.cores == 0
    request = Task("true", memory=10).options(Summary(cores=4, memory=99)).request
    assert (request.cores, request.memory_mb) == (4, 10)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "a/../../b", ".", "a\0b"])
def test_names_lead_nowhere_but_into_the_sandbox(name):
    with pytest.raises(ValueError, match="within the sandbox"):
        Task("true").add_input(buffer(), name)
    with pytest.raises(ValueError, match="within the sandbox"):
        Task("true").add_output(buffer(), name)


def test_other_mistakes_are_told_at_once():
    task = Task("true")
    with pytest.raises(TypeError, match="declare it first"):
        task.add_input("data.txt", "data.txt")
    with pytest.raises(TypeError, match="not a str"):
        task.add_input(buffer(), 3)
    with pytest.raises(TypeError, match=r"Did you mean Task\(\*\*"):
        Task({"command": "true"})
    with pytest.raises(TypeError, match=r"shlex\.join"):
        Task(["ls", "-l"])
    with pytest.raises(TypeError, match="no command line"):
        task.set_command(None)
    with pytest.raises(ValueError, match="null byte"):
        Task("echo a\0b")
    for mistake in (
        lambda: Task("cat bad\udcff"),
        lambda: task.add_input(buffer(), "bad\udcff"),
        lambda: task.set_env_var("A", "bad\udcff"),
    ):
        with pytest.raises(ValueError, match="is no UTF-8"):
            mistake()
    with pytest.raises(TypeError, match="no option corse"):
        Task("true", corse=3)
    with pytest.raises(TypeError, match="not a number"):
        task.set_cores("many")
    with pytest.raises(TypeError, match="retries='x' is not a number"):
        task.set_retries("x")
    with pytest.raises(TypeError, match="feature None is not a str"):
        task.add_feature(None)
    with pytest.raises(ValueError, match="not finite"):
        task.set_memory(math.inf)
    with pytest.raises(ValueError, match="environment variable"):
        task.set_env_var("A=B", "c")
    with pytest.raises(ValueError, match="not both"):
        task.add_output(buffer(), "x", success_only=True, failure_only=True)
    task.add_input(buffer(), "x")
    with pytest.raises(ValueError, match="two inputs"):
        task.add_input(buffer(), "./x")
    with pytest.raises(ValueError, match="no metric"):
        task.get_metric("time_of_day")


def test_a_file_that_was_undeclared_is_no_input():
    file = LocalFile(None, "x", "task")
    file.undeclared = True
    with pytest.raises(ValueError, match="undeclared"):
        Task("true").add_input(file, "x")


def test_a_clone_shares_nothing_that_changes():
    task = Task("true", cores=2)
    task._report = Report(exit_code=3)
    clone = task.clone()
    clone.add_input(buffer(), "x")
    clone.set_cores(1)
    assert task._inputs == []
    assert task.resources_requested.cores == 2
    assert (clone.exit_code, clone.result) == (-1, "unknown")


@pytest.mark.parametrize(
    ("report", "completed", "successful"),
    [
        (Report(), True, True),
        (Report(exit_code=1), True, False),
        (Report(result="output missing"), False, False),
    ],
)
def test_completed_and_successful(report, completed, successful):
    task = Task("true")
    task._report = report
    assert (task.completed(), task.successful()) == (completed, successful)
