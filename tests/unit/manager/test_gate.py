"""The door, with real sockets: who is let in, and what strangers leave behind."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from graphvine.manager.gate import Gate, candidate_ports
from graphvine.protocol.codec import MAX_TO_MANAGER_BYTES, encode
from graphvine.protocol.connection import Connection, make_connection
from graphvine.protocol.errors import PortInUseError
from graphvine.protocol.messages import Goodbye

WAIT_MS = 10_000


@pytest.fixture
def gate() -> Iterator[Gate]:
    opened = Gate("127.0.0.1", 0, clock=time.monotonic)
    yield opened
    opened.close()


@pytest.fixture
def connection(gate: Gate) -> Connection:
    made = make_connection("test", ("127.0.0.1",), gate.port, gate.manager_public)
    gate.admit(made)
    return made


Knock = Callable[[Connection, Connection], "zmq.Socket[bytes]"]


@pytest.fixture
def knock() -> Iterator[Knock]:
    """Connects a worker's socket to a manager, with the worker key of another connection."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    opened = []

    def connect(to: Connection, key_of: Connection) -> zmq.Socket[bytes]:
        dealer = context.socket(zmq.DEALER)
        opened.append(dealer)
        dealer.curve_serverkey = to.manager_public.encode()
        dealer.curve_publickey = key_of.worker_public.encode()
        dealer.curve_secretkey = key_of.worker_secret.encode()
        dealer.connect(f"tcp://127.0.0.1:{to.port}")
        return dealer

    yield connect
    for dealer in opened:
        dealer.close(linger=0)
    context.term()


def serve_until(gate: Gate, condition: object) -> list[bytes]:
    """Answer knocks and collect frames until ``condition()`` holds or nothing more happens."""
    poller = zmq.Poller()
    gate.register(poller)
    frames: list[bytes] = []
    while not condition(frames):  # type: ignore[operator]
        due = gate.deadline()
        if not poller.poll(WAIT_MS if due is None else 100) and due is None:
            break
        gate.answer_knocks()
        frames += [bytes(frame) for _, frame, _ in gate.receive()]
    return frames


def test_the_holder_of_the_key_is_heard_and_answered(
    gate: Gate, connection: Connection, knock: Knock
) -> None:
    dealer = knock(connection, connection)
    said = encode([Goodbye("bye")])
    dealer.send(said)
    poller = zmq.Poller()
    gate.register(poller)
    received = []
    while not received:
        assert poller.poll(WAIT_MS)
        gate.answer_knocks()
        received = list(gate.receive())
    identity, frame, descriptor = received[0]
    assert bytes(frame) == said
    assert descriptor > 0
    assert gate.send(identity, b"answer")
    assert dealer.poll(WAIT_MS)
    assert dealer.recv() == b"answer"


def test_the_end_of_a_connection_is_told_by_its_descriptor(
    gate: Gate, connection: Connection, knock: Knock
) -> None:
    dealer = knock(connection, connection)
    dealer.send(b"x")
    poller = zmq.Poller()
    gate.register(poller)
    descriptors: list[int] = []
    while not descriptors:
        assert poller.poll(WAIT_MS)
        gate.answer_knocks()
        descriptors = [descriptor for _, _, descriptor in gate.receive()]
    dealer.close(linger=0)
    ended: list[int] = []
    while not ended:
        assert poller.poll(WAIT_MS)
        ended = gate.answer_knocks()
    assert ended == descriptors


def test_another_key_is_refused_with_one_line(
    gate: Gate,
    connection: Connection,
    knock: Knock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = make_connection("other", ("127.0.0.1",), 1, gate.manager_public)
    with caplog.at_level(logging.WARNING, "graphvine"):
        strangers = [knock(connection, other) for _ in range(3)]
        for stranger in strangers:
            stranger.send(b"let me in")
        frames = serve_until(gate, lambda frames: caplog.records or frames)
    assert frames == []
    assert len(caplog.records) == 1
    assert "does not hold this manager's key" in caplog.text


def test_a_stranger_that_speaks_something_else_is_refused(
    gate: Gate, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, "graphvine"),
        socket.create_connection(("127.0.0.1", gate.port)) as stranger,
    ):
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(200))
        frames = serve_until(gate, lambda frames: caplog.records or frames)
    assert frames == []
    assert "refused a connection" in caplog.text


def test_strangers_that_say_nothing_keep_no_worker_out(
    gate: Gate,
    connection: Connection,
    knock: Knock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", gate.port))) for _ in range(1500)
        ]
        dealer = knock(connection, connection)
        dealer.send(b"hello")
        assert serve_until(gate, lambda frames: frames) == [b"hello"]
        # Those that came first had to go; that each has gone is told later.
        serve_until(gate, lambda frames: is_cut(silent[0]) and len(gate._strangers) <= 1024)
        assert is_cut(silent[0])
        assert len(gate._strangers) <= 1024
    assert len(caplog.records) == 1
    assert "too many came at once" in caplog.text


