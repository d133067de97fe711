"""Workers that start from the front of an environment, while the rest is still on its way: real workers, real
archives, and the locks of the node's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_failures import wait_for

import graphvine
from graphvine import Manager
from graphvine.envs import cache as caches
from graphvine.envs.cache import BEGUN, Place

NAME = "env-0123456789abcdef"
SOURCES = str(Path(graphvine.__file__).parents[1])

pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock (util-linux)")


class Node:
    """An entry of a node's cache, the front of an environment, and the archive that a job has brought."""

    def __init__(self, root: Path) -> None:
        self.place = Place(str(root / "cache"), NAME)
        self.prefix = root / "cache" / NAME
        self.archive = root / "env.tar.gz"
        self.root = root
        (self.prefix / "bin").mkdir(parents=True)
        (self.prefix / "bin/python").symlink_to(sys.executable)
        (self.prefix / BEGUN).touch()
        Path(self.place.lock).touch()
        rest = root / "rest"
        rest.mkdir()
        (rest / "that_comes_later.py").write_text("def answer(): return 42\n")
        with tarfile.open(self.archive, "w:gz") as tar:
            tar.add(rest / "that_comes_later.py", "that_comes_later.py")
        # What comes before the rest.
        self.archive.write_bytes(b"front" + self.archive.read_bytes())
        self._workers: list[subprocess.Popen[str]] = []

    def start(
        self, manager: Manager, *, shared: bool = True, lock: int = -1, more: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        words = [str(self.archive), "5", str(self.prefix), self.place.path if shared else ""]
        words += ["" if lock < 0 else str(lock), "1"]
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "graphvine.worker", "--connection-file", manager.connection_file),
                *("--cores", "1", "--workdir", str(self.root), "--rest", *words, *more),
            ],
            env={**os.environ, "PYTHONPATH": f"{SOURCES}:{self.prefix}"},
            pass_fds=[] if lock < 0 else [lock],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._workers.append(worker)
        return worker

    def end(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.communicate()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager(local_workers=0, host="127.0.0.1") as manager:
        yield manager


def answer() -> Any:
    import that_comes_later  # type: ignore[import-not-found]

    return that_comes_later.answer()


def test_it_joins_at_once_and_its_tasks_wait_for_the_rest(node: Node, manager: Manager) -> None:
    held = caches.lock(node.place, exclusive=True)
    node.start(manager)
    wait_for(lambda: manager.counts().workers == 1)
    future = manager.executor().submit(answer)
    wait_for(lambda: manager.counts().running == 1)
    # Whoever was at it comes to an end.
    shutil.copy(node.root / "rest/that_comes_later.py", node.prefix)
    node.place.write(caches.Marker("", "3", "linux", 1, 1, caches.boot_id()))
    os.close(held)
    assert future.result(30) == 42
    assert not node.archive.exists()


def test_where_nobody_is_at_it_any_more_the_next_one_unpacks_it(node: Node, manager: Manager) -> None:
    held = caches.lock(node.place, exclusive=True)
    for _ in range(2):
        node.start(manager)
    wait_for(lambda: manager.counts().workers == 2)
    future = manager.executor().submit(answer)
    os.close(held)
    assert future.result(30) == 42
    assert node.place.read() is not None
    assert not (node.prefix / BEGUN).exists()


@pytest.mark.parametrize("how", ["with its lock", "of its own", "several workers"])
def test_who_has_begun_unpacks_it(node: Node, manager: Manager, how: str) -> None:
    lock = -1 if how == "of its own" else caches.lock(node.place, exclusive=True)
    node.start(
        manager,
        shared=lock >= 0,
        lock=lock,
        more=("--workers", "2") if how == "several workers" else (),
    )
    if lock >= 0:
        os.close(lock)
    assert manager.executor().submit(answer).result(30) == 42
    assert (node.place.read() is not None) == (lock >= 0)
    if lock >= 0:
        with caches.hold(NAME, node.place.cache) or pytest.fail("its lock is held for ever") as found:
            assert found.prefix == str(node.prefix)


def test_a_rest_that_is_damaged_is_told(node: Node, manager: Manager) -> None:
    node.archive.write_bytes(node.archive.read_bytes()[:-20])
    worker = node.start(manager, shared=False)
    said = worker.communicate(timeout=30)[1]
    assert worker.returncode == 1
    assert f"the rest of the environment can't be unpacked in {node.prefix}: " in said
    assert "unexpected end of file" in said


def test_a_worker_that_leaves_meanwhile_has_nobody_wait(node: Node, manager: Manager) -> None:
    held = caches.lock(node.place, exclusive=True)
    worker = node.start(manager)
    wait_for(lambda: manager.counts().workers == 1)
    manager.close()
    worker.communicate(timeout=30)
    assert worker.returncode == 0
    os.close(held)
    assert node.place.read() is None
