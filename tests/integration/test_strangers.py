"""Peers that hold the key and yet can't join, and what they send that is no message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import msgspec
import pytest
import zmq

import graphvine
from graphvine.manager.manager import Manager
from graphvine.protocol.codec import decode_to_worker, encode
from graphvine.protocol.connection import read_connection
from graphvine.protocol.messages import (
    PROTOCOL_VERSION,
    Heartbeat,
    Hello,
    Refused,
    Rejoin,
    Resources,
    ToWorker,
    Welcome,
)
from graphvine.protocol.node import python_version

Talk = Callable[[Manager], "zmq.Socket[bytes]"]
WAIT_MS = 20_000


@pytest.fixture
def knock() -> Iterator[Talk]:
    """Opens a link to a manager with the right key."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    opened = []

    def connect(manager: Manager) -> zmq.Socket[bytes]:
        connection = read_connection(manager.connection_file)
        dealer = context.socket(zmq.DEALER)
        opened.append(dealer)
        dealer.curve_serverkey = connection.manager_public.encode()
        dealer.curve_publickey = connection.worker_public.encode()
        dealer.curve_secretkey = connection.worker_secret.encode()
        dealer.connect(f"tcp://127.0.0.1:{connection.port}")
        return dealer

    yield connect
    for dealer in opened:
        dealer.close(linger=0)
    context.term()


def hello() -> Hello:
    return Hello(
        PROTOCOL_VERSION,
        graphvine.__version__,
        python_version(),
        "stranger",
        "here",
        "nowhere",
        "/nonexistent",
        0,
        Resources(),
        [],
    )


def answer(dealer: zmq.Socket[bytes]) -> ToWorker:
    assert dealer.poll(WAIT_MS)
    return decode_to_worker(dealer.recv())[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"protocol": 99}, "protocol version 99"),
        ({"graphvine": "0.0.1"}, "install graphvine"),
        ({"python": "2.7"}, "runs Python 2.7"),
    ],
)
def test_another_version_is_refused_with_what_to_do(
    bare_manager: Manager,
    knock: Talk,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, object],
    told: str,
) -> None:
    dealer = knock(bare_manager)
    with caplog.at_level(logging.WARNING, "graphvine"):
        dealer.send(encode([msgspec.structs.replace(hello(), **changes)]))
        refused = answer(dealer)
    assert isinstance(refused, Refused)
    assert told in refused.reason
    assert told in caplog.text
    assert bare_manager.worker_names() == []


@pytest.mark.parametrize("rubbish", [b"", b"\x07", b"\x01\xc1", b"\x01" + bytes(1000), b"\x80\x04N."])
def test_rubbish_from_a_worker_ends_it_and_nothing_else(
    bare_manager: Manager, knock: Talk, caplog: pytest.LogCaptureFixture, rubbish: bytes
) -> None:
    dealer = knock(bare_manager)
    dealer.send(encode([hello()]))
    assert isinstance(answer(dealer), Welcome)
    assert "stranger" in bare_manager.worker_names()
    with caplog.at_level(logging.WARNING, "graphvine"):
        dealer.send(rubbish)
        assert isinstance(answer(dealer), Refused)
    assert "could not read" in caplog.text or "refused a message" in caplog.text
    assert bare_manager.worker_names() == []


def test_who_was_given_up_is_asked_to_join_again(bare_manager: Manager, knock: Talk) -> None:
    dealer = knock(bare_manager)
    dealer.send(encode([Heartbeat(0, 0.0, 0.0)]))
    assert isinstance(answer(dealer), Rejoin)
    dealer.send(encode([hello()]))
    assert isinstance(answer(dealer), Welcome)
