"""Files and directories as results: made by a task, read by others, on real workers."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import dask
import pytest
from dask.delayed import delayed
from tests.integration.conftest import StartWorker

from graphvine.manager.manager import Manager
from graphvine.protocol.errors import TaskKilledError
from graphvine.protocol.trees import BadTreeError, NewTree, Tree
from graphvine.worker import scratch


@delayed(pure=False)
def make_file(size: int) -> NewTree:
    path = Path(scratch.directory(), "file")
    path.write_bytes(bytes(size))
    return NewTree(str(path))


@delayed(pure=False)
def make_directory(files: int) -> NewTree:
    root = Path(scratch.directory())
    for number in range(files):
        path = root / f"sub{number % 7}" / str(number)
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number))
    (root / "link").symlink_to("sub0/0")
    return NewTree(str(root))


@delayed(pure=False)
def length(tree: Tree) -> tuple[int, int]:
    return tree.size, os.path.getsize(tree.path)


@delayed(pure=False)
def digest(tree: Tree) -> str:
    found = hashlib.sha256()
    for path in sorted(Path(tree.path).rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(tree.path)).encode() + path.read_bytes())
    return found.hexdigest()


@delayed(pure=False)
def pick(tree: Tree, member: str) -> NewTree:
    return NewTree(os.path.join(tree.path, member))


@delayed(pure=False)
def same(tree: Tree) -> Tree:
    return tree


@delayed(pure=False)
def links(tree: Tree) -> int:
    return os.stat(tree.path).st_nlink


def test_one_task_makes_a_file_and_another_reads_it(manager: Manager) -> None:
    file = make_file(1_000_000)
    assert length(file).compute(scheduler=manager.get) == (1_000_000, 1_000_000)
    assert length(make_file(0)).compute(scheduler=manager.get) == (0, 0)


def test_a_directory_and_its_members_are_shared_not_copied(manager: Manager) -> None:
    made = make_directory(100)
    member = pick(made, "sub3/3")
    first, second, count, _ = dask.compute(
        digest(made), digest(same(made)), links(member), length(member), scheduler=manager.get
    )
    assert first == second
    # The member is the same file on disk as in its directory.
    assert count == 2


@delayed(pure=False)
def end_with_scratch(how: str) -> str:
    path = Path(scratch.directory(), "file")
    path.write_bytes(b"x")
    if how == "die":
        os.kill(os.getpid(), 9)
    if how == "raise":
        raise ValueError("as it should")
    return str(path)


def test_scratch_directories_go_with_their_task(manager: Manager, stores: Path) -> None:
    assert not os.path.exists(end_with_scratch("return").compute(scheduler=manager.get))
    with pytest.raises(ValueError, match="as it should"):
        end_with_scratch("raise").compute(scheduler=manager.get)
    with pytest.raises(TaskKilledError):
        end_with_scratch("die").compute(scheduler=manager.get)
    scratches = Path(end_with_scratch("return").compute(scheduler=manager.get)).parent.parent
    end = time.monotonic() + 20
    while (left := list(scratches.glob("task-*"))) and time.monotonic() < end:
        time.sleep(0.01)
    assert left == []


@delayed(pure=False)
def bad(kind: str) -> NewTree:
    root = Path(scratch.directory())
    if kind == "pipe":
        os.mkfifo(root / "pipe")
    return NewTree(str(root / "absent" if kind == "absent" else root))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "pipe is a named pipe"),
        ("absent", "there is no file or directory"),
    ],
)
def test_what_cannot_be_a_result_fails_its_task_with_a_clear_word(
    manager: Manager, kind: str, words: str
) -> None:
    with pytest.raises(BadTreeError, match=words):
        length(bad(kind)).compute(scheduler=manager.get)


def test_what_is_not_in_a_scratch_directory_is_copied(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"stays")

    def give(path: str) -> NewTree:
        return NewTree(path)

    made = delayed(give)(str(tmp_path / "mine"))
    assert dask.compute(length(made), links(made), scheduler=manager.get) == ((5, 5), 1)
    assert (tmp_path / "mine").read_bytes() == b"stays"


def on(worker: str, call: Any) -> Any:
    """``call``, run on that worker."""
    with dask.annotate(workers=[worker]):
        return call()


@pytest.fixture
def two(bare_manager: Manager, start_worker: StartWorker) -> Manager:
    for name in ("near", "far"):
        start_worker(bare_manager, 1, name)
    return bare_manager


@pytest.mark.parametrize("files", [0, 1000])
def test_a_directory_goes_to_another_worker(two: Manager, files: int) -> None:
    made = on("near", lambda: make_directory(files))
    here, there = on("near", lambda: digest(made)), on("far", lambda: digest(made))
    again = on("near", lambda: digest(on("far", lambda: same(made))))
    first, second, third = dask.compute(here, there, again, scheduler=two.get)
    assert first == second == third


def test_a_large_file_goes_to_another_worker(two: Manager) -> None:
    made = on("near", lambda: make_file(50_000_000))
    assert on("far", lambda: length(made)).compute(scheduler=two.get) == (50_000_000, 50_000_000)


def test_the_user_gets_files_and_directories_of_his_own(two: Manager) -> None:
    made = on("near", lambda: make_directory(50))
    file = on("far", lambda: make_file(3_000_000))
    tree, expected, single = dask.compute(made, digest(made), file, scheduler=two.get)
    assert isinstance(tree, Tree)
    assert here_digest(tree) == expected
    assert os.readlink(Path(tree.path, "link")) == "sub0/0"
    # The workers have dropped theirs; this one is the user's to move.
    os.rename(single.path, f"{tree.path}-moved")
    assert os.path.getsize(f"{tree.path}-moved") == single.size == 3_000_000
    scratches = Path(tree.path).parents[2]
    two.close()
    assert not scratches.exists()


def here_digest(tree: Tree) -> str:
    return str(digest(tree).compute(scheduler="synchronous"))


def test_a_tree_that_vanishes_is_made_again(bare_manager: Manager, start_worker: StartWorker) -> None:
    start_worker(bare_manager, 1, "only")
    kept = bare_manager.persist(make_directory(20))

    def spoil(tree: Tree) -> str:
        shutil.rmtree(os.path.dirname(tree.path))
        return tree.path

    gone = delayed(spoil)(kept).compute(scheduler=bare_manager.get)
    fresh = digest(make_directory(20)).compute(scheduler=bare_manager.get)
    assert digest(kept).compute(scheduler=bare_manager.get) == fresh
    assert os.path.exists(gone)


def test_a_tree_whose_worker_is_lost_is_made_again(bare_manager: Manager, start_worker: StartWorker) -> None:
    first = start_worker(bare_manager, 1, "first")
    kept = bare_manager.persist(make_directory(20))
    expected = digest(kept).compute(scheduler=bare_manager.get)
    start_worker(bare_manager, 1, "second")
    first.kill()
    first.wait()
    assert digest(kept).compute(scheduler=bare_manager.get) == expected


@delayed(pure=False)
def make_bytes(size: int) -> bytes:
    return os.urandom(2**20) * (size // 2**20)


@delayed(pure=False)
def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def first_to_receive(homes: dict[str, Path]) -> str:
    """Name of a worker to which something is on its way."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for name, home in homes.items():
            if any(home.glob("graphvine-*/.in-*")):
                return name
        time.sleep(0.001)
    raise AssertionError("nothing is on its way to anybody")


def test_a_worker_dies_while_it_passes_a_large_value_on(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path
) -> None:
    homes = {name: tmp_path / name for name in ("w0", "w1", "w2", "w3")}
    processes = {}
    for name, home in homes.items():
        home.mkdir()
        processes[name] = start_worker(bare_manager, 1, name, "--memory-dir", str(home))
    made = bare_manager.persist(on("w0", lambda: make_bytes(300 * 2**20)))
    expected = on("w0", lambda: digest_bytes(made)).compute(scheduler=bare_manager.get)
    with dask.annotate(allow_other_workers=True):
        needing = [on(name, lambda: digest_bytes(made)) for name in ("w1", "w2", "w3")]
    waiting = bare_manager.compute(*needing)
    victim = first_to_receive({name: homes[name] for name in ("w1", "w2", "w3")})
    processes[victim].kill()
    assert [future.result(60) for future in waiting] == [expected] * 3
