from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from graphvine.protocol.trees import NewTree
from graphvine.worker.executor import SINGLE_BYTES, Blobs, Executor, PeakMemory, write_value_file
from graphvine.worker.marks import make_page, map_page, read_mark
from graphvine.worker.modules import Contexts
from graphvine.worker.packets import ExecutorUp, FromExecutor, Packet, PacketDone, PacketTask


def blob(path: Path, *entries: object) -> str:
    path.write_bytes(pickle.dumps(list(entries)))
    return str(path)


def test_blobs_are_unpickled_once_while_they_fit(tmp_path: Path) -> None:
    blobs = Blobs(budget_bytes=200)
    for number in (1, 2, 3):
        blobs.tell(number, blob(tmp_path / str(number), (len, (b"x" * 40,), ())))
    first = blobs.get(1)
    assert blobs.get(1) is first
    second = blobs.get(2)
    blobs.get(1)
    # The third is one too many: the one used longest ago goes, and is read again when it is needed.
    blobs.get(3)
    assert blobs.get(1) is first
    assert blobs.get(2) is not second
    with pytest.raises(KeyError):
        blobs.get(4)


def test_one_blob_larger_than_all_room_is_kept_while_it_is_in_use(tmp_path: Path) -> None:
    blobs = Blobs(budget_bytes=1)
    blobs.tell(1, blob(tmp_path / "1", (len, (b"x" * 100,), ())))
    assert blobs.get(1) is blobs.get(1)


def test_a_large_blob_of_one_task_is_not_kept(tmp_path: Path) -> None:
    blobs = Blobs()
    large = (len, (b"x" * SINGLE_BYTES,), ())
    blobs.tell(1, blob(tmp_path / "1", large))
    blobs.tell(2, blob(tmp_path / "2", large, large))
    assert blobs.get(1) is not blobs.get(1)
    assert blobs.get(2) is blobs.get(2)


