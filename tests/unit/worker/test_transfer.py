from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphvine.protocol import bulk
from graphvine.protocol.addresses import host_addresses
from graphvine.protocol.messages import Address
from graphvine.worker.server import TransferServer
from graphvine.worker.transfer import Fetched, Fetcher, FetchFailed, Probed

SECRET = "a secret"
MB = 2**20


class Files:
    """What a server holds: content or path by number."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.held: dict[int, str | bytes] = {}
        self.asked: list[int] = []

    def add(self, file: int, data: bytes) -> bytes:
        path = self.directory / f"held-{file}"
        path.write_bytes(data)
        self.held[file] = str(path)
        return data

    def lookup(self, file: int, timeout_s: float) -> str | bytes | None:
        self.asked.append(file)
        return self.held.get(file)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def encrypted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def server(files: Files, encrypted: bool) -> Iterator[TransferServer]:
    made = TransferServer(files.lookup, SECRET, "127.0.0.1", max_links=4, encrypted=encrypted)
    yield made
    made.close()


@pytest.fixture
def fetcher(encrypted: bool) -> Iterator[Fetcher]:
    made = Fetcher(SECRET, timeout_s=10, encrypted=encrypted)
    yield made
    made.close()


def outcomes(fetcher: Fetcher, count: int) -> list[Fetched | FetchFailed | Probed]:
    got: list[Fetched | FetchFailed | Probed] = []
    deadline = time.monotonic() + 20
    while len(got) < count:
        assert select.select([fetcher.descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]
        got += fetcher.completed()
    return got


def dead_address() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return Address("127.0.0.1", listener.getsockname()[1])


@pytest.mark.parametrize("size", [0, 1, 1000, MB - 1, MB, MB + 1, 8 * MB, 20 * MB + 3])
def test_a_file_arrives_whole(
    size: int, files: Files, server: TransferServer, fetcher: Fetcher, tmp_path: Path
) -> None:
    data = files.add(1, os.urandom(size))
    fetcher.start(1, size, 3, server.addresses, str(tmp_path / "here"))
    assert outcomes(fetcher, 1) == [Fetched(1, size, 3)]
    assert (tmp_path / "here").read_bytes() == data


def test_the_manager_fetches_into_memory(files: Files, server: TransferServer, encrypted: bool) -> None:
    data = files.add(1, os.urandom(5 * MB + 1))
    addresses = [dead_address(), *server.addresses]
    assert bulk.fetch(addresses, 1, SECRET, len(data), encrypted=encrypted) == data
    files.held[2] = b"in memory"
    assert bulk.fetch(server.addresses, 2, SECRET, 9, encrypted=encrypted) == b"in memory"


def test_links_are_used_again(
    files: Files, server: TransferServer, fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    connect = bulk.connect
    monkeypatch.setattr(
        "graphvine.worker.transfer.connect", lambda *a, **k: made.append(a) or connect(*a, **k)
    )
    for file in range(5):
        files.add(file, b"x" * file)
        fetcher.start(file, file, 1, server.addresses, str(tmp_path / str(file)))
        assert outcomes(fetcher, 1) == [Fetched(file, file, 1)]
    assert len(made) == 1


def test_more_at_once_than_links_and_threads(
    files: Files, server: TransferServer, tmp_path: Path, encrypted: bool
) -> None:
    fetchers = [Fetcher(SECRET, per_source=4, encrypted=encrypted) for _ in range(4)]
    for file in range(20):
        files.add(file, bytes([file]) * (100 * file))
    for number, fetcher in enumerate(fetchers):
        for file in range(20):
            fetcher.start(file, 100 * file, 1, server.addresses, str(tmp_path / f"{number}-{file}"))
    for number, fetcher in enumerate(fetchers):
        done = outcomes(fetcher, 20)
        assert {type(event) for event in done} == {Fetched}, done
        assert (tmp_path / f"{number}-19").read_bytes() == bytes([19]) * 1900
        fetcher.close()


def test_one_source_is_not_asked_for_more_than_its_bound_at_once(files: Files, tmp_path: Path) -> None:
    at_once, most, lock = 0, 0, threading.Lock()
    both_here = threading.Barrier(2)

    def lookup(file: int, timeout_s: float) -> bytes:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        both_here.wait(10)
        with lock:
            at_once -= 1
        return b"x"

    server = TransferServer(lookup, SECRET, "127.0.0.1")
    fetcher = Fetcher(SECRET, per_source=2)
    for file in range(8):
        fetcher.start(file, 1, 1, server.addresses, str(tmp_path / str(file)))
    assert len(outcomes(fetcher, 8)) == 8
    fetcher.close()
    server.close()
    assert most == 2


def test_what_is_not_held_or_of_another_size_fails_and_leaves_no_file(
    files: Files, server: TransferServer, fetcher: Fetcher, tmp_path: Path
) -> None:
    files.add(2, b"two")
    (tmp_path / "gone").write_bytes(b"")
    files.held[3] = str(tmp_path / "vanished")
    for file, path in ((1, "one"), (2, "two"), (3, "three")):
        fetcher.start(file, 5, 9, server.addresses, str(tmp_path / path))
    failed = {event.file: event for event in outcomes(fetcher, 3) if isinstance(event, FetchFailed)}
    assert "does not hold file 1" in failed[1].reason
    assert "has 3 bytes; 5 were expected" in failed[2].reason
    assert "does not hold file 3" in failed[3].reason
    assert not any(event.link for event in failed.values())
    assert not any((tmp_path / name).exists() for name in ("one", "two", "three"))


def test_a_peer_that_cannot_be_reached_fails_and_is_remembered(
    fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []
    connect = bulk.connect
    monkeypatch.setattr(
        "graphvine.worker.transfer.connect", lambda *a, **k: tried.append(a) or connect(*a, **k)
    )
    address = dead_address()
    for file in (1, 2, 3):
        fetcher.start(file, 5, 9, [address], str(tmp_path / "x"))
        (event,) = outcomes(fetcher, 1)
        assert isinstance(event, FetchFailed)
        assert event.link == "refused"
        assert str(address.port) in event.reason
    assert len(tried) == 1


def test_a_probe_tells_what_it_found_and_keeps_the_link_it_made(
    files: Files,
    server: TransferServer,
    fetcher: Fetcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[object] = []
    connect = bulk.connect
    monkeypatch.setattr(
        "graphvine.worker.transfer.connect", lambda *a, **more: made.append(a) or connect(*a, **more)
    )
    fetcher.probe(8, [dead_address()])
    fetcher.probe(9, server.addresses)
    assert outcomes(fetcher, 2) == [Probed(8, "refused"), Probed(9, "made")]
    files.add(1, b"data")
    fetcher.start(1, 4, 9, server.addresses, str(tmp_path / "here"))
    assert outcomes(fetcher, 1) == [Fetched(1, 4, 9)]
    assert len(made) == 2, "the link that the probe made was used"


def test_a_probe_is_made_although_the_peer_was_out_of_reach_just_before(
    files: Files, server: TransferServer, fetcher: Fetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = bulk.connect

    def fail(*_: object, **__: object) -> None:
        raise bulk.UnreachableError("no answer", silent=True)

    files.add(1, b"data")
    monkeypatch.setattr("graphvine.worker.transfer.connect", fail)
    fetcher.start(1, 4, 9, server.addresses, str(tmp_path / "x"))
    (event,) = outcomes(fetcher, 1)
    assert isinstance(event, FetchFailed)
    assert event.link == "silent"
    monkeypatch.setattr("graphvine.worker.transfer.connect", connect)
    fetcher.probe(9, server.addresses)
    assert outcomes(fetcher, 1) == [Probed(9, "made")]
    fetcher.start(1, 4, 9, server.addresses, str(tmp_path / "x"))
    assert outcomes(fetcher, 1) == [Fetched(1, 4, 9)]


def test_damage_is_reported_with_the_holder(
    files: Files, server: TransferServer, fetcher: Fetcher, tmp_path: Path
) -> None:
    files.add(1, b"right")
    fetcher.start(1, 5, 9, server.addresses, str(tmp_path / "x"))
    assert outcomes(fetcher, 1) == [Fetched(1, 5, 9)]
    # The server knows the checksum by now: what has changed since is damage.
    (tmp_path / "held-1").write_bytes(b"wrong")
    fetcher.start(1, 5, 9, server.addresses, str(tmp_path / "x"))
    (event,) = outcomes(fetcher, 1)
    assert isinstance(event, FetchFailed)
    assert "damaged" in event.reason
    assert event.holder == 9
    assert not (tmp_path / "x").exists()


def test_a_full_disk_is_told_apart(
    files: Files, server: TransferServer, fetcher: Fetcher, tmp_path: Path
) -> None:
    for file, size in ((1, 100), (2, 10 * MB)):
        files.add(file, bytes(size))
        path = tmp_path / str(file)
        path.symlink_to("/dev/full")
        fetcher.start(file, size, 9, server.addresses, str(path))
    for event in outcomes(fetcher, 2):
        assert isinstance(event, FetchFailed)
        assert event.no_room
        assert "No space left" in event.reason
        assert not (tmp_path / str(event.file)).is_symlink()


def test_a_stranger_is_cut_off_and_logged_once(
    files: Files,
    server: TransferServer,
    fetcher: Fetcher,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    encrypted: bool,
) -> None:
    files.add(1, b"x")
    with caplog.at_level(logging.WARNING, logger="graphvine"):
        for _ in range(3):
            with pytest.raises(bulk.RefusedError):
                bulk.fetch(server.addresses, 1, "wrong", 1, encrypted=encrypted)
        stranger = Fetcher("wrong too", encrypted=encrypted)
        stranger.start(1, 1, 9, server.addresses, str(tmp_path / "x"))
        (event,) = outcomes(stranger, 1)
        stranger.close()
    assert isinstance(event, FetchFailed)
    assert files.asked == []
    assert len(caplog.records) == 1
    assert "a transfer link from 127.0.0.1 was refused" in caplog.text
    fetcher.start(1, 1, 9, server.addresses, str(tmp_path / "x"))
    assert outcomes(fetcher, 1) == [Fetched(1, 1, 9)]


def test_idle_links_make_room_for_new_ones(files: Files, server: TransferServer, encrypted: bool) -> None:
    files.add(1, b"x")
    idle = [bulk.connect(server.addresses, SECRET, encrypted=encrypted) for _ in range(4)]
    for link in idle:
        link.ask(1, 1)
        link.receive(memoryview(bytearray(1)))
    bulk.fetch(server.addresses, 1, SECRET, 1, encrypted=encrypted)
    for link in idle:
        link.close()


def test_a_kept_link_that_the_other_side_closed_is_made_anew(
    files: Files, fetcher: Fetcher, tmp_path: Path, encrypted: bool
) -> None:
    files.add(1, b"x")
    server = TransferServer(files.lookup, SECRET, "127.0.0.1", max_links=1, encrypted=encrypted)
    fetcher.start(1, 1, 9, server.addresses, str(tmp_path / "x"))
    assert outcomes(fetcher, 1) == [Fetched(1, 1, 9)]
    bulk.fetch(server.addresses, 1, SECRET, 1, encrypted=encrypted)
    fetcher.start(1, 1, 9, server.addresses, str(tmp_path / "x"))
    assert outcomes(fetcher, 1) == [Fetched(1, 1, 9)]
    server.close()


def test_cancelled_fetches_are_not_reported(files: Files, tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def lookup(file: int, timeout_s: float) -> bytes:
        if file < 100:
            asked.set()
            go_on.wait(10)
        return b"x"

    server = TransferServer(lookup, SECRET, "127.0.0.1")
    fetcher = Fetcher(SECRET, total=1)
    for file in (1, 2, 100):
        fetcher.start(file, 1, 9, server.addresses, str(tmp_path / str(file)))
    assert asked.wait(10)
    fetcher.cancel(2)
    fetcher.cancel(1)
    fetcher.cancel(55)
    assert outcomes(fetcher, 1) == [Fetched(100, 1, 9)]
    go_on.set()
    fetcher.close()
    server.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["100"]


def test_a_holder_that_goes_silent_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet_and_fall_silent() -> None:
            link, _ = listener.accept()
            with link:
                bulk.greet(link, SECRET, "server")
                bulk.receive_request(link)
                link.sendall(bulk.ANSWER.pack(100, False) + b"a few bytes")
                link.recv(1)

        thread = threading.Thread(target=greet_and_fall_silent)
        thread.start()
        fetcher = Fetcher(SECRET, timeout_s=0.3)
        address = Address("127.0.0.1", listener.getsockname()[1])
        fetcher.start(1, 100, 9, [address], str(tmp_path / "x"))
        (event,) = outcomes(fetcher, 1)
        assert isinstance(event, FetchFailed)
        assert "slow or silent" in event.reason
        assert event.link == "silent"
        fetcher.close()
        thread.join()


def test_close_ends_what_is_under_way(files: Files, tmp_path: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def lookup(file: int, timeout_s: float) -> None:
        asked.set()
        go_on.wait(10)

    server = TransferServer(lookup, SECRET, "127.0.0.1")
    fetcher = Fetcher(SECRET)
    fetcher.start(1, 1, 9, server.addresses, str(tmp_path / "x"))
    assert asked.wait(10)
    fetcher.close()
    go_on.set()
    server.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("graphvine")]


def test_addresses_name_the_port_and_never_all_interfaces() -> None:
    server = TransferServer(lambda file, timeout_s: None, SECRET)
    assert server.addresses
    assert all(address.port > 0 and address.host not in ("", "0.0.0.0") for address in server.addresses)
    server.close()
    assert host_addresses()
