"""What can be chosen of security: no keys at all, and encrypted transfers, with real workers."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from dask import delayed
from tests.integration.conftest import StartWorker

from graphvine.manager.manager import Manager
from graphvine.protocol.connection import read_connection


def test_with_security_none_a_worker_needs_nothing_but_host_and_port(
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "graphvine"):
        manager = Manager(local_workers=0, security="none")
    with manager:
        assert 'security="none"' in caplog.text
        assert str(manager.port) in caplog.text
        connection = read_connection(manager.connection_file)
        assert connection.manager_public == connection.worker_secret == ""
        assert connection.secret
        # Nothing of this user's is found there.
        monkeypatch.setenv("GRAPHVINE_STATE", str(tmp_path / "elsewhere"))
        start_worker(manager, 1, "one", "--security", "none")
        start_worker(manager, 1, "two", "--security", "none")
        # Results go from one to the other: both know the secret by now.
        assert manager.get(*passed_on()) == 2_000_000


def passed_on() -> tuple[dict[str, object], str]:
    """A graph whose result is made by one worker and read by the other."""
    with dask.annotate(workers=["one"]):
        made = delayed(bytes)(2_000_000, dask_key_name="made")
    with dask.annotate(workers=["two"]):
        read = delayed(len)(made, dask_key_name="read")
    return read.__dask_graph__(), "read"


def test_a_worker_without_keys_does_not_join_a_manager_that_has_them(
    bare_manager: Manager, start_worker: StartWorker
) -> None:
    refused = Awaited("refused a connection from 127.0.0.1")
    logging.getLogger("graphvine").addHandler(refused)
    try:
        start_worker(bare_manager, 1, "stranger", "--security", "none")
        assert refused.came.wait(30)
    finally:
        logging.getLogger("graphvine").removeHandler(refused)
    start_worker(bare_manager, 1, "honest")
    assert bare_manager.get({"a": (sum, [1, 2])}, "a") == 3
    assert "stranger" not in bare_manager.worker_names()


class Awaited(logging.Handler):
    """A line of the log that is waited for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.came.set()


@pytest.mark.parametrize(
    "options",
    [["--security", "none"], ["host", "1", "--security", "none", "--connection-file", "x"]],
)
def test_a_worker_without_keys_is_told_where_to_go(options: list[str]) -> None:
    command = [sys.executable, "-m", "graphvine.worker", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "HOST" in ended.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"security": "tls"}, 'give "curve"'),
        ({"security": None}, 'give "curve"'),
        ({"security": True}, 'give "curve"'),
        ({"security": "none", "encrypt_transfers": True}, 'needs security="curve"'),
        ({"security": "none", "ssl": True}, 'needs security="curve"'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Manager(**options)  # type: ignore[arg-type]


class Wire:
    """All that passes over loopback, searched for a marker."""

    def __init__(self, marker: bytes) -> None:
        self._marker = marker
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind(("lo", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**26)
        self._stop, self._stopped = socket.socketpair()
        self.seen = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while self._stopped not in select.select([self._socket, self._stopped], [], [])[0]:
            self.seen += self._marker in self._socket.recv(2**17)

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._socket.close()


@pytest.fixture
def marker() -> bytes:
    return os.urandom(8).hex().encode()


@pytest.fixture
def wire(marker: bytes) -> Iterator[Wire]:
    try:
        opened = Wire(marker)
    except PermissionError:
        pytest.skip("listening to a network needs root")
    yield opened
    opened.close()


@pytest.mark.parametrize("encrypted", [False, True])
def test_what_passes_from_worker_to_worker_cannot_be_read_on_the_way(
    start_worker: StartWorker, wire: Wire, marker: bytes, encrypted: bool
) -> None:
    half = marker[: len(marker) // 2]

    def make(first: bytes, second: bytes) -> bytes:
        # The whole of it is in no argument.
        return (first + second) * 200_000

    with Manager(local_workers=0, encrypt_transfers=encrypted) as manager:
        start_worker(manager, 1, "one")
        start_worker(manager, 1, "two")
        with dask.annotate(workers=["one"]):
            made = delayed(make)(half, marker[len(half) :], dask_key_name="made")
        with dask.annotate(workers=["two"]):
            read = delayed(lambda data: data.count(b"x") + len(data))(made, dask_key_name="read")
        assert manager.get(read.__dask_graph__(), "read") == len(marker) * 200_000
    assert (wire.seen == 0) is encrypted


def test_small_values_cannot_be_read_on_the_way(start_worker: StartWorker, wire: Wire, marker: bytes) -> None:
    half = marker[: len(marker) // 2]
    with Manager(local_workers=0) as manager:
        start_worker(manager, 1)
        graph = {"a": (bytes.__add__, half, marker[len(half) :])}
        assert manager.get(graph, "a") == marker
    assert wire.seen == 0


def test_an_encrypted_manager_goes_on_where_links_break(start_worker: StartWorker) -> None:
    with Manager(local_workers=0, encrypt_transfers=True) as manager:
        first = start_worker(manager, 1, "one")
        start_worker(manager, 1, "two")
        with dask.annotate(workers=["one", "two"]):
            parts = [delayed(bytes)(1_000_000 + number) for number in range(12)]
            total = delayed(lambda *data: sum(map(len, data)))(*parts)
        graph, key = total.__dask_graph__(), total.key
        assert manager.get(graph, key) == sum(1_000_000 + number for number in range(12))
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert manager.get(graph, key) == sum(1_000_000 + number for number in range(12))


def test_workers_come_over_ipv6_too(start_worker: StartWorker, tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Manager(port=0, local_workers=0) as manager:
        command = [sys.executable, "-m", "graphvine.worker", "::1", str(manager.port), "--cores", "1"]
        with open(tmp_path / "six.log", "wb") as log:
            worker = subprocess.Popen([*command, "--name", "one"], stdout=log, stderr=log)
        start_worker(manager, 1, "two")
        assert manager.get(*passed_on()) == 2_000_000
    assert worker.wait(20) == 0
    assert "at ::1:" in (tmp_path / "six.log").read_text()
