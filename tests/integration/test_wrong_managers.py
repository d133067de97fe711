"""A worker that is not led to its manager says so, in one line, and ends with code 1."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from graphvine.manager.manager import Manager
from graphvine.protocol.connection import Connection, make_connection, read_connection, write_connection

Run = Callable[..., str]


@pytest.fixture
def run_worker(tmp_path: Path) -> Run:
    """Runs a worker to its end; the last line that it said."""

    def run(connection: Connection, *options: str) -> str:
        path = tmp_path / "connection.json"
        write_connection(connection, path)
        command = [sys.executable, "-m", "graphvine.worker", "--connection-file", str(path), "--cores", "1"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    return run


def test_another_managers_port(bare_manager: Manager, run_worker: Run) -> None:
    with Manager(local_workers=0) as other:
        connection = read_connection(bare_manager.connection_file)
        said = run_worker(msgspec.structs.replace(connection, port=other.port))
        assert f"this is not the way to manager {connection.name}" in said
        assert f"127.0.0.1 port {other.port}: what listens there is another manager" in said
        assert "connection file of the manager that runs now" in said
        assert other.worker_names() == []


def test_a_wrong_key(bare_manager: Manager, run_worker: Run) -> None:
    connection = read_connection(bare_manager.connection_file)
    public, secret = zmq.curve_keypair()
    changes = {"worker_public": public.decode(), "worker_secret": secret.decode()}
    said = run_worker(msgspec.structs.replace(connection, **changes))
    assert "does not accept this worker's key" in said


@pytest.fixture
def service() -> Iterator[int]:
    """The port of another service, which greets and does not understand."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                with link, contextlib.suppress(OSError):
                    link.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                    while link.recv(100):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_another_service(service: int, run_worker: Run) -> None:
    """libzmq takes one that speaks first, and of something else, for an old peer that has nothing to say."""
    manager, _ = zmq.curve_keypair()
    lost = make_connection("lost", ("127.0.0.1",), service, manager.decode())
    said = run_worker(lost, "--timeout", "3")
    assert f"no manager answered at 127.0.0.1 port {service} for 3 s" in said


def test_the_way_is_found_among_those_that_lead_astray(bare_manager: Manager, tmp_path: Path) -> None:
    """Of several addresses some may be somebody else's: the worker goes on to its own manager."""
    connection = read_connection(bare_manager.connection_file)
    # The same port on another address of this machine, where somebody else listens.
    with socket.create_server(("127.0.0.2", connection.port)) as stranger:
        stranger.settimeout(0.0)
        path = tmp_path / "connection.json"
        write_connection(msgspec.structs.replace(connection, hosts=("127.0.0.2", "127.0.0.1")), path)
        command = [sys.executable, "-m", "graphvine.worker", "--connection-file", str(path), "--cores", "1"]
        worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            assert bare_manager.get({"x": (sum, [1, 2])}, "x") == 3
        finally:
            worker.terminate()
            worker.wait(20)


@pytest.mark.parametrize("version", [b"\x63", b"\x00"])
def test_another_protocol_version(version: bytes, run_worker: Run) -> None:
    """A manager that speaks another version: whatever it answers, the worker names both."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    public, secret = zmq.curve_keypair()
    router.curve_server, router.curve_secretkey, router.curve_publickey = True, secret, public
    port = router.bind_to_random_port("tcp://127.0.0.1")

    def answer() -> None:
        identity, _ = router.recv_multipart()
        router.send_multipart([identity, version + secrets.token_bytes(20)])

    thread = threading.Thread(target=answer)
    thread.start()
    said = run_worker(make_connection("future", ("127.0.0.1",), port, public.decode()))
    thread.join()
    context.destroy(linger=0)
    assert f"protocol version {version[0]}; this side speaks version 1" in said


def test_a_wrong_password(tmp_path: Path) -> None:
    for name, password in (("right", "correct horse battery"), ("wrong", "incorrect horse battery")):
        (tmp_path / name).write_text(password)
        (tmp_path / name).chmod(0o600)
    with Manager(0, local_workers=0, password_file=tmp_path / "right") as manager:
        command = [sys.executable, "-m", "graphvine.worker", "127.0.0.1", str(manager.port), "--cores", "1"]
        command += ["--password-file", str(tmp_path / "wrong")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert manager.worker_names() == []
    assert done.returncode == 1
    assert (
        "what listens there is another manager, or one with another password" in done.stderr.splitlines()[-1]
    )
    assert "or its password" in done.stderr
