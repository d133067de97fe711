"""What tasks print is seen by the user, and does no harm."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import StartWorker

from graphvine.manager.manager import Manager


def show(number: int) -> int:
    print(f"number {number}")
    print(f"complaint {number}", file=sys.stderr)
    return number


def test_prints_of_tasks_are_seen_before_their_results(
    manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        assert manager.get({"a": (show, number)}, "a") == number
        said = capsys.readouterr()
        assert said.out == f"number {number}\n"
        assert said.err == f"complaint {number}\n"


def test_prints_of_many_tasks_come_in_whole_lines(
    manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    manager.get({("t", i): (show, i) for i in range(1000)}, [("t", i) for i in range(1000)])
    said = capsys.readouterr()
    assert sorted(said.out.splitlines()) == sorted(f"number {i}" for i in range(1000))
    assert sorted(said.err.splitlines()) == sorted(f"complaint {i}" for i in range(1000))


def test_prints_of_submitted_calls_are_seen(manager: Manager, capsys: pytest.CaptureFixture[str]) -> None:
    with manager.executor() as executor:
        assert executor.submit(show, 3).result() == 3
        assert capsys.readouterr().out == "number 3\n"


def test_prints_of_other_workers_are_seen(
    bare_manager: Manager, start_worker: StartWorker, capsys: pytest.CaptureFixture[str]
) -> None:
    start_worker(bare_manager)
    bare_manager.get({"a": (show, 1)}, "a")
    assert capsys.readouterr().out == "number 1\n"


def test_who_does_not_want_to_see_them_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    with Manager(local_workers=1, show_output=False) as quiet:
        assert quiet.get({"a": (show, 1)}, "a") == 1
    assert capsys.readouterr() == ("", "")


def flood(total_bytes: int) -> int:
    line = "x" * 999 + "\n"
    for _ in range(total_bytes // 1000):
        sys.stdout.write(line)
    return total_bytes


def log_bytes(manager: Manager) -> int:
    scratch = Path(manager._staging).parent
    return sum(path.stat().st_size for path in scratch.rglob("*.log*"))


def test_a_flood_fills_neither_disk_nor_memory_and_blocks_nobody(
    manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    total = 200 * 2**20
    manager.get({"warm": (show, 0)}, "warm")
    capsys.readouterr()
    assert manager.get({"a": (flood, total), "b": (show, 7)}, ["a", "b"]) == (total, 7)
    assert manager.get({"c": (show, 8)}, "c") == 8
    said = capsys.readouterr()
    assert len(said.out) < total // 4
    assert "are not shown" in said.err
    assert log_bytes(manager) < 32 * 2**20


def closed(descriptors: list[int]) -> bool:
    for descriptor in descriptors:
        os.close(descriptor)
    return True


def close_streams() -> bool:
    sys.stdout.close()
    sys.stderr.close()
    return True


def replace_streams() -> bool:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    return True


@pytest.mark.parametrize("act", [(closed, [0, 1, 2]), (closed, [1]), (close_streams,), (replace_streams,)])
def test_a_task_that_closes_standard_streams_spoils_nothing(
    act: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with Manager(local_workers=1) as manager:
        graph: dict[Any, Any] = {"close": act, "first": (lambda _: show(1), "close")}
        assert manager.get(graph, ["close", "first"]) == (True, 1)
        pids = {manager.get({"pid": (pid_of, i)}, "pid") for i in range(3)}
        assert len(pids) <= 2
        assert manager.get({"a": (sum, [1, 2])}, "a") == 3
        assert show_and_open(manager)
    said = capsys.readouterr()
    assert "number 1\n" in said.out
    assert "complaint 1\n" in said.err


def pid_of(number: int) -> int:
    print("pid", number)
    return os.getpid()


def open_one(_: int) -> int:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


def show_and_open(manager: Manager) -> bool:
    """Whether no file gets the number of a standard stream."""
    return all(manager.get({"o": (open_one, i)}, "o") > 2 for i in range(4))


def close_all() -> None:
    os.closerange(3, 4096)


def test_a_task_that_closes_its_executors_link_is_told_so(manager: Manager) -> None:
    with pytest.raises(Exception, match="closed file descriptors that are not its own"):
        manager.get({"a": (close_all,)}, "a")
    assert manager.get({"b": (sum, [1, 2])}, "b") == 3