def is_cut(link: socket.socket) -> bool:
    """Whether the other side has closed; takes in what it says."""
    link.setblocking(False)
    try:
        while link.recv(1000):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


#: What comes before the handshake: the greeting (RFC 37) of a CURVE client.
ZMTP = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)


def test_what_strangers_send_is_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphvine.manager.strangers._MOST_BYTES", 4 * 2**20)
    gate = Gate("127.0.0.1", 0, clock=time.monotonic)
    head = b"\x06" + (30 * 2**20).to_bytes(8, "big")
    with contextlib.closing(gate), contextlib.ExitStack() as stack:
        links = [stack.enter_context(socket.create_connection(("127.0.0.1", gate.port))) for _ in range(4)]
        quiet, *loud = links
        quiet.sendall(ZMTP)
        for link in loud:
            link.sendall(ZMTP + head)
            link.settimeout(0.0)
        sent = [0, 0, 0]
        block = bytes(2**16)

        def push(_: object) -> bool:
            """A little more of each; whether all are cut."""
            for number, link in enumerate(loud):
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    sent[number] += link.send(block)
            return all(is_cut(link) for link in loud)

        poller = zmq.Poller()
        gate.register(poller)
        while not push(None):
            poller.poll(10)
            gate.answer_knocks()
        # A little beyond what is allowed, not all that they had announced.
        assert sum(sent) < 30 * 2**20
        assert not is_cut(quiet)
    assert "it has sent much" in caplog.text


def test_a_message_that_is_too_long_is_not_taken_in(gate: Gate, connection: Connection, knock: Knock) -> None:
    dealer = knock(connection, connection)
    dealer.send(b"hello")
    assert serve_until(gate, lambda frames: frames) == [b"hello"]
    dealer.send(bytes(MAX_TO_MANAGER_BYTES + 1))
    ended: list[int] = []
    poller = zmq.Poller()
    gate.register(poller)
    while not ended:
        assert poller.poll(WAIT_MS)
        ended = gate.answer_knocks()
        assert list(gate.receive()) == []
    dealer.send(b"made anew")
    assert serve_until(gate, lambda frames: frames) == [b"made anew"]


def test_a_gate_without_security_lets_anybody_in() -> None:
    gate = Gate("127.0.0.1", 0, clock=lambda: 0.0, secure=False)
    with contextlib.closing(gate), zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        assert gate.manager_public == ""
        dealer.linger = 0
        dealer.connect(f"tcp://127.0.0.1:{gate.port}")
        dealer.send(b"hello")
        assert serve_until(gate, lambda frames: frames) == [b"hello"]


def test_it_listens_on_ipv6_where_there_is_any() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    for host in ("*", "::1"):
        with contextlib.closing(Gate(host, 0, clock=lambda: 0.0)) as gate:
            socket.create_connection(("::1", gate.port)).close()
            if host == "*":
                socket.create_connection(("127.0.0.1", gate.port)).close()


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


def test_gates_that_open_at_the_same_time_find_ports_of_their_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        low = min(listener.getsockname()[1], 65535 - 40)
    start = threading.Barrier(8)
    opened: list[Gate] = []

    def open_one() -> None:
        start.wait(10)
        opened.append(Gate("127.0.0.1", (low, low + 40), clock=lambda: 0.0))

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ports = [gate.port for gate in opened]
    for gate in opened:
        gate.close()
    assert len(set(ports)) == 8


def test_a_port_in_use_is_said(gate: Gate) -> None:
    with pytest.raises(PortInUseError, match=f"port {gate.port} is in use"):
        Gate("127.0.0.1", gate.port, clock=lambda: 0.0)


def test_the_first_free_port_of_a_range_is_taken(gate: Gate) -> None:
    with pytest.raises(PortInUseError, match="every port from"):
        Gate("127.0.0.1", (gate.port, gate.port), clock=lambda: 0.0)
    second = Gate("127.0.0.1", (gate.port, min(gate.port + 50, 65535)), clock=lambda: 0.0)
    assert gate.port < second.port <= gate.port + 50
    second.close()


@pytest.mark.parametrize("bad", [-1, 70000, "9123", (5, 1), (1, 2, 3), True])
def test_a_bad_port_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="port="):
        candidate_ports(bad)  # type: ignore[arg-type]


def test_a_host_that_is_not_here_is_refused() -> None:
    with pytest.raises(ValueError, match="can't listen there"):
        Gate("no.such.host.invalid", 0, clock=lambda: 0.0)
