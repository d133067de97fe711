"""Workers that have a password in place of a connection file; real processes."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy
import pytest
from tests.integration.conftest import StartWorker
from tests.integration.test_departures import joined
from tests.integration.test_failures import wait_for
from tests.integration.test_stay import StartByName, inc, start

from graphvine.manager.manager import Manager

__all__ = ["start"]


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("one that nobody guesses\n")
    path.chmod(0o600)
    return path


def ones(number: int) -> Any:
    return numpy.full(50_000, number)


def total(*arrays: Any) -> int:
    return sum(int(array.sum()) for array in arrays)


GRAPH: dict[Any, Any] = {("n", i): (ones, i) for i in range(8)}
GRAPH["total"] = (total, *list(GRAPH))


@pytest.mark.parametrize("how", ["option", "afterwards"])
def test_workers_with_the_password_join_and_fetch_from_each_other(
    how: str, password: Path, start: StartByName, state: Path
) -> None:
    early = {"password_file": password} if how == "option" else {}
    with Manager(0, local_workers=0, **early) as manager:
        if how == "afterwards":
            manager.set_password_file(password)
        connection_file = state / "kept.json"
        shutil.copy2(manager.connection_file, connection_file)
        arguments = ["127.0.0.1", str(manager.port), "--cores", "1"]
        for name in ("a", "b"):
            start(name, *arguments, "--password", str(password))
        # The connection file is good, too.
        start("c", "--connection-file", str(connection_file), "--cores", "1")
        joined(manager, 3)
        assert manager.get(GRAPH, "total") == 50_000 * sum(range(8))
        connection_file.unlink()


def test_another_password_is_refused(password: Path, start: StartByName, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("something else")
    wrong.chmod(0o600)
    with Manager(0, local_workers=0, password_file=password) as manager:
        worker = start("w", "127.0.0.1", str(manager.port), "-P", str(wrong), "--timeout", "1")
        assert worker.wait(30) == 1
        assert manager.counts().workers == 0
    assert "no manager answered" in (tmp_path / "w.log").read_text()


def test_a_password_comes_before_the_workers(
    password: Path, bare_manager: Manager, start_worker: StartWorker
) -> None:
    worker = start_worker(bare_manager)
    joined(bare_manager, 1)
    with pytest.raises(ValueError, match="before workers join"):
        bare_manager.set_password_file(password)
    assert bare_manager.get({"a": (inc, 1)}, "a") == 2
    worker.send_signal(signal.SIGTERM)
    wait_for(lambda: worker.poll() is not None)


def test_a_manager_without_security_has_no_password(password: Path) -> None:
    with pytest.raises(ValueError, match="a password needs"):
        Manager(0, local_workers=0, security="none", password_file=password)
