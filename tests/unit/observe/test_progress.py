"""Showing a run: when something is written, where, and that nothing is left behind."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from graphvine.manager.engine import CategoryProgress, Progress, Run
from graphvine.observe import progress as showing_module
from graphvine.observe.progress import (
    LineDisplay,
    NotebookDisplay,
    Rate,
    TerminalDisplay,
    find_display,
    showing,
    style_of,
)


class Stream(io.StringIO):
    """A text stream that is a terminal, or not."""

    def __init__(self, tty: bool, encoding: str = "utf-8") -> None:
        super().__init__()
        self._tty = tty
        self._encoding = encoding

    def isatty(self) -> bool:
        return self._tty

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding


class HandMadeRun:
    """A run whose progress the test makes."""

    def __init__(self, total: int = 10) -> None:
        self._state = Progress("", total, 0, 0, 0, 0, 1, 4.0, 1.0, False, [CategoryProgress("f", total)])

    def finish(self) -> None:
        self._state.done, self._state.finished = self._state.total, True

    def progress(self) -> Progress:
        return self._state

    def add_done_callback(self, callback: Callable[[Run], None]) -> None:
        raise AssertionError("nobody asks for that")

    def done(self) -> bool:
        return self._state.finished

    def result(self, timeout: float | None = None) -> list[Any]:
        return []

    def files(self) -> list[int]:
        return []

    def cancel(self) -> bool:
        return False


class Painted:
    """A display that keeps what it was given, and tells when."""

    refresh_s = 0.001

    def __init__(self) -> None:
        self.done: list[int] = []
        self.closed = False
        self.some = threading.Event()

    def paint(self, progress: Progress, rate: float) -> None:
        self.done.append(progress.done)
        self.some.set()

    def close(self) -> None:
        self.closed = True


def progress_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("graphvine-progress")]


def test_it_paints_while_the_run_goes_on_and_leaves_the_last_picture():
    run, display = HandMadeRun(), Painted()
    with showing(run, True, display):
        assert display.some.wait(10)
        run.finish()
    assert display.done[0] == 0
    assert display.done[-1] == 10
    assert display.closed
    assert progress_threads() == []


def test_a_short_run_shows_nothing_unasked():
    run, display = HandMadeRun(), Painted()
    with showing(run, None, display):
        run.finish()
    assert display.done == []


def test_a_short_run_shows_its_end_when_asked():
    run, display = HandMadeRun(), Painted()
    with showing(run, True, display):
        run.finish()
    assert display.done[-1] == 10


def test_an_error_of_the_run_passes_through_and_its_last_picture_stays():
    run, display = HandMadeRun(), Painted()
    display.refresh_s = 3600.0

    def fail() -> None:
        with showing(run, True, display):
            assert display.some.wait(10)
            run.finish()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert display.done == [0]
    assert display.closed
    assert progress_threads() == []


def test_a_terminal_that_goes_away_does_not_hurt_the_run():
    class Broken(Painted):
        def paint(self, progress: Progress, rate: float) -> None:
            super().paint(progress, rate)
            raise OSError(5, "Input/output error")

    run, display = HandMadeRun(), Broken()
    with showing(run, True, display):
        assert display.some.wait(10)
        run.finish()
    assert len(display.done) == 1
    assert progress_threads() == []


def test_silent_when_not_a_terminal_unless_asked(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert find_display(None, Stream(tty=False)) is None
    assert isinstance(find_display(True, Stream(tty=False)), LineDisplay)
    assert isinstance(find_display(None, Stream(tty=True)), TerminalDisplay)
    assert find_display(False, Stream(tty=True)) is None


def test_nothing_is_started_where_nothing_is_shown(monkeypatch):
    monkeypatch.setattr("sys.stderr", Stream(tty=False))
    with showing(HandMadeRun()):
        assert progress_threads() == []


def test_a_dumb_or_closed_terminal_is_none(monkeypatch):
    closed = Stream(tty=True)
    closed.close()
    monkeypatch.setattr(closed, "isatty", io.StringIO.isatty.__get__(closed))
    assert find_display(None, closed) is None
    monkeypatch.setenv("TERM", "dumb")
    assert find_display(None, Stream(tty=True)) is None


def test_a_terminal_is_repainted_in_place():
    stream = Stream(tty=True)
    display = TerminalDisplay(stream, lambda: os.terminal_size((80, 24)))
    run = HandMadeRun()
    run.progress().categories.append(CategoryProgress("g", 5))
    display.paint(run.progress(), 0.0)
    first = stream.getvalue()
    display.paint(run.progress(), 0.0)
    assert first.count("\n") == 3
    assert stream.getvalue()[len(first) :].startswith("\r\x1b[3A")


def test_a_narrow_and_low_terminal_gets_one_line_that_fits():
    stream = Stream(tty=True)
    display = TerminalDisplay(stream, lambda: os.terminal_size((20, 3)))
    run = HandMadeRun()
    run.progress().categories.append(CategoryProgress("g", 5))
    display.paint(run.progress(), 0.0)
    assert stream.getvalue().count("\n") == 1


def test_styles(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert style_of(Stream(tty=True)) == (True, True)
    assert style_of(Stream(tty=True, encoding="ascii")) == (False, True)
    assert style_of(Stream(tty=True, encoding="latin-1")) == (False, True)
    assert style_of(Stream(tty=False)) == (True, False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert style_of(Stream(tty=True)) == (True, False)


def test_a_notebook_gets_one_output_that_is_updated():
    calls: list[tuple[str, dict[str, str]]] = []

    class Handle:
        def display(self, bundle: dict[str, str], raw: bool) -> None:
            calls.append(("display", bundle))

        def update(self, bundle: dict[str, str], raw: bool) -> None:
            calls.append(("update", bundle))

    display = NotebookDisplay(Handle())
    display.paint(HandMadeRun().progress(), 0.0)
    display.paint(HandMadeRun().progress(), 0.0)
    assert [kind for kind, _ in calls] == ["display", "update"]
    assert "0/10" in calls[0][1]["text/html"]
    assert "0/10" in calls[0][1]["text/plain"]


def test_no_notebook_here():
    assert showing_module.notebook_handle() is None


def test_the_rate_is_that_of_the_last_seconds():
    rate = Rate(window_s=2.0)
    assert rate.now() == 0.0
    for second in range(10):
        rate.add(float(second), 100 * second if second < 5 else 400 + 10 * (second - 4))
    assert rate.now() == pytest.approx(10.0)


def test_a_slow_run_has_a_rate_as_well():
    rate = Rate(window_s=2.0)
    rate.add(60.0, 1)
    rate.add(61.0, 1)
    rate.add(120.0, 2)
    assert 0 < rate.now() < 0.1


def test_what_is_written_aside_goes_above_the_picture() -> None:
    stream = Stream(tty=True)
    display = TerminalDisplay(stream, lambda: os.terminal_size((80, 24)))
    progress = HandMadeRun().progress()
    display.paint(progress, 1.0)
    height = stream.getvalue().count("\n")
    begin = len(stream.getvalue())
    with showing_module.aside():
        stream.write("a task's line\n")
    display.paint(progress, 1.0)
    display.close()
    written = stream.getvalue()[begin:]
    erased, painted = written.split("a task's line\n")
    assert erased == f"\r\x1b[{height}A\x1b[J"
    assert painted.startswith("\r\x1b[2K")
    begin = len(stream.getvalue())
    with showing_module.aside():
        pass
    assert len(stream.getvalue()) == begin


def screen_of(text: str) -> list[str]:
    """What stands on a terminal that was sent ``text``: of its codes, those that pictures are made of."""
    lines: list[str] = []
    row = 0
    for part in re.split(r"(\r\x1b\[\d+A|\x1b\[J|\n)", re.sub(r"\x1b\[(\d+m|2K)", "", text)):
        if part.endswith("A"):
            row = max(0, row - int(part[3:-1]))
        elif part == "\x1b[J":
            del lines[row:]
        elif part == "\n":
            row += 1
        elif part.strip("\r"):
            lines[row : row + 1] = [part.strip("\r")]
    return lines


def test_runs_of_several_threads_have_their_pictures_one_below_the_other() -> None:
    stream = Stream(tty=True)
    displays = [TerminalDisplay(stream, lambda: os.terminal_size((80, 24))) for _ in range(2)]
    runs = [HandMadeRun(total=total) for total in (11, 22)]
    for _ in range(2):
        for display, run in zip(displays, runs, strict=True):
            display.paint(run.progress(), 1.0)
    totals = [re.search(r"\d+/(\d+)", line)[1] for line in screen_of(stream.getvalue())]
    assert totals == ["11", "22"]
    with showing_module.aside():
        stream.write("a task's line\n")
    for display, run in zip(displays, runs, strict=True):
        display.paint(run.progress(), 1.0)
    runs[1].finish()
    displays[1].paint(runs[1].progress(), 1.0)
    displays[1].close()
    displays[0].paint(runs[0].progress(), 1.0)
    displays[0].close()
    said, second, first = screen_of(stream.getvalue())
    assert said == "a task's line"
    assert "22/22" in second
    assert "0/11" in first


def test_pictures_that_share_a_low_terminal_fit_on_it() -> None:
    stream = Stream(tty=True)
    displays = [TerminalDisplay(stream, lambda: os.terminal_size((80, 8))) for _ in range(3)]
    run = HandMadeRun()
    run.progress().categories += [CategoryProgress(name, 5) for name in "ghijk"]
    for display in displays * 2:
        display.paint(run.progress(), 0.0)
    assert len(screen_of(stream.getvalue())) == 6
    for display in displays:
        display.close()
