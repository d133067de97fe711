from __future__ import annotations

import mmap
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from graphvine.protocol import tree_files
from graphvine.protocol.trees import NewTree
from graphvine.worker.store import Spilled, SpillFailed, Store, StoreEvent, StoreFullError, default_budget

KB = 1024


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "m"), str(tmp_path / "d"), 100 * KB)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def memory_parent(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()


def settle(store: Store, at_least: int = 1) -> list[StoreEvent]:
    """What spills report, until so many have."""
    events: list[StoreEvent] = []
    deadline = time.monotonic() + 10
    while len(events) < at_least:
        assert select.select([store.descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]
        events += store.completed()
    return events


def executor_writes(directory: str, file: int, data: bytes) -> None:
    scratch = Path(directory, f".{file}.scratch")
    scratch.write_bytes(data)
    scratch.rename(Path(directory, str(file)))


def content(store: Store, file: int) -> bytes | None:
    path = store.path(file)
    return None if path is None else Path(path).read_bytes()


def everything(tmp_path: Path) -> list[str]:
    """Names of all value files in both tiers, temporary ones too."""
    return sorted(
        name
        for tier in ("m", "d")
        for _, _, names in os.walk(tmp_path / tier)
        for name in names
        if name != ".lock"
    )


def test_bytes_that_are_put_are_found_under_their_number(store: Store) -> None:
    path = store.put_bytes(7, b"seven")
    assert path == store.path(7) == store.lookup(7) == f"{store.directory}/7"
    assert content(store, 7) == b"seven"
    assert store.path(8) is None
    assert store.usage().memory_bytes == 5


def test_what_an_executor_wrote_is_adopted_in_either_tier(store: Store, tmp_path: Path) -> None:
    executor_writes(store.directory_for_results(), 1, b"in memory")
    executor_writes(store.fallback_directory, 2, b"on disk")
    assert store.adopt(1, 9)
    assert store.adopt(2, 7)
    assert not store.adopt(3, 1)
    assert (content(store, 1), content(store, 2), store.path(3)) == (b"in memory", b"on disk", None)
    assert (store.usage().memory_bytes, store.usage().disk_bytes) == (9, 7)
    # Another process of the node finds both in the one directory.
    assert Path(store.directory, "2").read_bytes() == b"on disk"
    store.drop([1, 2])
    assert everything(tmp_path) == []


def test_what_arrives_is_hidden_until_it_is_adopted(store: Store, tmp_path: Path) -> None:
    path = store.incoming(5, 3)
    Path(path).write_bytes(b"abc")
    assert store.path(5) is None
    assert not os.path.exists(f"{store.directory}/5")
    assert store.adopt(5, 3)
    assert content(store, 5) == b"abc"
    Path(store.incoming(6, 3)).write_bytes(b"abc")
    store.discard(6)
    store.discard(6)
    assert everything(tmp_path) == ["5"]


def test_one_that_was_given_up_does_not_disturb_the_next(store: Store) -> None:
    first = store.incoming(5, 3)
    with open(first, "wb") as late:
        second = store.incoming(5, 3)
        Path(second).write_bytes(b"new")
        late.write(b"old")
    assert store.adopt(5, 3)
    assert content(store, 5) == b"new"


def test_beyond_the_budget_results_and_fetches_go_to_disk(store: Store) -> None:
    assert store.directory_for_results() == store.directory
    assert store.incoming(1, 200 * KB).startswith(store.fallback_directory)
    assert store.incoming(2, 60 * KB).startswith(store.directory)
    # The room is spoken for.
    assert store.incoming(3, 60 * KB).startswith(store.fallback_directory)
    store.discard(2)
    assert store.incoming(3, 60 * KB).startswith(store.directory)


def test_least_recently_used_files_are_spilled_and_stay_where_they_were_found(store: Store) -> None:
    for file in range(4):
        store.put_bytes(file, bytes([file]) * 20 * KB)
    path = store.path(0)
    assert path is not None
    executor_writes(store.directory, 4, b"4" * 15 * KB)
    store.adopt(4, 15 * KB)
    events = settle(store)
    assert events == [Spilled(1, 20 * KB)]
    assert os.path.islink(f"{store.directory}/1")
    assert store.path(1) == f"{store.directory}/1"
    assert content(store, 1) == b"\1" * 20 * KB
    assert (store.usage().memory_bytes, store.usage().disk_bytes) == (75 * KB, 20 * KB)


def test_who_has_a_file_mapped_keeps_it_when_it_is_spilled_and_dropped(store: Store) -> None:
    path = store.put_bytes(1, b"x" * 95 * KB)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert settle(store) == [Spilled(1, 95 * KB)]
        assert mapped[:10] == b"x" * 10
        store.drop([1])
        assert mapped[-10:] == b"x" * 10


def test_one_dropped_while_it_is_copied_is_gone(store: Store, tmp_path: Path) -> None:
    store.put_bytes(1, b"x" * 95 * KB)
    store.drop([1])
    assert select.select([store.descriptor], [], [], 10)[0]
    assert store.completed() == []
    assert everything(tmp_path) == []
    assert store.usage().files == 0


def test_one_that_came_again_while_it_was_copied_is_the_new_one(store: Store, tmp_path: Path) -> None:
    store.put_bytes(1, b"x" * 95 * KB)
    store.drop([1])
    executor_writes(store.directory, 1, b"new")
    store.adopt(1, 3)
    assert select.select([store.descriptor], [], [], 10)[0]
    assert store.completed() == []
    assert content(store, 1) == b"new"
    assert everything(tmp_path) == ["1"]


def test_a_task_that_ran_again_replaces_its_spilled_result(store: Store, tmp_path: Path) -> None:
    store.put_bytes(1, b"x" * 95 * KB)
    settle(store)
    executor_writes(store.directory, 1, b"again")
    assert store.adopt(1, 5)
    assert content(store, 1) == b"again"
    assert everything(tmp_path) == ["1"]
    assert (store.usage().memory_bytes, store.usage().disk_bytes) == (5, 0)


def executor_makes_tree(store: Store, file: int, data: bytes) -> int:
    source = Path(store.scratch, f"made-{file}")
    source.write_bytes(data)
    made = f"{store.fallback_directory}/.{file}.made"
    size = tree_files.take_in(NewTree(str(source)), made, lambda path: "move")
    tree_files.put_in_place(made, f"{store.fallback_directory}/{file}")
    return size


def await_nothing(tmp_path: Path) -> None:
    """Until what is removed in the background is gone."""
    deadline = time.monotonic() + 10
    while everything(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert everything(tmp_path) == []


def test_a_tree_is_adopted_shown_and_dropped(store: Store, tmp_path: Path) -> None:
    size = executor_makes_tree(store, 1, b"a tree")
    assert store.adopt(1, size)
    assert store.path(1) == f"{store.directory}/1"
    tree = tree_files.load(f"{store.directory}/1")
    assert Path(tree.path).read_bytes() == b"a tree"
    assert tree.path == f"{store.fallback_directory}/1/data"
    assert (store.usage().memory_bytes, store.usage().disk_bytes) == (0, size)
    store.drop([1])
    assert not os.path.lexists(f"{store.directory}/1")
    assert not os.path.exists(f"{store.fallback_directory}/1")
    await_nothing(tmp_path)
    assert store.usage().disk_bytes == 0


def test_a_tree_takes_the_place_of_another_and_of_a_value(store: Store, tmp_path: Path) -> None:
    executor_writes(store.fallback_directory, 1, b"a value")
    assert store.adopt(1, 7)
    for data in (b"first", b"the second"):
        size = executor_makes_tree(store, 1, data)
        assert store.adopt(1, size)
        tree = tree_files.load(f"{store.directory}/1")
        assert Path(tree.path).read_bytes() == data
        assert store.usage().disk_bytes == size
    executor_writes(store.directory, 1, b"in memory")
    assert store.adopt(1, 9)
    assert content(store, 1) == b"in memory"
    store.drop([1])
    await_nothing(tmp_path)


def test_what_arrives_may_turn_out_to_be_a_tree(store: Store, tmp_path: Path) -> None:
    executor_makes_tree(store, 1, b"x" * 100)
    stream = tree_files.Reader(f"{store.fallback_directory}/1")
    with stream:
        flat = stream.read(0, stream.size)
    for adopted in (True, False):
        store.incoming(2, len(flat))
        writer = tree_files.Writer(store.incoming_tree(2))
        writer.feed(flat)
        writer.finish()
        if adopted:
            assert store.adopt(2, len(flat))
            assert Path(tree_files.load(f"{store.directory}/2").path).read_bytes() == b"x" * 100
            store.drop([2])
        else:
            store.discard(2)
    store.adopt(1, len(flat))
    store.drop([1])
    await_nothing(tmp_path)


def test_without_a_memory_tier_everything_is_on_disk(tmp_path: Path) -> None:
    for parent in (None, str(tmp_path / "absent")):
        store = Store(parent, str(tmp_path / "d"), 100)
        assert store.directory == store.fallback_directory == store.directory_for_results()
        store.put_bytes(1, b"x")
        executor_writes(store.directory_for_results(), 2, b"y")
        assert store.adopt(2, 1)
        assert (content(store, 1), content(store, 2)) == (b"x", b"y")
        assert store.usage().memory_bytes == 0
        store.drop([1])
        assert store.path(1) is None
        store.close()


def test_close_removes_everything_twice_if_need_be(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "m"), str(tmp_path / "d"), 100 * KB)
    store.put_bytes(1, b"x" * 99 * KB)
    assert len(store.directories) == 2
    for directory in store.directories:
        assert os.stat(directory).st_mode & 0o777 == 0o700
    store.close()
    assert list((tmp_path / "m").iterdir()) == list((tmp_path / "d").iterdir()) == []


@pytest.fixture
def tiny_disks(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Two file systems of a megabyte each."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounts = (tmp_path / "tiny-m", tmp_path / "tiny-d")
    for mount in mounts:
        mount.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=False)
        if made.returncode:
            pytest.skip("mounting is not allowed")
    yield mounts
    for mount in mounts:
        subprocess.run(["umount", str(mount)], check=True)


def test_full_memory_file_system_falls_back_to_disk(tiny_disks: tuple[Path, Path]) -> None:
    store = Store(str(tiny_disks[0]), str(tiny_disks[1]), 10**9)
    store.put_bytes(1, bytes(700 * KB))
    store.put_bytes(2, bytes(700 * KB))
    assert (store.usage().memory_bytes, store.usage().disk_bytes) == (700 * KB, 700 * KB)
    with pytest.raises(StoreFullError, match="no room for 716800 bytes"):
        store.put_bytes(3, bytes(700 * KB))
    assert store.path(3) is None
    assert content(store, 1) == content(store, 2) == bytes(700 * KB)
    store.drop([1])
    store.put_bytes(3, bytes(700 * KB))
    store.close()


def test_a_full_disk_is_reported_once_and_survived(tiny_disks: tuple[Path, Path]) -> None:
    store = Store(str(tiny_disks[0]), str(tiny_disks[1]), 500 * KB)
    (tiny_disks[1] / "ballast").write_bytes(bytes(900 * KB))
    store.put_bytes(1, b"1" * 300 * KB)
    executor_writes(store.directory, 2, b"2" * 300 * KB)
    store.adopt(2, 300 * KB)
    (event,) = settle(store)
    assert isinstance(event, SpillFailed)
    assert "No space left" in event.reason
    assert content(store, 1) == b"1" * 300 * KB
    assert store.usage().disk_bytes == 0
    (tiny_disks[1] / "ballast").unlink()
    store.drop([2])
    store.put_bytes(3, b"3" * 190 * KB)
    assert [type(event) for event in settle(store)] == [Spilled]
    assert content(store, 1) == b"1" * 300 * KB
    assert content(store, 3) == b"3" * 190 * KB
    (tiny_disks[1] / "ballast").unlink(missing_ok=True)
    store.close()


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order: contents are right, accounts agree with the directories."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.base = tempfile.TemporaryDirectory()
        os.mkdir(f"{self.base.name}/m")
        self.store = Store(f"{self.base.name}/m", f"{self.base.name}/d", 20 * KB)
        self.model: dict[int, bytes] = {}

    files = st.integers(0, 7)
    sizes = st.integers(1, 12 * KB)

    def value(self, file: int, size: int) -> bytes:
        """Whoever makes a file makes the same."""
        return self.model.setdefault(file, bytes([size % 251]) * size)

    @rule(file=files, size=sizes)
    def put(self, file: int, size: int) -> None:
        self.store.put_bytes(file, self.value(file, size))

    @rule(file=files, size=sizes, to_disk=st.booleans())
    def result(self, file: int, size: int, to_disk: bool) -> None:
        data = self.value(file, size)
        directory = self.store.fallback_directory if to_disk else self.store.directory_for_results()
        executor_writes(directory, file, data)
        assert self.store.adopt(file, len(data))

    @rule(file=files)
    def use(self, file: int) -> None:
        assert content(self.store, file) == self.model.get(file)

    @rule(file=files)
    def drop(self, file: int) -> None:
        self.store.drop([file])
        self.model.pop(file, None)

    @rule()
    def take_completed(self) -> None:
        select.select([self.store.descriptor], [], [], 0.002)
        assert all(isinstance(event, Spilled) for event in self.store.completed())

    @invariant()
    def contents_are_right(self) -> None:
        for file, data in self.model.items():
            path = self.store.lookup(file)
            assert path is not None
            assert Path(path).read_bytes() == data
        usage = self.store.usage()
        assert usage.files == len(self.model)
        assert usage.memory_bytes + usage.disk_bytes == sum(map(len, self.model.values()))
        shown = {name for name in os.listdir(self.store.directory) if name[0] != "."}
        assert shown == {str(file) for file in self.model}

    def teardown(self) -> None:
        self.store.close()
        self.base.cleanup()


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_what_is_on_its_way_is_written_over_a_spare(tmp_path: Path) -> None:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    store = Store(str(memory), str(disk), 100 * 2**20)
    try:
        size = 2 * 2**20
        first = store.put_bytes(1, os.urandom(size))
        inode = os.stat(first).st_ino
        store.drop([1])
        content = os.urandom(size - 100)
        second = store.put_bytes(2, content)
        assert os.stat(second).st_ino == inode
        assert Path(second).read_bytes() == content
    finally:
        store.close()


def test_memory_is_a_third_of_what_the_worker_may_use(tmp_path: Path) -> None:
    assert default_budget(str(tmp_path), 3000.0) == 1000
    assert default_budget(str(tmp_path)) > 1000


def test_a_worker_that_may_use_little_memory_keeps_all_on_disk(tmp_path: Path) -> None:
    store = Store(str(tmp_path), str(tmp_path / "d"), memory_limit_bytes=100 * 2**20)
    try:
        assert store.directories == (store.fallback_directory,)
    finally:
        store.close()


def test_no_more_comes_in_than_the_disk_that_may_be_used(tmp_path: Path) -> None:
    store = Store(None, str(tmp_path / "d"), disk_limit_bytes=1000)
    try:
        store.put_bytes(1, bytes(600))
        with pytest.raises(StoreFullError, match="may use 1000 bytes of disk, and has used 600"):
            store.incoming(2, 500)
        store.drop([1])
        store.put_bytes(2, bytes(500))
    finally:
        store.close()
