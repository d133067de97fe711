from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from graphvine.protocol import bulk
from graphvine.protocol.greeting import HELLO
from graphvine.protocol.messages import Address

SECRET = "a secret"


def both(
    client: Callable[[socket.socket], object], server: Callable[[socket.socket], object]
) -> tuple[object, object]:
    """Run both sides of one TCP link; what each returned or raised."""
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    listener.close()
    outcomes: dict[str, object] = {}

    def run(name: str, link: socket.socket, act: Callable[[socket.socket], object]) -> None:
        with link:
            try:
                outcomes[name] = act(link)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
                outcomes[name] = error

    threads = [
        threading.Thread(target=run, args=("client", near, client)),
        threading.Thread(target=run, args=("server", far, server)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return outcomes["client"], outcomes["server"]


def greeting(secret: str, role: str) -> Callable[[socket.socket], object]:
    return lambda link: bulk.greet(link, secret, role)


def test_both_know_the_secret() -> None:
    assert both(greeting(SECRET, "client"), greeting(SECRET, "server")) == (None, None)


def test_a_client_without_the_secret_is_refused_before_it_is_told_anything() -> None:
    def client(link: socket.socket) -> bytes:
        with pytest.raises(bulk.RefusedError):
            bulk.greet(link, "another", "client")
        return link.recv(100)

    left, refusal = both(client, greeting(SECRET, "server"))
    assert left == b""
    assert isinstance(refusal, bulk.RefusedError)


def test_a_server_without_the_secret_is_refused() -> None:
    def impostor(link: socket.socket) -> None:
        link.sendall(HELLO + bytes(40))
        bulk.receive_exactly(link, len(HELLO) + 40 + 32)
        link.sendall(bytes(32))

    refusal, _ = both(greeting(SECRET, "client"), impostor)
    assert isinstance(refusal, bulk.RefusedError)
    assert "does not know the secret" in str(refusal)


def test_an_answer_cannot_be_had_from_the_other_side_itself() -> None:
    def mirror(link: socket.socket) -> None:
        hello = bulk.receive_exactly(link, len(HELLO) + 40)
        link.sendall(hello)
        link.sendall(bulk.receive_exactly(link, 32))

    refusal, _ = both(greeting(SECRET, "client"), mirror)
    assert isinstance(refusal, bulk.RefusedError)


@pytest.mark.parametrize(
    "rubbish", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"gvbulk1\n" + bytes(64), HELLO + bytes(80)]
)
def test_rubbish_is_refused_at_once(rubbish: bytes) -> None:
    def stranger(link: socket.socket) -> None:
        link.sendall(rubbish)
        while link.recv(1000):
            pass

    _, refusal = both(stranger, greeting(SECRET, "server"))
    assert isinstance(refusal, (bulk.RefusedError, ConnectionError))


def test_one_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "GREETING_S", 0.2)
    done = threading.Event()

    def server(link: socket.socket) -> None:
        try:
            bulk.greet(link, SECRET, "server")
        finally:
            done.set()

    _, error = both(lambda _: done.wait(10), server)
    assert isinstance(error, BlockingIOError)


def test_one_that_speaks_a_byte_at_a_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "GREETING_S", 0.3)
    done = threading.Event()

    def trickle(link: socket.socket) -> None:
        for byte in HELLO * 100:
            if done.wait(0.1):
                return
            link.sendall(bytes([byte]))

    def server(link: socket.socket) -> None:
        try:
            bulk.greet(link, SECRET, "server")
        finally:
            done.set()

    _, error = both(trickle, server)
    assert isinstance(error, TimeoutError)


def holder(size: int, data: bytes, checksum: int) -> Callable[[socket.socket], object]:
    def serve(link: socket.socket) -> tuple[int, int, bool] | None:
        bulk.greet(link, SECRET, "server")
        file = bulk.receive_request(link)
        link.sendall(bulk.ANSWER.pack(size, False) + data + bulk.CHECKSUM.pack(checksum))
        return file

    return serve


def taker(into: bytearray) -> Callable[[socket.socket], object]:
    def take(link: socket.socket) -> None:
        bulk.greet(link, SECRET, "client")
        asking = bulk.Link(link, "peer")
        assert asking.ask(5, len(into)) is False
        asking.receive(memoryview(into))

    return take


def test_damage_is_noticed() -> None:
    import xxhash

    digest = xxhash.xxh3_64_intdigest(b"content")
    into = bytearray(7)
    assert both(taker(into), holder(7, b"content", digest)) == (None, (5, 0, False))
    assert into == b"content"
    error, _ = both(taker(bytearray(7)), holder(7, b"contemt", digest))
    assert isinstance(error, bulk.DamagedError)
    assert "peer" in str(error)


def test_another_size_than_expected_is_an_error() -> None:
    error, _ = both(taker(bytearray(8)), holder(7, b"content", 0))
    assert isinstance(error, bulk.DamagedError)


def test_a_link_that_breaks_under_way_is_lost() -> None:
    def serve(link: socket.socket) -> None:
        bulk.greet(link, SECRET, "server")
        bulk.receive_request(link)
        link.sendall(bulk.ANSWER.pack(1000, False) + b"only this")

    error, _ = both(taker(bytearray(1000)), serve)
    assert isinstance(error, bulk.LinkLostError)


def test_an_address_where_nobody_listens_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(bulk.UnreachableError, match=f"127.0.0.1:{port}"):
        bulk.fetch([Address("127.0.0.1", port)], 1, SECRET, 1)
    with pytest.raises(bulk.UnreachableError, match="no address"):
        bulk.fetch([], 1, SECRET, 1)
