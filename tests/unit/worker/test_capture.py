"""What a task prints, kept for the task."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphvine.worker import capture, scratch


@pytest.fixture(autouse=True)
def parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Path]:
    monkeypatch.setattr(scratch, "_parent", str(tmp_path))
    # Another test of this process may have prepared one, elsewhere.
    monkeypatch.setattr(capture, "_capture", None)
    yield tmp_path
    capture.end()
    if capture._capture is not None:
        capture._capture.close()
        capture._capture = None


def test_what_is_printed_is_kept_until_it_is_taken(capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        for text in ("one", "two"):
            capture.begin()
            os.write(1, text.encode())
            os.write(2, b"!")
            assert capture.end() == 4
            assert capture.end() == 4
            assert capture.take() == f"{text}!".encode()
        capture.begin()
        os.write(1, b"left there")
        capture.end()
        capture.begin()
        assert capture.end() == 0


def test_it_can_be_moved_to_where_it_is_wanted(capfd: pytest.CaptureFixture[str], parent: Path) -> None:
    with capfd.disabled():
        capture.begin()
        os.write(1, b"much")
        assert Path(scratch.printed_path()).read_text() == "much"
        capture.end()
        capture.move(str(parent / "there"))
        capture.begin()
        capture.end()
    assert (parent / "there").read_text() == "much"


def test_a_forked_child_leaves_it_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        capture.begin()
        child = os.fork()
        if child == 0:
            os.write(1, b"child ")
            os._exit(capture.end())
        assert os.waitpid(child, 0)[1] == 0
        os.write(1, b"parent")
        assert capture.end() == 12
        assert capture.take() == b"child parent"


def test_without_room_it_is_passed_on(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_parent", "/nowhere")
    capture.begin()
    print("seen", flush=True)
    assert capture.end() == 0
    assert "seen" in capfd.readouterr().out
    assert sys.stdout is not None
