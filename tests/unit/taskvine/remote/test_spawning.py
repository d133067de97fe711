"""Programs are begun alike by the C library itself and by Python."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphvine.taskvine.remote.spawning import Environment, PlainSpawner, Spawner, make_spawner

SPAWNERS = pytest.mark.parametrize("kind", [Spawner, PlainSpawner])


@pytest.fixture
def output(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "output", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def said(
    spawner: PlainSpawner, line: str, directory: Path, output: int, variables: dict[str, str] | None = None
) -> str:
    os.ftruncate(output, 0)
    os.lseek(output, 0, os.SEEK_SET)
    pid = spawner.begin(
        "/bin/sh", ("/bin/sh", "-c", line), Environment(variables or {}), str(directory), output
    )
    assert os.waitpid(pid, 0)[1] == 0
    return os.pread(output, 10_000, 0).decode()


@SPAWNERS
def test_what_is_told_anew_counts(kind, tmp_path, output):
    spawner = kind()
    other = os.dup(output)
    try:
        for directory, descriptor in ((tmp_path, output), (Path("/"), output), (Path("/"), other)):
            variables = {"WHERE": f"{descriptor} é", "EMPTY": ""}
            text = said(spawner, 'pwd; echo "$WHERE|$EMPTY|"; cat', directory, descriptor, variables)
            assert text == f"{directory}\n{descriptor} é||\n"
    finally:
        os.close(other)


@SPAWNERS
@pytest.mark.parametrize("name", ["", "a=b"])
def test_variables_that_cannot_be(kind, tmp_path, output, name):
    with pytest.raises(ValueError, match="illegal environment variable name"):
        said(kind(), "true", tmp_path, output, {name: "x"})


@SPAWNERS
def test_null_bytes_are_refused(kind, tmp_path, output):
    for variables, arguments in (({"a": "b\0c"}, ("true",)), ({}, ("true", "a\0b"))):
        with pytest.raises(ValueError, match="null"):
            kind().begin("/bin/true", arguments, Environment(variables), str(tmp_path), output)


@SPAWNERS
def test_what_is_no_program_or_no_directory_is_an_error(kind, tmp_path, output):
    with pytest.raises(FileNotFoundError):
        kind().begin("/nowhere", ("nowhere",), Environment({}), str(tmp_path), output)
    with pytest.raises(PermissionError):
        kind().begin("/etc/passwd", ("passwd",), Environment({}), str(tmp_path), output)
    with pytest.raises(FileNotFoundError):
        kind().begin("/bin/true", ("true",), Environment({}), str(tmp_path / "nowhere"), output)


def test_where_the_c_library_has_no_place_for_a_directory_it_is_pythons(monkeypatch):
    def lacks(*_: object) -> None:
        raise AttributeError("posix_spawn_file_actions_addchdir_np")

    monkeypatch.setattr("graphvine.taskvine.remote.spawning._function", lacks)
    assert type(make_spawner()) is PlainSpawner
