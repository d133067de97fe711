"""The door, with real sockets: who is let in, and what strangers leave behind."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator

import pytest
import zmq

from graphvine.manager.gate import Gate, candidate_ports
from graphvine.protocol.codec import encode
from graphvine.protocol.connection import Connection, make_connection
from graphvine.protocol.errors import PortInUseError
from graphvine.protocol.messages import Goodbye

WAIT_MS = 10_000


@pytest.fixture
def gate() -> Iterator[Gate]:
    opened = Gate("127.0.0.1", 0, clock=lambda: 0.0)
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
    while not condition(frames) and poller.poll(WAIT_MS):  # type: ignore[operator]
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
