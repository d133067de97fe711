"""Files from URLs on real workers: fetched once, kept, fetched again when they changed; errors are errors."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.web import Handler, Source, source

import graphvine as vine
from graphvine.manager.manager import Manager

__all__ = ["source"]

DATA = os.urandom(200_000).hex().encode()


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def m(cache: Path) -> Iterator[Manager]:
    with vine.Manager(local_workers=4) as manager:
        yield manager


def use(m: Manager, file: vine.File, line: str = "wc -c < x") -> vine.Task:
    """A task that uses a file, over."""
    task = vine.Task(line, cores=1)
    task.add_input(file, "x")
    m.submit(task)
    assert m.wait(60) is task
    return task


def gets(source: Source) -> int:
    return sum(method == "GET" for method, _, _ in source.seen)


def test_many_tasks_are_one_download(m, source):
    source.answers["/f"] = lambda handler: handler.say(200, DATA, ETag='"1"')
    for _ in range(50):
        task = vine.Task("wc -c < x", cores=1)
        task.add_input(m.declare_url(source.url("/f"), cache=True), "x")
        m.submit(task)
    outputs = set()
    while not m.empty():
        outputs.add(m.wait(60).output.strip())
    assert outputs == {str(len(DATA))}
    assert gets(source) == 1


def test_what_the_next_command_needs_is_fetched_while_one_has_the_whole_worker(m, source, tmp_path):
    began, go_on = str(tmp_path / "began"), str(tmp_path / "go_on")
    os.mkfifo(began)
    os.mkfifo(go_on)

    def let_go_on(handler: Handler) -> None:
        handler.say(200, DATA)
        if handler.command == "GET":
            Path(go_on).write_text("now\n")

    source.answers["/f"] = let_go_on
    first = vine.Task(f"echo yes > {began}; cat {go_on}")
    m.submit(first)
    assert Path(began).read_text() == "yes\n"
    then = vine.Task("wc -c < x")
    then.add_input(m.declare_url(source.url("/f")), "x")
    m.submit(then)
    assert m.wait(60) is first
    assert first.output == "now\n"
    assert m.wait(60) is then
    assert then.output.strip() == str(len(DATA))


def test_what_changed_at_the_source_is_fetched_again(m, source):
    version = [1]
    source.answers["/f"] = lambda handler: handler.say(200, b"%d" % version[0], ETag=f'"{version[0]}"')
    file = m.declare_url(source.url("/f"), cache=True)
    assert use(m, file, "cat x").output == "1"
    assert use(m, m.declare_url(source.url("/f"), cache=True), "cat x").output == "1"
    assert gets(source) == 1
    version[0] = 2
    assert use(m, m.declare_url(source.url("/f"), cache=True), "cat x").output == "2"
    assert gets(source) == 2


@pytest.mark.parametrize("cache", [True, "forever"])
def test_an_error_page_is_no_input(m, source, cache):
    source.answers["/f"] = lambda handler: handler.say(404, b"<html>")
    task = use(m, m.declare_url(source.url("/f"), cache=cache), "cat x")
    assert (task.result, task.output) == ("input missing", "")
    assert "answered 404" in task.reason


def test_sources_are_asked_by_a_few_at_a_time(m, source):
    together = threading.Semaphore(3)
    too_many = []

    def answer(handler: Handler) -> None:
        if not together.acquire(blocking=False):
            too_many.append(handler.path)
            return handler.say(500)
        try:
            handler.say(200, handler.path.encode())
        finally:
            together.release()

    assert m.tune("file-source-max-transfers", 3) == 0
    for number in range(30):
        source.answers[f"/{number}"] = answer
        task = vine.Task("cat x", cores=1)
        task.add_input(m.declare_url(source.url(f"/{number}")), "x")
        m.submit(task)
    outputs = set()
    while not m.empty():
        outputs.add(m.wait(60).output)
    assert outputs == {f"/{number}" for number in range(30)}
    assert too_many == []


def test_forever_outlives_workers_and_managers(source, cache):
    source.answers["/f"] = lambda handler: handler.say(200, DATA, ETag='"1"')
    for _ in range(2):
        with vine.Manager(local_workers=1) as m:
            task = use(m, m.declare_url(source.url("/f"), cache="forever"))
            assert task.output.strip() == str(len(DATA)), task.reason
    assert gets(source) == 1
    # Damaged meanwhile: seen, and fetched again.
    (kept,) = cache.glob("file.url-*/data")
    kept.chmod(0o600)
    kept.write_bytes(DATA[::-1])
    with vine.Manager(local_workers=1) as m:
        task = use(m, m.declare_url(source.url("/f"), cache="forever"), "head -c 10 x")
        assert task.output == DATA[:10].decode()
    assert gets(source) == 2


def test_a_download_begins_again_elsewhere_when_its_worker_is_killed(source, bare_manager, start_worker):
    m = bare_manager
    stalled = threading.Event()

    def answer(handler: Handler) -> None:
        if stalled.is_set():
            return handler.say(200, DATA, ETag='"1"')
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        handler.wfile.write(DATA[:1000])
        handler.wfile.flush()
        stalled.set()
        source.free.wait(60)

    source.answers["/f"] = answer
    first = start_worker(m, 1)
    task = vine.Task("wc -c < x", cores=1)
    task.add_input(m.declare_url(source.url("/f"), cache=True), "x")
    m.submit(task)
    assert stalled.wait(60)
    start_worker(m, 1)
    first.kill()
    assert m.wait(60) is task
    assert task.output.strip() == str(len(DATA)), task.reason


def test_archives_are_unpacked_where_they_are_needed(m, source, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "d" / "run").chmod(0o755)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "d", "d")
    packed = (tmp_path / "a.tar.gz").read_bytes()
    source.answers["/a.tar.gz"] = lambda handler: handler.say(200, packed)
    unpacked = m.declare_untar(m.declare_url(source.url("/a.tar.gz"), cache=True), cache=True)
    assert use(m, unpacked, "x/d/run").output == "ran\n"
    source.answers["/b.tar.gz"] = lambda handler: handler.say(200, packed[:-10])
    task = use(m, m.declare_untar(m.declare_url(source.url("/b.tar.gz"))), "x/d/run")
    assert task.result == "input missing"
    assert "cannot be unpacked" in task.reason


def test_contents_of_what_nobody_used_yet(m, source):
    source.answers["/f"] = lambda handler: handler.say(200, DATA)
    assert m.declare_url(source.url("/f")).contents() == DATA
    assert m.declare_minitask(vine.Task("echo hello > x"), "x").contents() == b"hello\n"
    source.answers["/g"] = lambda handler: handler.say(404)
    with pytest.raises(FileNotFoundError, match="404"):
        m.declare_url(source.url("/g")).contents()


def test_what_mini_tasks_and_archives_make_outlives_managers(source, tmp_path):
    (tmp_path / "x").write_bytes(DATA)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "x", "x")
    packed = (tmp_path / "a.tar.gz").read_bytes()
    source.answers["/a"] = lambda handler: handler.say(200, packed, ETag='"1"')
    ran = tmp_path / "ran"
    for version in (1, 1, 2):
        with vine.Manager(local_workers=1) as m:
            counting = vine.Task(f"echo {version} >> {ran}; seq 2000 > out; cat v >> out")
            counting.add_input(m.declare_buffer(f"{version}\n"), "v")
            made = m.declare_minitask(counting, "out", cache="forever")
            task = vine.Task("tail -n 1 a; wc -c < b/x", cores=1)
            task.add_input(made, "a")
            task.add_input(m.declare_untar(m.declare_url(source.url("/a")), cache="forever"), "b")
            m.submit(task)
            assert m.wait(60) is task
            assert task.output.split() == [str(version), str(len(DATA))], task.reason
    assert ran.read_text() == "1\n2\n"
    # What was kept is not even fetched.
    assert gets(source) == 1
