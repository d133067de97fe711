"""Keys from a password."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from graphvine.protocol.connection import ConnectionFileError
from graphvine.protocol.passwords import connection_by_password, derive, read_password


def test_the_same_password_gives_the_same_keys_and_another_others() -> None:
    keys = derive("correct horse battery staple")
    assert keys == derive("correct horse battery staple")
    other = derive("correct horse battery stable")
    mine = {keys.manager_public, keys.manager_secret, keys.worker_public, keys.worker_secret}
    theirs = {other.manager_public, other.manager_secret, other.worker_public, other.worker_secret}
    assert len(mine) == 4
    assert not mine & theirs


def test_the_keys_are_pairs() -> None:
    keys = derive("a password")
    assert zmq.curve_public(keys.manager_secret.encode()).decode() == keys.manager_public
    assert zmq.curve_public(keys.worker_secret.encode()).decode() == keys.worker_public


def test_the_keys_of_a_password_are_what_they_were() -> None:
    """Manager and worker of two versions must agree."""
    assert derive("graphvine").worker_public == "IE}y5p3alGe-Q6p1J9.gHae}lcwTZhj2ee!rev7!"


def test_no_password_is_none() -> None:
    with pytest.raises(ValueError, match="empty"):
        derive("")


def test_white_space_around_a_password_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("  secret words \n")
    path.chmod(0o600)
    assert read_password(path) == "secret words"
    connection = connection_by_password("there", 9123, path)
    assert (connection.hosts, connection.port) == (("there",), 9123)
    assert connection.manager_public == derive("secret words").manager_public
    assert connection.secret == "", "it is told by the manager"


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [(b"secret", 0o644, "chmod 600"), (b" \n", 0o600, "is empty"), (b"\xff\xfe", 0o600, "not text")],
)
def test_a_password_file_that_is_not_one_is_refused(
    tmp_path: Path, content: bytes, mode: int, said: str
) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(ConnectionFileError, match=said):
        read_password(path)


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match="cannot read the password file"):
        read_password(tmp_path / "nothing")
