"""Connection files: written for one reader, found by port."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from graphvine.manager.manager import Manager
from graphvine.protocol.connection import (
    Connection,
    ConnectionFileError,
    find_connection,
    make_connection,
    read_connection,
    state_directory,
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


def test_a_file_that_cannot_be_read_does_not_hide_the_others(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHVINE_STATE", str(tmp_path))
    write_connection(connection, tmp_path / "test.json")
    (tmp_path / "newer.json").write_text("{}")
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    assert find_connection(9123) == connection
    with pytest.raises(ConnectionFileError, match=r"newer\.json"):
        find_connection(9124)


def test_one_of_several_that_write_the_same_name_at_once_succeeds(
    connection: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "test.json"
    start = threading.Barrier(8)
    outcomes: list[str] = []

    def write() -> None:
        start.wait(10)
        try:
            write_connection(connection, path)
        except FileExistsError:
            outcomes.append("refused")
        else:
            outcomes.append("written")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["written"]
    assert read_connection(path) == connection
    assert [p.name for p in path.parent.iterdir()] == ["test.json"]


def test_a_file_system_without_links_will_do(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "test.json"
    write_connection(connection, path)
    assert read_connection(path) == connection
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_connection(connection, path)


def test_nobody_can_read_it_while_it_is_written(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    opened = os.open

    def watched(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = opened(path, flags, mode)
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        write_connection(connection, tmp_path / "state" / "test.json")
    finally:
        os.umask(before)
    assert modes
    assert set(modes) == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_another_users_file_is_not_trusted(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "test.json"
    write_connection(connection, path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConnectionFileError, match="belongs to another user"):
        read_connection(path)


def test_where_no_home_can_be_written_to_they_lie_below_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRAPHVINE_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / f"graphvine-state-{os.getuid()}"
    (tmp_path / "file").touch()
    for home in (str(tmp_path / "file" / "home"), "nowhere"):
        monkeypatch.setenv("HOME", home)
        assert state_directory() == elsewhere
    monkeypatch.setenv("HOME", str(tmp_path / "new"))
    assert state_directory() == tmp_path / "new" / ".local" / "state" / "graphvine"


def test_one_that_cannot_be_written_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRAPHVINE_STATE", str(tmp_path / "file" / "state"))
    with pytest.raises(ConnectionFileError, match="set GRAPHVINE_STATE"):
        Manager(local_workers=0)
