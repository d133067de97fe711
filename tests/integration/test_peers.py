"""Files that no worker gets from another."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import StartWorker
from tests.web import Handler, Source, source

import graphvine as vine
from graphvine.manager.manager import Manager

__all__ = ["source"]

pytestmark = pytest.mark.usefixtures("by_value")


@pytest.fixture
def m(bare_manager: Manager, start_worker: Callable[..., object]) -> Manager:
    """With two workers, "a" and "b", which are features, too."""
    for name in ("a", "b"):
        start_worker(bare_manager, 1, name, "--feature", name)
    return bare_manager


def finish(m: Manager, *tasks: Any) -> None:
    for task in tasks:
        m.submit(task)
    over = [m.wait(60) for _ in tasks]
    assert {task.reason for task in over if task is not None} == {""}
    assert all(task is not None and task.successful() for task in over)


def on(worker: str, command: str) -> vine.Task:
    return vine.Task(command, cores=1, features=worker)


def test_without_peers_files_go_through_the_manager(m: Manager) -> None:
    m.disable_peer_transfers()
    temp = m.declare_temp()
    maker = on("a", "head -c 20000000 /dev/zero > made")
    maker.add_output(temp, "made")
    reader = on("b", "wc -c < made")
    reader.add_input(temp, "made")
    finish(m, maker, reader)
    assert reader.output.strip() == "20000000"
    m.enable_peer_transfers()
    again = on("b", "wc -c < made")
    again.add_input(temp, "made")
    finish(m, again)


def test_a_mini_task_that_is_no_other_worker_s_is_run_on_each(m: Manager, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    mini = vine.Task(f"cat given > made; echo end >> made; echo run >> {runs}")
    mini.add_input(m.declare_buffer("x" * 10_000), "given")
    file = m.declare_minitask(mini, "made", cache=True, peer_transfer=False)
    tasks: list[Any] = []
    for worker in ("a", "b", "a", "b"):
        task = on(worker, "head -c 10 made; wc -l < made")
        task.add_input(file, "made")
        tasks.append(task)
    call = vine.PythonTask(lambda: len(Path("made").read_text()))
    call.set_cores(1)
    call.add_feature("a")
    call.add_input(file, "made")
    finish(m, *tasks, call)
    assert {task.output.replace(" ", "") for task in tasks} == {"x" * 10 + "1\n"}
    assert (call.output, call.std_output) == (10_004, "")
    assert runs.read_text() == "run\n" * 2


def test_one_that_fails_says_why(m: Manager) -> None:
    file = m.declare_minitask(vine.Task("exit 4"), "made", peer_transfer=False)
    url = m.declare_url("http://127.0.0.1:1/nothing", peer_transfer=False)
    for given, why in ((file, "did not make"), (url, "refused")):
        for task in (on("a", "cat made"), vine.PythonTask(len, "x")):
            task.add_input(given, "made")
            m.submit(task)
            assert m.wait(60) is task
            assert task.result == "input missing"
            assert why in task.reason


def test_a_source_is_asked_by_a_few_on_all_nodes_together(
    bare_manager: Manager,
    start_worker: StartWorker,
    source: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    m, names = bare_manager, ("a", "b", "c")
    for name in names:
        # What processes of one node share, these do not.
        monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / f"cache-{name}"))
        start_worker(m, 1, name, "--feature", name)
    alone, another = threading.Lock(), threading.Event()

    def answer(handler: Handler) -> None:
        if not alone.acquire(blocking=False):
            another.set()
            handler.say(500)
            return
        try:
            another.wait(0.5)
            handler.say(200, b"content")
        finally:
            alone.release()

    source.answers["/f"] = answer
    assert m.tune("file-source-max-transfers", 1) == 0
    file = m.declare_url(source.url("/f"), cache=True, peer_transfer=False)
    tasks: list[Any] = [on(name, "cat f") for name in names]
    tasks.append(vine.PythonTask(lambda: Path("f").read_text()))
    tasks[-1].set_cores(1)
    tasks[-1].add_feature("c")
    for task in tasks:
        task.add_input(file, "f")
    finish(m, *tasks)
    assert {task.output for task in tasks} == {"content"}
    assert not another.is_set()
    assert sum(method == "GET" for method, _, _ in source.seen) == len(names)
    # What is fetched by a task of its own counts once.
    assert m.declare_url(source.url("/f"), peer_transfer=False).contents() == b"content"


def test_a_turn_at_a_source_ends_with_who_has_it(m: Manager, source: Source) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(handler: Handler) -> None:
        begun.set()
        go_on.wait(60)
        handler.say(200, b"content")

    source.answers["/held"] = hold
    source.answers["/f"] = lambda handler: handler.say(200, b"content")
    assert m.tune("file-source-max-transfers", 1) == 0
    holds = on("a", "cat f")
    holds.add_input(m.declare_url(source.url("/held"), peer_transfer=False), "f")
    m.submit(holds)
    assert begun.wait(60)
    waits, given_up = on("b", "cat f"), on("b", "cat f")
    for task in (given_up, waits):
        task.add_input(m.declare_url(source.url("/f"), peer_transfer=False), "f")
        m.submit(task)
    assert m.cancel_by_task_id(given_up.id) == 1
    assert m.wait_for_task_id(given_up.id, 60) is given_up
    assert m.cancel_by_task_id(holds.id) == 1
    assert m.wait_for_task_id(holds.id, 60) is holds
    assert m.wait(60) is waits
    assert waits.output == "content", waits.reason
    go_on.set()


def test_what_is_packed_is_unpacked_on_each(m: Manager, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(tmp_path / "f", "f")
    packed = m.declare_file(str(tmp_path / "t.tar"), cache=True)
    file = m.declare_untar(packed, cache=True, peer_transfer=False)
    tasks = [on(worker, "cat d/f") for worker in ("a", "b", "a")]
    for task in tasks:
        task.add_input(file, "d")
    finish(m, *tasks)
    assert [task.output for task in tasks] == ["content"] * 3


def test_what_the_manager_has_goes_to_each_from_there(m: Manager) -> None:
    buffer = m.declare_buffer(b"z" * 3_000_000, peer_transfer=False)
    for worker in ("a", "b"):
        count = on(worker, "wc -c < z")
        count.add_input(buffer, "z")
        finish(m, count)
        assert count.output.strip() == "3000000"
