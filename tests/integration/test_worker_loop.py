"""Real worker processes on a real socket, told what to do by a manager that is a test."""

from __future__ import annotations

import math
import operator
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import xxhash
from tests.integration.conftest import family
from tests.integration.fake_manager import TIMEOUT_S, FakeManager, blob

from graphvine.protocol import values
from graphvine.protocol.messages import (
    Assign,
    Cancel,
    Drop,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    Piece,
    Pull,
    Recall,
    Refused,
    Rejoin,
    Report,
    Source,
    Sources,
    TaskOrder,
)
from graphvine.protocol.pieces import PIECE_BYTES
from graphvine.worker.loop import Loop, Offer
from graphvine.worker.node import free_disk_mb
from graphvine.worker.pool import Pool
from graphvine.worker.settings import Settings
from graphvine.worker.store import Store

BLOB = 1000


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    manager = FakeManager()
    yield manager
    manager.close()


def await_file(path: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_tasks_run_in_order_and_results_come_back(manager: FakeManager, tmp_path: Path) -> None:
    process = manager.start_worker(tmp_path)
    worker = manager.welcome()
    add, double = (operator.add, (1, 2), ()), (operator.mul, (None, 2), (0,))
    manager.say(
        worker, Assign([TaskOrder(1, BLOB, 0, []), TaskOrder(2, BLOB, 1, [1])], [blob(BLOB, add, double)])
    )
    done = manager.collect(2)
    assert [pickle.loads(done[task].value or b"") for task in (1, 2)] == [3, 6]
    manager.say(worker, Leave("enough"))
    assert process.wait(TIMEOUT_S) == 0
    assert not os.path.exists(manager.hellos[worker].store)


def test_the_disk_that_it_offers_is_the_one_its_sandboxes_lie_on(
    manager: FakeManager, tmp_path: Path
) -> None:
    manager.start_worker(tmp_path)
    offered = manager.hellos[manager.welcome()].capacity.disk_mb
    in_memory = free_disk_mb("/dev/shm") if os.path.isdir("/dev/shm") else math.inf
    assert abs(offered - free_disk_mb(str(tmp_path))) <= abs(offered - in_memory)


def test_a_large_result_stays_until_it_is_dropped(manager: FakeManager, tmp_path: Path) -> None:
    manager.start_worker(tmp_path)
    worker = manager.welcome()
    entries = [(bytes, (50_000,), ()), (len, (None,), (0,))]
    manager.say(
        worker, Assign([TaskOrder(1, BLOB, 0, []), TaskOrder(2, BLOB, 1, [1])], [blob(BLOB, *entries)])
    )
    done = manager.collect(2)
    assert done[1].value is None
    assert pickle.loads(done[2].value or b"") == 50_000
    path = Path(manager.hellos[worker].store) / "1"
    assert path.stat().st_size == done[1].size
    assert values.loads_file(str(path)) == bytes(50_000)
    manager.say(worker, Drop([1]), Pull(1, 0, 100, 0))
    _, piece = manager.expect(Piece)
    assert piece.total == -1
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_goodbye(manager: FakeManager, tmp_path: Path, number: int) -> None:
    process = manager.start_worker(tmp_path)
    manager.welcome()
    process.send_signal(number)
    manager.expect(Goodbye)
    assert process.wait(TIMEOUT_S) == 0


def test_it_ends_with_the_process_that_started_it(manager: FakeManager, tmp_path: Path) -> None:
    process = manager.start_worker(tmp_path)
    manager.welcome()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(TIMEOUT_S) == 0


def test_a_killed_agent_leaves_nothing(manager: FakeManager, tmp_path: Path) -> None:
    process = manager.start_worker(tmp_path)
    worker = manager.welcome()
    manager.say(worker, Assign([TaskOrder(1, BLOB, 0, [])], [blob(BLOB, (operator.add, (1, 2), ()))]))
    manager.collect(1)
    children = family(process.pid)
    assert children
    process.kill()
    process.wait(TIMEOUT_S)
    _, alive = psutil.wait_procs(children, timeout=TIMEOUT_S)
    assert alive == []


def test_a_refused_worker_says_why(manager: FakeManager, tmp_path: Path) -> None:
    process = manager.start_worker(tmp_path)
    identity, _ = manager.expect(Hello)
    manager.say(identity, Refused("another version"))
    assert process.wait(TIMEOUT_S) == 1
    assert "the manager refused this worker: another version" in (tmp_path / "worker.log").read_text()


def test_heartbeats_go_on_while_a_task_holds_the_gil(manager: FakeManager, tmp_path: Path) -> None:
    manager.start_worker(tmp_path, "--cores", "1")
    worker = manager.welcome(heartbeat_s=0.05)
    source = "__import__('ctypes').PyDLL(None).usleep(400_000)"
    manager.say(worker, Assign([TaskOrder(1, BLOB, 0, [])], [blob(BLOB, (eval, (source,), ()))]))
    for _ in range(3):
        manager.expect(Heartbeat, lambda beat: beat.running == 1)
    manager.collect(1)


def test_a_task_that_kills_its_executor_is_reported_and_its_neighbours_run(
    manager: FakeManager, tmp_path: Path
) -> None:
    manager.start_worker(tmp_path, "--cores", "1")
    worker = manager.welcome()
    deadly = (eval, ("__import__('os').kill(__import__('os').getpid(), 9)",), ())
    entries = [deadly, (operator.add, (1, 2), ())]
    orders = [TaskOrder(1, BLOB, 0, [], 1), TaskOrder(2, BLOB, 1, [], 2), TaskOrder(3, BLOB, 1, [], 2)]
    manager.say(worker, Assign(orders, [blob(BLOB, *entries)]))
    _, report = manager.expect(Report, lambda report: bool(report.failed))
    assert [(failed.task, failed.kind) for failed in report.failed] == [(1, "killed")]
    assert "signal 9" in report.failed[0].text or "SIGKILL" in report.failed[0].text
    assert set(manager.collect(2)) == {2, 3}


def test_a_cancelled_task_is_stopped_and_a_recalled_one_given_back(
    manager: FakeManager, tmp_path: Path
) -> None:
    manager.start_worker(tmp_path, "--cores", "1")
    worker = manager.welcome()
    began = tmp_path / "began"
    source = f"(open({str(began)!r}, 'w').close(), __import__('time').sleep(60))"
    entries = [(eval, (source,), ()), (operator.add, (1, 2), ())]
    orders = [TaskOrder(1, BLOB, 0, [], 1), TaskOrder(2, BLOB, 1, [], 2), TaskOrder(3, BLOB, 1, [], 2)]
    manager.say(worker, Assign(orders, [blob(BLOB, *entries)]))
    await_file(began)
    manager.say(worker, Recall([1, 3]))
    _, report = manager.expect(Report)
    assert report.returned == [3]
    manager.say(worker, Cancel([1]))
    assert set(manager.collect(1)) == {2}


def test_a_file_comes_from_a_peer_and_a_dead_peer_is_reported(manager: FakeManager, tmp_path: Path) -> None:
    holder_process = manager.start_worker(tmp_path / "one", "--cores", "1")
    holder = manager.welcome(1)
    make = Assign(
        [TaskOrder(1, BLOB, 0, []), TaskOrder(2, BLOB, 0, [])], [blob(BLOB, (bytes, (50_000,), ()))]
    )
    manager.say(holder, make)
    size = manager.collect(2)[1].size
    manager.start_worker(tmp_path / "two", "--cores", "1")
    other = manager.welcome(2)
    peers = {1: manager.hellos[holder].addresses}
    count = blob(BLOB + 1, (len, (None,), (0,)))
    fetch = Assign([TaskOrder(3, BLOB + 1, 0, [1])], [count], sources=[Source(1, size, [1])], peers=peers)
    manager.say(other, fetch)
    _, report = manager.expect(Report, lambda report: bool(report.fetched))
    assert report.fetched == [1]
    assert 3 in {d.task for d in report.done} or 3 in manager.collect(1)
    holder_process.kill()
    holder_process.wait()
    manager.say(other, Assign([TaskOrder(4, BLOB + 1, 0, [2])], sources=[Source(2, size, [1])]))
    _, report = manager.expect(Report, lambda report: bool(report.missing))
    assert [(missing.file, missing.holders) for missing in report.missing] == [(2, [1])]


def test_what_no_peer_can_send_is_pulled_through_the_manager(manager: FakeManager, tmp_path: Path) -> None:
    manager.start_worker(tmp_path, "--cores", "1")
    worker = manager.welcome(5)
    value = os.urandom(3 * PIECE_BYTES - 100_000)
    data, buffers = values.dumps(bytearray(value))
    content = b"".join(bytes(piece) for piece in values.layout(data, buffers))
    sources = [Source(7, len(content), [])]
    manager.say(
        worker, Assign([TaskOrder(1, BLOB, 0, [7])], [blob(BLOB, (bytes, (None,), (0,)))], sources=sources)
    )
    asked: list[int] = []
    while len(asked) < 4:  # three pieces, and one of them again
        _, pull = manager.expect(Pull)
        assert pull.requester == 5
        part = content[pull.offset : pull.offset + pull.length]
        damage = 1 if pull.offset == PIECE_BYTES and pull.offset not in asked else 0
        asked.append(pull.offset)
        digest = xxhash.xxh3_64_intdigest(part) ^ damage
        manager.say(worker, Piece(7, pull.offset, len(content), part, digest, 5))
    assert sorted(asked) == [0, PIECE_BYTES, PIECE_BYTES, 2 * PIECE_BYTES]
    done = manager.collect(1)
    manager.say(worker, Pull(1, 0, 2**30, 0))
    _, piece = manager.expect(Piece)
    assert piece.total == done[1].size
    assert values.loads(memoryview(bytearray(piece.data))) == value


def test_a_worker_that_was_given_up_joins_again_with_what_it_holds(
    manager: FakeManager, tmp_path: Path
) -> None:
    manager.start_worker(tmp_path, "--cores", "1")
    worker = manager.welcome()
    manager.say(worker, Assign([TaskOrder(1, BLOB, 0, [])], [blob(BLOB, (bytes, (50_000,), ()))]))
    size = manager.collect(1)[1].size
    manager.say(worker, Rejoin())
    worker = manager.welcome(2)
    assert manager.hellos[worker].holds == [(1, size)]
    manager.say(worker, Assign([TaskOrder(2, BLOB + 1, 0, [1])], [blob(BLOB + 1, (len, (None,), (0,)))]))
    assert pickle.loads(manager.collect(1)[2].value or b"") == 50_000


def test_a_worker_whose_connection_ended_comes_again(manager: FakeManager, tmp_path: Path) -> None:
    manager.start_worker(tmp_path, "--cores", "1")
    worker = manager.welcome()
    manager.say(worker, Assign([TaskOrder(1, BLOB, 0, [])], [blob(BLOB, (bytes, (50_000,), ()))]))
    size = manager.collect(1)[1].size
    manager.drop_connections()
    again = manager.welcome(2)
    assert again != worker
    assert manager.hellos[again].holds == [(1, size)]


def test_a_late_source_is_used(manager: FakeManager, tmp_path: Path) -> None:
    manager.start_worker(tmp_path, "--cores", "1")
    worker = manager.welcome()
    manager.say(worker, Assign([TaskOrder(1, BLOB, 0, [9])], [blob(BLOB, (operator.neg, (None,), (0,)))]))
    manager.expect(Report, lambda report: [missing.file for missing in report.missing] == [9])
    manager.say(worker, Sources([], values={9: pickle.dumps(5)}))
    assert pickle.loads(manager.collect(1)[1].value or b"") == -5


def test_a_worker_that_finds_no_manager_gives_up(manager: FakeManager, tmp_path: Path) -> None:
    manager.router.close()
    store = Store(None, str(tmp_path))
    pool = Pool(store.scratch, store.scratch, watched=store.directories)
    loop = Loop(manager.connection, store, pool, Offer("w"), Settings(lost_s=0.2, warm_executors=0))
    try:
        ending = loop.run()
    finally:
        loop.close()
        pool.close()
        store.close()
    assert not ending.clean
    assert f"port {manager.connection.port}" in ending.reason


def test_the_addresses_of_a_manager_are_tried_in_turn(manager: FakeManager, tmp_path: Path) -> None:
    here = manager.connection
    # Nobody listens at the first; the second swallows every packet (TEST-NET-1, RFC 5737).
    hosts = ("127.0.0.2", "192.0.2.1", "127.0.0.1")
    manager.connection = msgspec.structs.replace(here, hosts=hosts)
    manager.start_worker(tmp_path, "--cores", "1")
    manager.welcome()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["127.0.0.1", "1"], 1, "no connection file for port 1"),
        (["--connection-file", "/nowhere"], 1, "cannot read the connection file /nowhere"),
        ([], 2, "name the manager: HOST PORT"),
    ],
)
def test_a_worker_that_is_started_wrongly_says_what_to_do(arguments: list[str], code: int, said: str) -> None:
    command = [sys.executable, "-m", "graphvine.worker", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == code
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
