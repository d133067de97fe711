"""Shows a run while it goes on: ``with showing(run): run.result()``.

- Unasked, it shows only in a terminal or a notebook, and only runs that take longer than half a second. Asked
  (``progress=True``), it always shows, and where nothing can be repainted it writes a line now and then.
- A thread of its own sleeps until the block ends or a refresh is due. Where nothing is shown there is none.
- What others write to the terminal goes above the picture, when they do it within ``aside``.
- Runs that go on at the same time (of several threads, say) have their pictures one below the other.
- The last picture stays. Nothing is written after ``showing`` ends; a broken terminal never breaks a run.
"""

from __future__ import annotations

import contextvars
import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TextIO

from graphvine.manager.engine import Progress, Run
from graphvine.observe.render import Style, render_html, render_progress

#: Shorter runs are not worth a line that nobody asked for.
PATIENCE_S = 0.5
REFRESH_S = 0.15
#: Where lines can't be repainted, a new one is written this often.
LINE_EVERY_S = 10.0
_RATE_WINDOW_S = 4.0

#: Held while something is painted, or written within ``aside``.
_screen = threading.RLock()
_painted: list[TerminalDisplay] = []


class Display(Protocol):
    """Somewhere to paint."""

    refresh_s: float

    def paint(self, progress: Progress, rate: float) -> None: ...

    def close(self) -> None:
        """The last picture was painted."""
        ...


@contextmanager
def aside() -> Iterator[None]:
    """Within it, whole lines can be written to the terminal: pictures make room, and come again below."""
    with _screen:
        for display in list(_painted):
            with suppress(OSError, ValueError):
                display.clear()
        yield


@contextmanager
def showing(run: Run, progress: bool | None = None, display: Display | None = None) -> Iterator[None]:
    """Show ``run`` until the block ends. ``progress``: True shows it, False does not, None decides."""
    if display is None:
        display = find_display(progress)
    if display is None:
        yield
        return
    watcher = Watcher(run, display, patience_s=0.0 if progress else PATIENCE_S)
    watcher.start()
    try:
        yield
    except BaseException:
        # What a stopped run counts as done means nothing: the picture before it stays.
        watcher.stop(last_picture=False)
        raise
    watcher.stop()


class Watcher:
    """Repaints one run, in a thread of its own."""

    def __init__(self, run: Run, display: Display, patience_s: float) -> None:
        self._run = run
        self._display = display
        self._patience_s = patience_s
        self._rate = Rate()
        self._stop = threading.Event()
        self._painted = False
        self._last_picture = True
        context = contextvars.copy_context()  # notebooks find the cell that output belongs to in it
        self._thread = threading.Thread(
            target=context.run, args=(self._watch,), name="graphvine-progress", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self, last_picture: bool = True) -> None:
        """Stop, with a last picture where there was one before, or where one was asked for."""
        self._last_picture = last_picture
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            due_s = self._patience_s
            while not self._stop.wait(due_s):
                self._paint()
                due_s = self._display.refresh_s
            if self._last_picture and (self._painted or self._patience_s == 0):
                self._paint()
        except (OSError, ValueError):
            return  # the terminal has gone or is closed: the run matters, the picture does not
        finally:
            with suppress(OSError, ValueError):
                self._display.close()

    def _paint(self) -> None:
        progress = self._run.progress()
        self._rate.add(progress.elapsed_s, progress.done)
        self._display.paint(progress, self._rate.overall(progress) if progress.finished else self._rate.now())
        self._painted = True


