"""Every socket that a running system listens on, attacked by seeded strangers while a graph runs."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import random
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import psutil
import pytest
import zmq
from dask import delayed
from tests.integration.conftest import StartWorker

from graphvine.manager.manager import Manager
from graphvine.protocol import bulk
from graphvine.protocol.codec import decode_to_worker, encode
from graphvine.protocol.connection import Connection, read_connection
from graphvine.protocol.greeting import HELLO
from graphvine.protocol.messages import Address, Goodbye, Rejoin, Report, TaskFailed

#: libzmq's greeting (RFC 37) for a security mechanism.
ZMTP = b"\xff" + bytes(8) + b"\x7f\x03\x01%s" + bytes(32)
TLS_HELLO = bytes.fromhex("16030100f8010000f40303") + bytes(200)


class System:
    """A manager, two workers of one core, and what a stranger has recorded on the wire."""

    def __init__(self, manager: Manager, start_worker: StartWorker, encrypted: bool) -> None:
        self.manager = manager
        self.connection = read_connection(manager.connection_file)
        self.encrypted = encrypted
        started = [start_worker(manager, 1, name) for name in ("one", "two")]
        self.processes = [psutil.Process(), *(psutil.Process(one.pid) for one in started)]
        self.run()
        self.doors = listening(self.processes)
        self.worker_doors = [port for port in self.doors if port != manager.port]
        self.recorded = {manager.port: record(manager.port, self._speak_as_worker)}
        for port in self.worker_doors:
            self.recorded[port] = record(port, self._speak_as_peer)

    def run(self) -> None:
        """A graph in which a result goes from one worker to the other."""
        with dask.annotate(workers=["one"]):
            made = delayed(bytes)(1_000_000, dask_key_name=f"made-{os.urandom(4).hex()}")
        with dask.annotate(workers=["two"]):
            read = delayed(len)(made)
        assert self.manager.get(read.__dask_graph__(), read.key) == 1_000_000

    def _speak_as_worker(self, port: int) -> None:
        with zmq.Context() as context, dealer_of(context, self.connection, port) as dealer:
            dealer.send(encode([Goodbye("only heard")]))
            # The manager's own word that all of it arrived.
            dealer.send(encode([Report()]))
            assert dealer.poll(20_000)
            assert isinstance(decode_to_worker(dealer.recv())[0], Rejoin)

    def _speak_as_peer(self, port: int) -> None:
        link = bulk.connect([Address("127.0.0.1", port)], self.connection.secret, encrypted=self.encrypted)
        with contextlib.closing(link), pytest.raises(bulk.NotHeldError):
            link.ask(999_999, 1)

    def used(self) -> list[tuple[int, int]]:
        """Resident bytes and descriptors of each process."""
        return [(process.memory_info().rss, process.num_fds()) for process in self.processes]


def dealer_of(
    context: zmq.Context[zmq.Socket[bytes]], connection: Connection, port: int
) -> zmq.Socket[bytes]:
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.curve_serverkey = connection.manager_public.encode()
    dealer.curve_publickey = connection.worker_public.encode()
    dealer.curve_secretkey = connection.worker_secret.encode()
    dealer.connect(f"tcp://127.0.0.1:{port}")
    return dealer


def listening(processes: list[psutil.Process]) -> list[int]:
    """Ports on which any of these, or what they have started, listens."""
    family = [one for process in processes for one in (process, *process.children(recursive=True))]
    found = {
        entry.laddr.port
        for process in family
        for entry in process.net_connections("all")
        if entry.status == psutil.CONN_LISTEN
    }
    return sorted(found)


def record(port: int, speak: Callable[[int], None]) -> bytes:
    """What an honest client says to a port, as somebody on the way hears it."""
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on() -> None:
            near, _ = listener.accept()
            with near, socket.create_connection(("127.0.0.1", port)) as far:
                there = threading.Thread(target=copy, args=(near, far, heard))
                there.start()
                copy(far, near, bytearray())
                there.join()

        thread = threading.Thread(target=pass_on)
        thread.start()
        speak(listener.getsockname()[1])
        thread.join()
    assert heard
    return bytes(heard)


def copy(source: socket.socket, target: socket.socket, heard: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            heard += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def system(request: pytest.FixtureRequest, start_worker: StartWorker) -> Iterator[System]:
    with Manager(local_workers=0, encrypt_transfers=request.param) as manager:
        yield System(manager, start_worker, request.param)


# -- strangers --------------------------------------------------------------------------------------------


class Stranger:
    """Attacks doors, by a seed."""

    def __init__(self, system: System, seed: int) -> None:
        self._system = system
        self._chance = random.Random(seed)
        self._open: list[socket.socket] = []

    def attack(self, port: int) -> None:
        link = socket.create_connection(("127.0.0.1", port))
        link.settimeout(0.02)
        with contextlib.suppress(OSError):
            for words in self._words(port):
                link.sendall(words)
                if self._chance.random() < 0.3:
                    link.recv(1000)
        ending = self._chance.randrange(3)
        if ending == 0:
            self._open.append(link)
            return
        if ending == 1:
            # Torn off.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.close()

    def leave(self) -> None:
        for link in self._open:
            link.close()
        self._open.clear()

    def _words(self, port: int) -> Iterator[bytes]:
        chance = self._chance
        recorded = self._system.recorded[port]
        kind = chance.choice(
            ["nothing", "noise", "http", "zmtp", "long", "bulk", "tls", "replay", "damaged", "slow"]
        )
        if kind == "noise":
            yield chance.randbytes(chance.randrange(1, 5000))
        elif kind == "http":
            yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * chance.randrange(1, 50)
        elif kind == "zmtp":
            mechanism = chance.choice([b"CURVE", b"NULL", b"PLAIN", b"GSSAPI", b"\xff" * 20])
            yield ZMTP % mechanism.ljust(20, b"\0")
            for _ in range(chance.randrange(5)):
                body = chance.choice([b"\x05HELLO", b"\x05READY", b"\x08INITIATE", b""])
                body += chance.randbytes(chance.randrange(250))
                yield bytes([chance.choice([0, 1, 4]), len(body) % 256]) + body
        elif kind == "long":
            yield ZMTP % b"CURVE".ljust(20, b"\0")
            yield b"\x06" + chance.choice([2**20, 2**25, 2**31, 2**63, 2**64 - 1]).to_bytes(8, "big")
            yield bytes(2**18)
        elif kind == "bulk":
            yield HELLO + chance.randbytes(chance.choice([0, 39, 40, 72, 200]))
        elif kind == "tls":
            yield TLS_HELLO[: chance.randrange(len(TLS_HELLO))]
        elif kind == "replay":
            yield recorded
        elif kind == "damaged":
            at = chance.randrange(len(recorded))
            yield recorded[:at] + chance.randbytes(3) + recorded[at + 3 :]
        elif kind == "slow":
            for byte in recorded[:40]:
                yield bytes([byte])


def test_strangers_at_every_door_disturb_nobody(
    system: System, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # One door each, and there are no others.
    assert len(system.doors) == 3
    assert system.manager.port in system.doors
    stranger = Stranger(system, 1)
    before: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING, "graphvine"):
        for round_ in range(4):
            for port in system.doors:
                for _ in range(60):
                    stranger.attack(port)
            # With some of them still at the door.
            system.run()
            stranger.leave()
            if round_ == 0:
                before = system.used()
    wait_for(lambda: all(now[1] <= then[1] + 4 for now, then in zip(system.used(), before, strict=True)))
    for (resident, _), (resident_before, _) in zip(system.used(), before, strict=True):
        assert resident < resident_before + 24 * 2**20
    refused = [record.getMessage() for record in caplog.records]
    # Of some that had gone at once it was not known any more whence they came.
    assert {line.partition(" on port")[0] for line in refused} <= {
        "refused a connection from 127.0.0.1",
        "refused a connection from a peer",
    }
    assert len(refused) in (1, 2)
    for name in ("one", "two"):
        log = (tmp_path / f"{name}.log").read_text()
        assert log.count("joined manager") == 1
        assert len(re.findall("transfer link .* refused", log)) == 1
        assert "Traceback" not in log
    system.run()


def wait_for(condition: Callable[[], bool]) -> None:
    """The kernel and libzmq's own thread let go of what was closed in their own time."""
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def test_a_peer_with_the_secret_that_asks_for_nonsense_disturbs_nobody(
    system: System, tmp_path: Path
) -> None:
    chance = random.Random(1)
    numbers = [0, 1, 2, 3, 999, 2**31, 2**63, 2**64 - 1]
    for port in system.worker_doors:
        for _ in range(40):
            link = bulk.connect(
                [Address("127.0.0.1", port)], system.connection.secret, encrypted=system.encrypted
            )
            speaker = link._socket
            speaker.settimeout(0.02)
            with contextlib.closing(link), contextlib.suppress(OSError):
                for _ in range(chance.randrange(1, 20)):
                    speaker.sendall(
                        struct.pack(
                            "<QQB",
                            chance.choice(numbers),
                            chance.choice(numbers),
                            chance.choice([0, 0, 0, 7]),
                        )
                    )
                    speaker.recv(10_000)
                speaker.sendall(chance.randbytes(1000))
    system.run()
    for name in ("one", "two"):
        log = (tmp_path / f"{name}.log").read_text()
        assert log.count("joined manager") == 1
        assert "Traceback" not in log


