"""Files that go on to others while they arrive, and go on from another holder when one is lost."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash

from graphvine.protocol import bulk, tls, tree_files
from graphvine.protocol.messages import Address
from graphvine.protocol.trees import NewTree
from graphvine.worker.arrivals import Arrivals
from graphvine.worker.server import TransferServer
from graphvine.worker.serving import Held
from graphvine.worker.transfer import Fetched, Fetcher, FetchFailed

SECRET = "a secret"
MB = 2**20


class Peer:
    """A worker's transfer server and fetcher, with what it holds."""

    def __init__(self, directory: Path, name: str, encrypted: bool) -> None:
        self.encrypted = encrypted
        self.directory = directory / name
        self.directory.mkdir()
        self.held: dict[int, str] = {}
        self.arrivals = Arrivals()
        self.server = TransferServer(self.lookup, SECRET, "127.0.0.1", encrypted=encrypted)
        self.fetcher = Fetcher(SECRET, self.arrivals, timeout_s=10, encrypted=encrypted)
        self.events: list[Fetched | FetchFailed] = []

    def lookup(self, file: int, timeout_s: float) -> Held:
        return self.arrivals.get(file, timeout_s) or self.held.get(file)

    @property
    def addresses(self) -> list[Address]:
        return self.server.addresses

    def start(self, file: int, size: int, addresses: list[Address], coming: bool = False) -> None:
        tree_path = self.path(file) + ".tree"
        self.fetcher.start(file, size, 1, addresses, self.path(file), tree_path, coming=coming)

    def path(self, file: int) -> str:
        return str(self.directory / str(file))

    def outcome(self) -> Fetched | FetchFailed:
        """The next event."""
        deadline = time.monotonic() + 20
        while not self.events:
            left = max(0.0, deadline - time.monotonic())
            assert select.select([self.fetcher.descriptor], [], [], left)[0]
            self.events += self.fetcher.completed()
        event = self.events.pop(0)
        if isinstance(event, Fetched):
            tree = self.path(event.file) + ".tree"
            self.held[event.file] = tree if os.path.isdir(tree) else self.path(event.file)
            self.arrivals.forget(event.file)
        return event

    def content(self, file: int) -> bytes:
        return flat(self.held[file])

    def close(self) -> None:
        self.fetcher.close()
        self.arrivals.close()
        self.server.close()


def flat(path: str) -> bytes:
    if not tree_files.is_tree(path):
        return Path(path).read_bytes()
    with tree_files.Reader(path) as reader:
        return reader.read(0, reader.size)


MakePeer = Callable[[str], Peer]


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def encrypted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def peer(tmp_path: Path, encrypted: bool) -> Iterator[MakePeer]:
    made: list[Peer] = []

    def make(name: str) -> Peer:
        made.append(Peer(tmp_path, name, encrypted))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Origin:
    """A holder that sends only so much until it is told to go on, and cuts its links when it is told."""

    def __init__(self, content: bytes, tree: bool, until: int, encrypted: bool) -> None:
        self.encrypted = encrypted
        self.content = content
        self.tree = tree
        self.until = until
        self.asked: list[tuple[int, int, bool]] = []
        self.go_on = threading.Event()
        self.checksum = xxhash.xxh3_64_intdigest(content)
        self._cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._links: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def addresses(self) -> list[Address]:
        return [Address("127.0.0.1", self._listener.getsockname()[1])]

    def cut(self) -> None:
        self._cut = True
        self.go_on.set()

    def close(self) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        for link in self._links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            if self.encrypted:
                link = tls.wrap(link, SECRET, "server")
            self._links.append(link)
            self._threads.append(threading.Thread(target=self._serve, args=(link,)))
            self._threads[-1].start()

    def _serve(self, link: socket.socket) -> None:
        # Whoever asked may go at any time.
        with link, contextlib.suppress(OSError):
            if isinstance(link, tls.TlsSocket):
                link.do_handshake()
            bulk.greet(link, SECRET, "server")
            while (request := bulk.receive_request(link)) is not None:
                self.asked.append(request)
                link.sendall(bulk.ANSWER.pack(len(self.content), self.tree))
                link.sendall(self.content[request[1] : self.until])
                self.go_on.wait(20)
                if self._cut:
                    return
                link.sendall(self.content[max(self.until, request[1]) :])
                link.sendall(bulk.CHECKSUM.pack(self.checksum))


