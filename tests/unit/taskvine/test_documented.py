"""docs/taskvine.md names what is there, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphvine.manager.manager import Manager
from graphvine.taskvine.base import DeskClient
from graphvine.taskvine.client import TaskClient
from graphvine.taskvine.files import File
from graphvine.taskvine.libraries import FunctionCall, LibraryTask
from graphvine.taskvine.python import PythonTask
from graphvine.taskvine.reported import Reported
from graphvine.taskvine.task import Task

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "taskvine.md").read_text()
#: Names that belong to the engine and the parts below, and one that is spelt as TaskVine spells it.
OURS = {
    "archive_of",
    "close",
    "forget",
    "hold_files",
    "share",
    "share_of_worker",
    "output_files",
    "input_files",
    "options",
    "get_libray_required",
    "get_libray_provided",
}
KINDS = [
    ("Manager", Manager),
    ("Task", Task),
    ("PythonTask", PythonTask),
    ("FunctionCall", FunctionCall),
    ("LibraryTask", LibraryTask),
    ("File", File),
]


def documented(heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    table = PAGE.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    quoted = [re.match(r"(?:len\()?(\w+)", name) for row in rows for name in re.findall(r"`([^`]+)`", row)]
    return {match[1] for match in quoted if match} - {heading, "file"}


@pytest.mark.parametrize(("heading", "kind"), KINDS)
def test_what_is_named_is_there(heading, kind):
    attributes = {"name", "manager"}
    missing = {name for name in documented(heading) if not hasattr(kind, name)} - attributes
    assert missing == set()


@pytest.mark.parametrize(("heading", "kind"), [("Manager", TaskClient), *KINDS[1:-1]])
def test_what_is_there_is_named(heading, kind):
    parts = [part for part in kind.__mro__ if issubclass(part, DeskClient)] or [kind]
    parts += [Reported] if kind is Task else []
    there = {name for part in parts for name in vars(part) if not name.startswith("_")}
    inherited = {*vars(Task), *vars(Reported)} if issubclass(kind, Task) and kind is not Task else set()
    assert there - inherited - documented(heading) - OURS == set()
