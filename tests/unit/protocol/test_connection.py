"""Connection files: written for one reader, found by port."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphvine.protocol.connection import (
    Connection,
    ConnectionFileError,
    find_connection,
    make_connection,
    read_connection,
    write_connection,
)


@pytest.fixture
def connection() -> Connection:
    return make_connection("test", ("127.0.0.1",), 9123, "k" * 40)


def test_it_comes_back_and_nobody_else_can_read_it(connection: Connection, tmp_path: Path) -> None:
    path = tmp_path / "state" / "test.json"
    write_connection(connection, path)
    assert read_connection(path) == connection
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["test.json"]


def test_one_that_others_can_read_is_refused(connection: Connection, tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    write_connection(connection, path)
    path.chmod(0o644)
    with pytest.raises(ConnectionFileError, match="chmod 600"):
        read_connection(path)


def test_absent_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    with pytest.raises(ConnectionFileError, match=r"test\.json"):
        read_connection(path)
    path.write_text("{}")
    path.chmod(0o600)
    with pytest.raises(ConnectionFileError, match="not a graphvine connection file"):
        read_connection(path)


def test_it_is_found_by_port(connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHVINE_STATE", str(tmp_path))
    write_connection(connection, tmp_path / "test.json")
    assert find_connection(9123) == connection
    with pytest.raises(ConnectionFileError, match="--connection-file"):
        find_connection(9124)
