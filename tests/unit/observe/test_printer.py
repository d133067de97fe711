"""What tasks print is written by a thread of its own, and never more of it than can wait."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator

import pytest

from graphvine.observe.printer import Printer


@pytest.fixture
def printer() -> Iterator[Printer]:
    made = Printer(waiting_bytes=20)
    yield made
    made.close()
    assert all(thread.name != "graphvine-print" for thread in threading.enumerate())


class Stuck(io.StringIO):
    """A terminal that takes nothing for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.go_on.wait(20)
        return super().write(text)


def test_each_stream_gets_its_own(printer: Printer, capsys: pytest.CaptureFixture[str]) -> None:
    printer.put(1, b"out\n")
    printer.put(2, b"error\n")
    printer.flush()
    assert capsys.readouterr() == ("out\n", "error\n")


def test_a_stream_that_is_stuck_holds_nobody_up(printer: Printer, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck()
    monkeypatch.setattr(sys, "stdout", stuck)
    printer.put(1, b"first\n")
    assert stuck.entered.wait(20)
    printer.put(1, b"second\n")
    printer.put(1, b"too much of it\n")
    printer.flush(timeout_s=0.0)
    stuck.go_on.set()
    printer.flush()
    assert stuck.getvalue() == "first\nsecond\n"


def test_what_is_left_out_is_said(printer: Printer, capsys: pytest.CaptureFixture[str]) -> None:
    printer.put(1, b"x" * 21)
    printer.put(1, b"short\n", left_out=1000)
    printer.flush()
    said = capsys.readouterr()
    assert said.out == "short\n"
    assert "1,021 bytes" in said.err


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_closed_streams_do_no_harm(
    printer: Printer, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    printer.put(1, b"nobody looks\n")
    printer.flush()