# -- nothing is unpickled ---------------------------------------------------------------------------------


class Trap:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._path,)


_watching = False
_found: list[str] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event == "pickle.find_class":
        _found.append(".".join(map(str, arguments)))


def test_nothing_of_strangers_is_unpickled(system: System, tmp_path: Path) -> None:
    global _watching
    sys.addaudithook(_audit)
    trap = str(tmp_path / "sprung")
    bait = pickle.dumps(Trap(trap))
    failure = encode([Report(failed=[TaskFailed(1, 0, "raised", "", bait)])])
    _watching = True
    try:
        # Who can't prove anything.
        for port in system.doors:
            for words in (bait, HELLO + bytes(40) + bait, ZMTP % b"NULL".ljust(20, b"\0") + failure):
                with socket.create_connection(("127.0.0.1", port)) as link, contextlib.suppress(OSError):
                    link.sendall(words)
                    link.settimeout(1)
                    while link.recv(1000):
                        pass
        # Who has the key and never said hello.
        with zmq.Context() as context, dealer_of(context, system.connection, system.manager.port) as dealer:
            for words in (bait, failure):
                dealer.send(words)
                assert dealer.poll(20_000)
                dealer.recv()
    finally:
        _watching = False
    assert _found == []
    assert not os.path.exists(trap)
    # The bait is good.
    pickle.loads(bait)
    assert os.path.exists(trap)
