"""Files of this node, taken in as they would come from another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphvine.protocol.given_files import ChangedError, stamp_of
from graphvine.protocol.messages import OnNode
from graphvine.protocol.tree_files import load
from graphvine.worker import receiving
from graphvine.worker.arrivals import Arrival


def arrival_in(directory: Path) -> Arrival:
    return Arrival(1, 0, str(directory / "value"), str(directory / "tree"))


def lying(path: Path, tree: bool = True) -> OnNode:
    return OnNode(str(path), path.stat().st_size, tree, stamp_of(str(path)))


def test_a_file_is_copied(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3_000_000))
    arrival = arrival_in(tmp_path)
    size = receiving.read_here(lying(file), arrival)
    arrival.close()
    tree = load(str(tmp_path / "tree"))
    copy = Path(tree.path)
    assert copy.read_bytes() == file.read_bytes()
    assert copy.stat().st_ino != file.stat().st_ino, "its owner may write to it"
    assert arrival.size == arrival.written == size > 3_000_000


def test_a_directory_is_copied(tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "one").write_bytes(b"1")
    (directory / "link").symlink_to("sub/one")
    what = OnNode(str(directory), 1, True, stamp_of(str(directory)))
    arrival = arrival_in(tmp_path)
    receiving.read_here(what, arrival)
    arrival.close()
    root = Path(load(str(tmp_path / "tree")).path)
    assert (root / "sub" / "one").read_bytes() == b"1"
    assert os.readlink(root / "link") == "sub/one"


def test_a_file_of_values_is_copied(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(5000))
    arrival = arrival_in(tmp_path)
    assert receiving.read_here(lying(file, tree=False), arrival) == 5000
    arrival.close()
    assert (tmp_path / "value").read_bytes() == bytes(5000)


@pytest.mark.parametrize("tree", [True, False])
def test_a_file_that_is_not_what_was_declared_is_refused(tmp_path: Path, tree: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")
    what = lying(file, tree)
    file.write_bytes(b"after that")
    with pytest.raises(ChangedError):
        receiving.read_here(what, arrival_in(tmp_path))


@pytest.mark.parametrize("tree", [True, False])
def test_a_file_that_is_written_to_while_it_is_read_is_refused(tmp_path: Path, tree: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(2_000_000))
    changed = []

    class Watched(Arrival):
        def write(self, data: bytes | memoryview) -> None:
            super().write(data)
            if self.size == self.written:
                # The last byte was read: only a look afterwards can tell.
                file.write_bytes(b"1" * 2_000_000)
                changed.append(True)

    arrival = Watched(1, 0, str(tmp_path / "value"), str(tmp_path / "tree"))
    with pytest.raises(ChangedError):
        receiving.read_here(lying(file, tree), arrival)
    arrival.close()
    assert changed
