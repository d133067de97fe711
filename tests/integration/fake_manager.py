"""A manager for tests of the worker alone: a real ROUTER socket and a real worker process."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from graphvine.protocol.codec import decode_to_manager, encode
from graphvine.protocol.connection import Connection, make_connection
from graphvine.protocol.messages import Assign, BlobData, Hello, Report, TaskDone, TaskOrder, Welcome

TIMEOUT_S = 20.0


class FakeManager:
    """Says what the test tells it to, and keeps what the workers say."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self._public, self._secret = zmq.curve_keypair()
        self.router = self._socket()
        port = self.router.bind_to_random_port("tcp://127.0.0.1")
        public = self._public.decode()
        self.connection: Connection = make_connection("test", ("127.0.0.1",), port, public)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.hellos: dict[bytes, Hello] = {}
        self.inbox: list[tuple[bytes, Any]] = []

    def _socket(self) -> zmq.Socket[bytes]:
        router = self.context.socket(zmq.ROUTER)
        router.linger = 0
        router.curve_server = True
        router.curve_secretkey = self._secret
        router.curve_publickey = self._public
        return router

    def drop_connections(self) -> None:
        """All connections end; new ones can be made at once."""
        endpoint = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
        self.router.close()
        self.router = self._socket()
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                self.router.bind(endpoint)
            except zmq.ZMQError as error:
                # The old socket is closed by libzmq's own thread, which tells nobody when.
                if error.errno != zmq.EADDRINUSE or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def start_worker(self, directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """An embedded worker process; its output goes to ``directory``/worker.log."""
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "graphvine.worker", "--embedded", "--log-dir", str(directory)]
        with open(directory / "worker.log", "ab") as log:
            process = subprocess.Popen(
                [*command, "--workdir", str(directory), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(self.connection) + b"\n")
        process.stdin.flush()
        self.processes.append(process)
        return process

    def welcome(self, number: int = 1, heartbeat_s: float = 1.0, inline_bytes: int = 1000) -> bytes:
        """Wait for a worker that says hello and take it in; its routing id."""
        identity, hello = self.expect(Hello)
        self.hellos[identity] = hello
        self.say(identity, Welcome(number, heartbeat_s, inline_bytes))
        return identity

    def say(self, identity: bytes, *messages: Any) -> None:
        self.router.send_multipart([identity, encode(messages)])

    def receive(self, deadline: float) -> None:
        """One frame, its messages into the inbox. Raises TimeoutError."""
        left = deadline - time.monotonic()
        if left <= 0 or not self.router.poll(left * 1000):
            raise TimeoutError(f"nothing came; so far: {self.inbox}")
        identity, frame = self.router.recv_multipart()
        self.inbox += [(identity, message) for message in decode_to_manager(frame)]

    def expect(self, kind: type, matching: Callable[[Any], bool] = lambda _: True) -> tuple[bytes, Any]:
        """The first message of a kind; it leaves the inbox, others stay."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            for position, (identity, message) in enumerate(self.inbox):
                if isinstance(message, kind) and matching(message):
                    del self.inbox[position]
                    return identity, message
            self.receive(deadline)

    def collect(self, count: int) -> dict[int, TaskDone]:
        """Reports until so many tasks are done. A failed task is an error."""
        done: dict[int, TaskDone] = {}
        while len(done) < count:
            _, report = self.expect(Report)
            assert not report.failed, report.failed
            done.update({d.task: d for d in report.done})
        return done

    def close(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(TIMEOUT_S)
        self.context.destroy(linger=0)


def blob(number: int, *entries: Any, context: int = 0) -> BlobData:
    return BlobData(number, context, pickle.dumps(list(entries)))


def orders(first: int, blob_number: int, indices: list[int], inputs: list[list[int]]) -> list[TaskOrder]:
    return [
        TaskOrder(first + position, blob_number, index, needs)
        for position, (index, needs) in enumerate(zip(indices, inputs, strict=True))
    ]


__all__ = ["Assign", "FakeManager", "blob", "orders"]
