"""Files that the manager's machine keeps for workers that left."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from queue import Queue

import pytest

from graphvine.manager.collect import Wish
from graphvine.manager.instructions import Available, Stage
from graphvine.manager.plan import GivenFile
from graphvine.manager.staging import STAGING, Staging
from graphvine.protocol import tree_files
from graphvine.protocol.messages import Hello
from graphvine.protocol.trees import NewTree

PATIENCE_S = 20.0


class Around:
    """What stands around staging: a collector that is asked, a core that is told, the loop's thread."""

    def __init__(self) -> None:
        self.asked: list[Available] = []
        self.staged: dict[int, GivenFile] = {}
        self.refused: dict[int, str] = {}
        self.calls: Queue[Callable[[], None]] = Queue()

    def collect(self, wanted: Available, hellos: dict[int, Hello]) -> None:
        self.asked.append(wanted)

    def on_staged(self, file: int, staged: GivenFile, now: float) -> None:
        self.staged[file] = staged

    def on_unstageable(self, file: int, reason: str, now: float) -> None:
        self.refused[file] = reason

    def turn(self) -> None:
        """The next thing that a thread has to say."""
        self.calls.get(timeout=PATIENCE_S)()


@pytest.fixture
def around() -> Around:
    return Around()


@pytest.fixture
def staging(tmp_path: Path, around: Around) -> Staging:
    return Staging(str(tmp_path / "staged"), around, around.calls.put, around)  # type: ignore[arg-type]


def finish(staging: Staging) -> None:
    """All that was begun is done."""
    assert staging._thread is not None
    staging._thread.shutdown(wait=True)


def test_a_value_is_asked_for_written_and_removed(staging: Staging, around: Around) -> None:
    staging.bring(Stage(7, 5, [2]), {})
    (wanted,) = around.asked
    assert (wanted.plan, wanted.file, wanted.holders) == (STAGING, 7, [2])
    staging.on_brought(Wish(STAGING, 0, 7, 5), memoryview(b"bytes"))
    around.turn()
    staged = around.staged[7]
    assert (Path(staged.path).read_bytes(), staged.size, staged.tree) == (b"bytes", 5, False)
    staging.remove(staged.path)
    finish(staging)
    assert not Path(staged.path).exists()


def test_a_tree_is_moved_and_removed_with_its_index(staging: Staging, around: Around, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "inside").write_text("kept")
    brought = tmp_path / "brought"
    size = tree_files.take_in(NewTree(str(made)), str(brought), lambda _: "copy")
    staging.bring(Stage(8, size, [2]), {})
    staging.on_brought(Wish(STAGING, 0, 8, size), tree_files.load(str(brought)))
    around.turn()
    staged = around.staged[8]
    assert staged.tree
    assert Path(staged.path, "inside").read_text() == "kept"
    staging.remove(staged.path)
    finish(staging)
    assert list((tmp_path / "staged").iterdir()) == []


def test_what_the_disk_has_no_room_for_is_not_asked_for(
    staging: Staging, around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000, 850, 150))
    staging.bring(Stage(7, 60, [2]), {})
    assert "no room for 60 bytes" in around.refused[7], "a tenth of the disk is left to others"
    assert around.asked == []
    staging.bring(Stage(8, 40, [2]), {})
    assert [wanted.file for wanted in around.asked] == [8]


def test_what_cannot_be_written_is_told(staging: Staging, around: Around, tmp_path: Path) -> None:
    staging.bring(Stage(7, 5, [2]), {})
    shutil.rmtree(tmp_path / "staged")
    staging.on_brought(Wish(STAGING, 0, 7, 5), b"bytes")
    around.turn()
    assert "No such file" in around.refused[7]
