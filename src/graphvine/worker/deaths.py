"""How an executor died, in words for the user."""

from __future__ import annotations

import os
import signal
from pathlib import Path

_TAIL_BYTES = 8192
#: Enough for what was printed before a crash and the stack that faulthandler adds.
_TAIL_LINES = 40


def explain(status: int, peak_mb: float, out_of_memory: bool, last_lines: str) -> str:
    """``status``: as ``os.wait`` gives it. ``peak_mb``: 0 when not known."""
    parts = [_how(status)]
    if peak_mb:
        parts.append(f"its memory had reached {peak_mb:.0f} MB")
    if out_of_memory:
        parts.append("the kernel killed a process on this machine because memory ran out")
    elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        parts.append("perhaps because the memory it was allowed ran out")
    text = "; ".join(parts)
    return f"{text}; last lines of its output:\n{last_lines}" if last_lines else text


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "a signal"
        return f"killed by {name} (signal {number})"
    return f"exited with code {os.waitstatus_to_exitcode(status)}"


def tail(log: str, begin: int = 0) -> str:
    """The last lines that were written to ``log`` after its byte ``begin``."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(begin, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return last_lines_of(text)


def last_lines_of(text: str) -> str:
    """Enough lines from the end of ``text`` to see what happened."""
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])


class OutOfMemoryKills:
    """Whether the kernel's count of out-of-memory kills has grown."""

    def __init__(self) -> None:
        self._last = self._count()

    def grown(self) -> bool:
        """Since the last call (or since this was made)."""
        count = self._count()
        grown, self._last = count > self._last, count
        return grown

    @staticmethod
    def _count() -> int:
        try:
            words = Path("/proc/vmstat").read_text().split()
            return int(words[words.index("oom_kill") + 1])
        except (OSError, ValueError):
            return 0