def test_peak_memory_falls_when_it_is_reset() -> None:
    memory = PeakMemory()
    block = bytearray(100 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    high = memory.read_mb()
    del block
    memory.reset()
    assert memory.read_mb() < high - 90


def test_a_value_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    assert write_value_file(str(tmp_path), 7, [b"one", b"two"]) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["7"]
    with pytest.raises(TypeError):
        write_value_file(str(tmp_path), 8, [b"one", object()])  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == ["7"]


@pytest.fixture
def agent_end(tmp_path: Path) -> Iterator[socket.socket]:
    """An executor's loop in a thread; what it says comes out of this socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptor = make_page()
    with map_page(descriptor) as page, ours, theirs:
        os.close(descriptor)
        executor = Executor(theirs, page, str(tmp_path), Contexts())
        thread = threading.Thread(target=executor.serve)
        thread.start()
        yield ours
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()
        assert read_mark(page) == (None, None)


def said(link: socket.socket) -> FromExecutor:
    link.settimeout(20)
    return msgspec.msgpack.decode(link.recv(200_000), type=FromExecutor)  # type: ignore[arg-type, return-value]


def done_by(
    link: socket.socket, directory: Path, entries: list[object], tasks: list[PacketTask]
) -> PacketDone:
    """What a fresh executor says of a packet, all of whose tasks but those of other blobs are entries of
    blob 1."""
    packet = Packet(
        3, [], [(1, blob(directory / "blob", *entries))], tasks, str(directory), 100, patience_s=60.0
    )
    assert said(link) == ExecutorUp(os.getpid())
    link.send(msgspec.msgpack.encode(packet))
    results = []
    while True:
        done = said(link)
        assert isinstance(done, PacketDone)
        # Results that are there for some time are sent ahead.
        results += done.results
        if done.finished:
            return msgspec.structs.replace(done, results=results)


def test_a_failed_task_does_not_keep_the_next_ones_from_running(
    agent_end: socket.socket, tmp_path: Path
) -> None:
    entries = [(int, ("no number",), ()), (int, ("5",), ()), (int, (None,), (0,))]
    tasks = [
        PacketTask(10, 1, 0, 0, 0, []),
        PacketTask(11, 1, 0, 1, 4, []),
        PacketTask(12, 1, 0, 2, 0, [pickle.dumps("6")]),
        PacketTask(13, 1, 0, 2, 0, ["/absent/7"]),
        PacketTask(14, 1, 0, 3, 0, []),
        PacketTask(15, 2, 0, 0, 0, []),
        PacketTask(16, 1, 9, 1, 0, []),
    ]
    done = done_by(agent_end, tmp_path, entries, tasks)
    assert (done.number, done.finished) == (3, True)
    kinds = {result.task: result.kind for result in done.results}
    unknown = dict.fromkeys((14, 15, 16), "undecodable")
    assert kinds == {10: "raised", 11: "", 12: "", 13: "vanished"} | unknown
    assert done.results[3].text == "7"
    assert [pickle.loads(result.value) for result in done.results if result.value] == [5, 6]
    assert done.results[1].attempt == 4
    assert isinstance(pickle.loads(done.results[0].error), ValueError)


class Unpicklable(list[int]):
    """What only its own process can hold."""

    def __reduce__(self) -> str:
        raise TypeError("not to be pickled")


def test_values_are_passed_on_as_they_are(agent_end: socket.socket, tmp_path: Path) -> None:
    entries = [(Unpicklable, ([1, 2],), ()), (len, (None,), (0,)), (sorted, (None,), (0,))]
    tasks = [
        PacketTask(10, 1, 0, 0, 0, [], 2, False),
        PacketTask(11, 1, 0, 1, 0, [10]),
        PacketTask(12, 1, 0, 2, 0, [10]),
    ]
    done = done_by(agent_end, tmp_path, entries, tasks)
    first = done.results[0]
    assert (first.task, first.kind, first.size) == (10, "", 0)
    assert [pickle.loads(result.value) for result in done.results if result.value] == [2, [1, 2]]
    assert (done.given_back, done.finished) == ([], True)
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]


def test_what_is_passed_on_and_needed_elsewhere_too_is_kept(agent_end: socket.socket, tmp_path: Path) -> None:
    entries = [(bytes, (5000,), ()), (len, (None,), (0,))]
    tasks = [PacketTask(10, 1, 0, 0, 0, [], 1, True), PacketTask(11, 1, 0, 1, 0, [10])]
    done = done_by(agent_end, tmp_path, entries, tasks)
    assert [result.task for result in done.results] == [10, 11]
    assert (tmp_path / "10").stat().st_size == done.results[0].size > 5000


def test_a_tree_is_kept_and_read_from_the_store(agent_end: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "made").write_text("by the task")
    entries = [(NewTree, (str(tmp_path / "made"),), ()), (len, (None,), (0,))]
    tasks = [PacketTask(10, 1, 0, 0, 0, [], 1, False), PacketTask(11, 1, 0, 1, 0, [10])]
    done = done_by(agent_end, tmp_path, entries, tasks)
    assert [(result.task, result.kind, result.size > 0) for result in done.results] == [(10, "", True)]
    assert done.given_back == [11]


def upper_in_child(text: str) -> str:
    return text.upper()


upper_in_child.graphvine_in_child = True  # type: ignore[attr-defined]


def test_what_a_child_makes_is_kept_and_it_takes_what_is_passed_on(
    agent_end: socket.socket, tmp_path: Path
) -> None:
    entries = [(str, ("passed on",), ()), (upper_in_child, (None,), (0,)), (len, (None,), (0,))]
    tasks = [
        PacketTask(10, 1, 0, 0, 0, [], 1, False),
        PacketTask(11, 1, 0, 1, 0, [10], 1, False),
        PacketTask(12, 1, 0, 2, 0, [11]),
    ]
    done = done_by(agent_end, tmp_path, entries, tasks)
    assert [(result.task, result.kind, result.text) for result in done.results] == [
        (10, "", ""),
        (11, "", ""),
    ]
    assert done.results[1].value is not None
    assert pickle.loads(done.results[1].value) == "PASSED ON"
    assert done.given_back == [12]