class Rate:
    """Tasks per second over the last few seconds."""

    def __init__(self, window_s: float = _RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._points: deque[tuple[float, int]] = deque([(0.0, 0)])

    def add(self, now_s: float, done: int) -> None:
        self._points.append((now_s, done))
        # One point older than the window stays, so that slow runs have a rate as well.
        while len(self._points) > 2 and self._points[1][0] < now_s - self._window_s:
            self._points.popleft()

    def now(self) -> float:
        (began_s, before), (now_s, done) = self._points[0], self._points[-1]
        return (done - before) / (now_s - began_s) if now_s > began_s and done > before else 0.0

    @staticmethod
    def overall(progress: Progress) -> float:
        return progress.done / progress.elapsed_s if progress.elapsed_s > 0 else 0.0


# -- where to paint ----------------------------------------------------------------------------------------


def find_display(progress: bool | None, stream: TextIO | None = None) -> Display | None:
    """The notebook, the terminal, or, when asked for, lines on standard error; else None."""
    if progress is False:
        return None
    handle = notebook_handle()
    if handle is not None:
        return NotebookDisplay(handle)
    stream = stream if stream is not None else sys.stderr
    if stream is None:  # pythonw, daemons
        return None
    if is_terminal(stream):
        return TerminalDisplay(stream)
    return LineDisplay(stream) if progress else None


def is_terminal(stream: TextIO) -> bool:
    """Whether lines on ``stream`` can be repainted."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def style_of(stream: TextIO) -> Style:
    """What ``stream`` can show. NO_COLOR (no-color.org) is honoured."""
    try:
        "█▏░▒…".encode(stream.encoding or "ascii")
        blocks = True
    except (UnicodeEncodeError, LookupError):
        blocks = False
    return Style(unicode=blocks, colour=is_terminal(stream) and not os.environ.get("NO_COLOR"))


class TerminalDisplay:
    """Repaints a few lines in place, below whatever was written before."""

    refresh_s = REFRESH_S

    def __init__(
        self, stream: TextIO, size: Callable[[], os.terminal_size] = shutil.get_terminal_size
    ) -> None:
        self._stream = stream
        self._size = size
        self._style = style_of(stream)
        self._lines: list[str] = []
        """As they stand on the screen."""

    def paint(self, progress: Progress, rate: float) -> None:
        columns, rows = self._size()
        with _screen:
            above = self._neighbours()
            height = sum(len(each._lines) for each in above)
            if self not in above:
                _painted.append(self)
                above.append(self)
            share = max(1, min(10, (rows - 2) // len(above)))
            # The last column stays free: writing there wraps on some terminals.
            self._lines = render_progress(progress, max(columns - 1, 1), rate, self._style, max_lines=share)
            for each in above:
                del each._lines[share:]
            self._repaint(height, above)

    def clear(self) -> None:
        """Take the picture away; the next one comes wherever the cursor is then."""
        with _screen:
            others = self._neighbours()
            height = sum(len(each._lines) for each in others)
            self._forget()
            self._repaint(height, self._neighbours())

    def close(self) -> None:
        """The picture stays, above those that go on."""
        with _screen:
            others = self._neighbours()
            try:
                if len(others) > 1 and self in others:
                    height = sum(len(each._lines) for each in others)
                    self._repaint(height, [self, *(each for each in others if each is not self)])
            finally:
                self._forget()

    def _neighbours(self) -> list[TerminalDisplay]:
        """All that share this screen, from the top."""
        return [each for each in _painted if each._stream is self._stream]

    def _repaint(self, height: int, displays: list[TerminalDisplay]) -> None:
        """In place of the last ``height`` lines."""
        picture = "".join(f"\x1b[2K{line}\n" for each in displays for line in each._lines)
        self._stream.write("\r" + (f"\x1b[{height}A" if height else "") + picture + "\x1b[J")
        self._stream.flush()

    def _forget(self) -> None:
        self._lines = []
        if self in _painted:
            _painted.remove(self)


class LineDisplay:
    """Writes a new line now and then, for log files."""

    refresh_s = LINE_EVERY_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._style = style_of(stream)._replace(colour=False)

    def paint(self, progress: Progress, rate: float) -> None:
        line = render_progress(progress, 110, rate, self._style, max_lines=1)[0]
        self._stream.write(f"graphvine: {line}\n")
        self._stream.flush()

    def close(self) -> None:
        pass


class NotebookDisplay:
    """One piece of HTML in the cell's output, updated in place."""

    refresh_s = 0.3

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._shown = False

    def paint(self, progress: Progress, rate: float) -> None:
        bundle = {
            "text/html": render_html(progress, rate),
            "text/plain": "\n".join(render_progress(progress, 100, rate)),
        }
        (self._handle.update if self._shown else self._handle.display)(bundle, raw=True)
        self._shown = True

    def close(self) -> None:
        pass


def notebook_handle() -> Any | None:
    """An IPython display handle when this code runs in a notebook's kernel, else None."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import DisplayHandle

    return DisplayHandle()