@pytest.fixture(params=["value", "file", "directory"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    """What is sent, one as large as several buffers: a value, or the flat form of a tree."""
    source = tmp_path / "source"
    if request.param == "value":
        return os.urandom(20 * MB + 17)
    if request.param == "file":
        source.write_bytes(os.urandom(20 * MB + 17))
    else:
        for number in range(300):
            path = source / f"sub{number % 3}" / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(10 * MB if number in (70, 200) else number * 10))
    tree_files.take_in(NewTree(str(source)), str(tmp_path / "made"), lambda path: "move")
    return flat(str(tmp_path / "made"))


@pytest.fixture
def is_tree(content: bytes) -> bool:
    return content.startswith(b"gvtree1\n")


@pytest.fixture
def origin(content: bytes, is_tree: bool, encrypted: bool) -> Iterator[Origin]:
    made = Origin(content, is_tree, 12 * MB, encrypted)
    yield made
    made.close()


def chain(origin: Origin, peer: MakePeer, length: int) -> list[Peer]:
    """Peers each of which fetches file 1 from the one before, the first from the origin; all have begun."""
    peers: list[Peer] = []
    for number in range(length):
        one = peer(f"peer{number}")
        one.start(1, len(origin.content), peers[-1].addresses if peers else origin.addresses)
        peers.append(one)
    for one in peers:
        wait_for_bytes(one, 10 * MB)
    return peers


def wait_for_bytes(one: Peer, count: int) -> None:
    arrival = one.arrivals.get(1)
    assert arrival is not None
    assert arrival.wait_beyond(count) > count


def test_what_arrives_goes_on_at_once(origin: Origin, content: bytes, peer: MakePeer) -> None:
    # The last one of the chain has most of it while the origin has not sent it all.
    peers = chain(origin, peer, 4)
    origin.go_on.set()
    for one in reversed(peers):
        assert one.outcome() == Fetched(1, len(content), 1)
        assert one.content(1) == content
    assert origin.asked == [(1, 0, False)]


def test_when_the_holder_is_lost_it_goes_on_from_another(
    origin: Origin, content: bytes, is_tree: bool, peer: MakePeer
) -> None:
    first, second = chain(origin, peer, 2)
    another = Origin(content, is_tree, len(content), origin.encrypted)
    another.go_on.set()
    origin.cut()
    failed = first.outcome()
    assert isinstance(failed, FetchFailed)
    assert failed.kept
    # The one behind it knows nothing of that.
    assert first.fetcher.go_on(1, len(content), 2, another.addresses)
    assert first.outcome() == Fetched(1, len(content), 2)
    assert second.outcome() == Fetched(1, len(content), 1)
    assert first.content(1) == second.content(1) == content
    ((_, offset, _),) = another.asked
    assert offset > 10 * MB
    another.close()


def test_when_one_in_the_middle_gives_up_those_behind_go_on_elsewhere(
    origin: Origin, content: bytes, peer: MakePeer
) -> None:
    first, second, third = chain(origin, peer, 3)
    second.fetcher.cancel(1)
    failed = third.outcome()
    assert isinstance(failed, FetchFailed)
    assert third.fetcher.go_on(1, len(content), 2, first.addresses)
    origin.go_on.set()
    assert third.outcome() == Fetched(1, len(content), 2)
    assert first.outcome() == Fetched(1, len(content), 1)
    assert third.content(1) == first.content(1) == content
    assert second.fetcher.completed() == []


def test_damage_reaches_nobody_as_a_whole_file(origin: Origin, content: bytes, peer: MakePeer) -> None:
    peers = chain(origin, peer, 3)
    origin.checksum += 1
    origin.go_on.set()
    for number, one in enumerate(peers):
        failed = one.outcome()
        assert isinstance(failed, FetchFailed)
        # Those behind it have all the bytes, and nobody who says that they are right.
        assert failed.kept == (number > 0)
        one.fetcher.cancel(1)
        if not number:
            assert "damaged" in failed.reason
        assert list(one.directory.iterdir()) == []


def test_a_holder_that_has_nothing_yet_keeps_nobody_waiting_for_other_files(
    origin: Origin, content: bytes, peer: MakePeer
) -> None:
    # The parent's one slot is taken by a file that does not go on; what it was told of next waits.
    parent, child = peer("parent"), peer("child")
    parent.fetcher.close()
    parent.fetcher = Fetcher(SECRET, parent.arrivals, total=1, encrypted=parent.encrypted)
    parent.start(1, len(content), origin.addresses)
    wait_for_bytes(parent, MB)
    stored = parent.directory / "stored"
    stored.write_bytes(b"here")
    parent.held[3] = str(stored)
    parent.start(2, len(content), origin.addresses)
    child.fetcher.close()
    child.fetcher = Fetcher(SECRET, child.arrivals, total=1, per_source=1, encrypted=child.encrypted)
    child.start(2, len(content), parent.addresses)
    child.start(3, 4, parent.addresses)
    assert child.outcome() == Fetched(3, 4, 1)
    origin.go_on.set()
    assert child.outcome() == Fetched(2, len(content), 1)
    assert child.content(2) == content
    assert {type(parent.outcome()), type(parent.outcome())} == {Fetched}


def test_one_that_is_about_to_be_told_of_a_file_is_waited_for(
    origin: Origin, content: bytes, peer: MakePeer
) -> None:
    parent, child, stranger = peer("parent"), peer("child"), peer("stranger")
    child.start(1, len(content), parent.addresses, coming=True)
    stranger.start(1, len(content), parent.addresses)
    assert isinstance(stranger.outcome(), FetchFailed)
    parent.start(1, len(content), origin.addresses)
    origin.go_on.set()
    assert child.outcome() == Fetched(1, len(content), 1)
    assert child.content(1) == content


def test_who_waits_for_one_that_never_gets_it_is_told(content: bytes, peer: MakePeer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        parent, child = peer("parent"), peer("child")
        parent.start(1, len(content), [Address("127.0.0.1", silent.getsockname()[1])])
        child.start(1, len(content), parent.addresses)
        link, _ = silent.accept()
        parent.fetcher.cancel(1)
        failed = child.outcome()
        assert isinstance(failed, FetchFailed)
        assert "does not hold file 1" in failed.reason
        link.close()


def test_a_tree_cannot_go_on_as_a_value(peer: MakePeer) -> None:
    value = bytes(3 * MB)
    one = peer("one")
    first = Origin(value, False, 2 * MB, one.encrypted)
    second = Origin(value, True, 3 * MB, one.encrypted)
    one.start(1, 3 * MB, first.addresses)
    wait_for_bytes(one, MB)
    first.cut()
    assert isinstance(one.outcome(), FetchFailed)
    second.go_on.set()
    assert one.fetcher.go_on(1, 3 * MB, 2, second.addresses)
    failed = one.outcome()
    assert isinstance(failed, FetchFailed)
    assert not failed.kept
    assert not one.fetcher.go_on(1, 3 * MB, 2, second.addresses)
    first.close()
    second.close()
