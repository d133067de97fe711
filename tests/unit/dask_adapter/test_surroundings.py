"""Environments and variables of a run, before anything is sent."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

import pytest

from graphvine.dask_adapter.surroundings import Archives, Surroundings, check_python, variables_of
from graphvine.envs.packing import PackedEnvironment
from graphvine.manager.plan import Code, Plan
from graphvine.protocol.errors import EnvironmentUnusableError


class Kept:
    """A file on the workers."""

    file = 77

    def check(self) -> None:
        pass


def plan() -> Plan:
    return Plan([], [], [], [], [], [], [], [], externals=[5], code=Code("name", b"zip", ("numpy",)))


def test_variables_travel_as_sorted_text() -> None:
    assert variables_of(None) == ()
    assert variables_of({"B": 2, "A": "one"}) == (("A", "one"), ("B", "2"))


@pytest.mark.parametrize(
    ("stated", "error"),
    [
        ("A=1", TypeError),
        ({"A=B": 1}, ValueError),
        ({"": 1}, ValueError),
        ({3: 1}, ValueError),
        ({"A": "\0"}, ValueError),
    ],
)
def test_variables_that_cannot_be_are_refused(stated: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        variables_of(stated)  # type: ignore[arg-type]


def test_a_plan_is_put_into_its_surroundings() -> None:
    around = Surroundings(Kept(), "env-1", (("A", "1"),))  # type: ignore[arg-type]
    changed = around.around(plan())
    assert changed.externals == [5, 77]
    assert changed.code.environment == -2
    assert changed.code.environment_name == "env-1"
    assert changed.code.variables == (("A", "1"),)
    assert changed.code.modules == b"zip"


def test_no_surroundings_change_nothing() -> None:
    assert Surroundings().around(plan()) == plan()


def test_another_python_is_told_before_anything_is_sent() -> None:
    major, minor = sys.version_info[:2]
    check_python(PackedEnvironment("env.tar", "env", f"{major}.{minor}.99", "linux-x86_64", 1))
    check_python(PackedEnvironment("env.tar", "env", "", "", 1))
    with pytest.raises(EnvironmentUnusableError, match=rf"has Python 3\.2\.1, .* Python {major}\.{minor}"):
        check_python(PackedEnvironment("env.tar", "env", "3.2.1", "linux-x86_64", 1))


def test_what_is_no_environment_is_refused(tmp_path: Path) -> None:
    archives = Archives(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a path"):
        archives.surroundings(3)
    with pytest.raises(Exception, match="there is no environment at"):
        archives.surroundings(tmp_path / "absent")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
