"""Strangers at a worker's transfer server: many at once, slow, noisy, and what they leave behind."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import resource
import socket
import struct
import threading
from collections.abc import Iterator

import psutil
import pytest

from graphvine.protocol import bulk, tls
from graphvine.protocol.greeting import HELLO
from graphvine.protocol.messages import Address
from graphvine.worker import porch
from graphvine.worker.server import TransferServer

SECRET = "a secret"


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def encrypted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def server(encrypted: bool) -> Iterator[TransferServer]:
    made = TransferServer(lambda file, timeout_s: b"x", SECRET, "127.0.0.1", max_links=4, encrypted=encrypted)
    yield made
    made.close()


def knock(server: TransferServer) -> socket.socket:
    address = server.addresses[0]
    link = socket.create_connection((address.host, address.port))
    link.settimeout(20)
    return link


def fetch(server: TransferServer, encrypted: bool) -> None:
    """An honest peer gets what it wants."""
    assert bulk.fetch(server.addresses, 1, SECRET, 1, encrypted=encrypted) == b"x"


def is_cut(link: socket.socket) -> bool:
    """Waits until the other side has closed."""
    try:
        while link.recv(1000):
            pass
    except ConnectionError:
        pass
    return True


def test_those_who_say_nothing_keep_nobody_out_and_the_oldest_go(
    server: TransferServer, encrypted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    threads = threading.active_count()
    silent = [knock(server) for _ in range(1000)]
    fetch(server, encrypted)
    assert threading.active_count() <= threads + 1
    # The first ones had to go for those who came after them.
    assert all(is_cut(link) for link in silent[:800])
    fetch(server, encrypted)
    for link in silent:
        link.close()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "too many came at once" in told[0]


def test_nothing_of_them_is_kept(server: TransferServer, encrypted: bool) -> None:
    process = psutil.Process()

    def attack() -> None:
        chance = random.Random(1)
        for _ in range(10):
            links = [knock(server) for _ in range(100)]
            for link in links:
                with contextlib.suppress(OSError):
                    link.sendall(chance.randbytes(chance.randrange(200)))
            for link in links:
                link.close()
        fetch(server, encrypted)

    attack()
    before, descriptors = process.memory_info().rss, process.num_fds()
    for _ in range(3):
        attack()
    fetch(server, encrypted)
    assert process.num_fds() <= descriptors + porch._GUESTS  # some may be about to be let go
    assert process.memory_info().rss < before + 8 * 2**20


@pytest.mark.parametrize("words", [b"", HELLO, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=str)
def test_who_begins_and_does_not_go_on_is_cut_off(
    encrypted: bool, words: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bulk, "GREETING_S", 0.3)
    server = TransferServer(lambda file, timeout_s: b"x", SECRET, "127.0.0.1", encrypted=encrypted)
    with contextlib.closing(server), knock(server) as link:
        link.sendall(words)
        assert is_cut(link)
    assert re.search("did not prove in time|refused: ", caplog.text)


def test_who_speaks_a_byte_at_a_time_is_cut_off_too(
    encrypted: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bulk, "GREETING_S", 0.4)
    server = TransferServer(lambda file, timeout_s: b"x", SECRET, "127.0.0.1", encrypted=encrypted)
    gone = threading.Event()
    # What both kinds of link begin with, byte by byte for ever.
    words = b"\x16\x03\x01\x40\x00" + bytes(1000) if encrypted else HELLO + bytes(1000)
    with contextlib.closing(server), knock(server) as link:

        def trickle() -> None:
            with contextlib.suppress(OSError):
                for byte in words:
                    link.sendall(bytes([byte]))
                    if gone.wait(0.02):
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        assert is_cut(link)
        gone.set()
        thread.join()
    assert "did not prove in time" in caplog.text


def test_an_encrypted_server_tells_a_plain_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = TransferServer(lambda file, timeout_s: b"x", SECRET, "127.0.0.1", encrypted=True)
    with contextlib.closing(server):
        with pytest.raises(bulk.BulkError):
            bulk.fetch(server.addresses, 1, SECRET, 1)
        with pytest.raises(bulk.RefusedError):
            bulk.fetch(server.addresses, 1, "another", 1, encrypted=True)


def test_a_client_that_wants_encryption_takes_nothing_from_a_plain_server() -> None:
    server = TransferServer(lambda file, timeout_s: b"x", SECRET, "127.0.0.1", encrypted=False)
    with contextlib.closing(server), pytest.raises(bulk.RefusedError):
        bulk.fetch(server.addresses, 1, SECRET, 1, encrypted=True)


def test_another_worker_at_that_address_is_found_out(server: TransferServer, encrypted: bool) -> None:
    (address,) = server.addresses
    wrong = Address(address.host, address.port, address.server ^ 2)
    with pytest.raises(bulk.UnreachableError, match="another worker answers there"):
        bulk.fetch([wrong], 1, SECRET, 1, encrypted=encrypted)
    # The next address may be the right one.
    assert bulk.fetch([wrong, address], 1, SECRET, 1, encrypted=encrypted) == b"x"


def test_nobody_is_greeted_before_it_is_known_how() -> None:
    server = TransferServer(lambda file, timeout_s: b"x", SECRET, "127.0.0.1", opened=False)
    with contextlib.closing(server), knock(server) as link:
        link.settimeout(0.1)
        with pytest.raises(TimeoutError):
            link.recv(1)
        server.open(SECRET, True)
        server.open(SECRET, True)
        fetch(server, True)


def test_without_descriptors_it_waits_for_better_times(caplog: pytest.LogCaptureFixture) -> None:
    server = TransferServer(lambda file, timeout_s: b"x", SECRET, "127.0.0.1")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.closing(server), contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(socket.socket()) for _ in range(40)]
        with taken_up(spare=5):
            address = server.addresses[0]
            for link in strangers:
                link.connect((address.host, address.port))
                link.settimeout(20)
            # They go in the end, although none is late.
            assert is_cut(strangers[0])
        fetch(server, False)
    assert "Too many open files" in caplog.text
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


@contextlib.contextmanager
def taken_up(spare: int) -> Iterator[None]:
    """All descriptors of this process but so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_secret_that_comes_in_pieces_is_heard(server: TransferServer, encrypted: bool) -> None:
    link = knock(server)
    if encrypted:
        wrapped = tls.wrap(link, SECRET, "client")
        wrapped.do_handshake()
        link = wrapped
    from graphvine.protocol.greeting import Greeting

    greeting = Greeting(SECRET, "client")
    said = greeting.begin()
    while greeting.wanted or said:
        for byte in said:
            link.sendall(bytes([byte]))
        said = greeting.feed(bulk.receive_exactly(link, greeting.wanted)) if greeting.wanted else b""
    asking = bulk.Link(link, "server")
    assert asking.ask(1, 1) is False
    into = bytearray(1)
    asking.receive(memoryview(into))
    assert into == b"x"
    asking.close()


def test_those_who_are_gone_before_they_are_let_in_do_no_harm(
    server: TransferServer, encrypted: bool
) -> None:
    for words in (b"", b"x", b"x" * 1000, HELLO):
        for _ in range(50):
            link = knock(server)
            link.sendall(words)
            # Torn off: nothing of it can be asked any more.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()
    fetch(server, encrypted)
