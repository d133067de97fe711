"""What a worker's link does with its connection, over real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import psutil
import pytest
import zmq

from graphvine.protocol.codec import decode_to_manager, decode_to_worker
from graphvine.protocol.connection import make_connection
from graphvine.protocol.link import Link
from graphvine.protocol.messages import Heartbeat, Told, ToWorker


@pytest.fixture
def router() -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as made:
        made.linger = 0
        yield made


def limits(port: int) -> list[int]:
    """TCP_USER_TIMEOUT, in milliseconds, of this process's connections to ``port``."""
    found = []
    for one in psutil.Process().net_connections("tcp"):
        if one.raddr and one.raddr.port == port:
            with socket.socket(fileno=os.dup(one.fd)) as connection:
                found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


def open_link(port: int) -> Link[ToWorker]:
    return Link(make_connection("m", ("127.0.0.1",), port, ""), 60.0, decode_to_worker)


def beat(link: Link[ToWorker], router: zmq.Socket[bytes]) -> None:
    link.say([Heartbeat(running=0, memory_mb=0, store_mb=0)])
    router.recv_multipart()


def test_silence_is_limited_also_where_news_are_read_after_the_first_message(
    router: zmq.Socket[bytes],
) -> None:
    port = router.bind_to_random_port("tcp://127.0.0.1")
    link = open_link(port)
    try:
        beat(link, router)
        link.give_up_after(10.0)
        assert link.news() == "made"
        assert limits(port) == [10_000]
    finally:
        link.close()


def test_a_limit_is_of_one_connection(router: zmq.Socket[bytes]) -> None:
    port = router.bind_to_random_port("tcp://127.0.0.1")
    link = open_link(port)
    try:
        beat(link, router)
        link.news()
        link.give_up_after(10.0)
        assert limits(port) == [10_000]
        link.reopen()
        beat(link, router)
        link.news()
        assert 0 in limits(port)
    finally:
        link.close()


def test_nothing_is_lost_of_what_is_said_to_a_manager_that_takes_nothing_in(
    router: zmq.Socket[bytes],
) -> None:
    count = 105_000
    port = router.bind_to_random_port("tcp://127.0.0.1")
    router.unbind(f"tcp://127.0.0.1:{port}")
    link = open_link(port)
    try:
        for number in range(count):
            link.say([Told(number, 0, b"")])
        router.bind(f"tcp://127.0.0.1:{port}")
        router.rcvtimeo = 20_000
        heard = [router.recv_multipart()[1] for _ in range(count)]
        assert decode_to_manager(memoryview(heard[-1])) == [Told(count - 1, 0, b"")]
    finally:
        link.close()
