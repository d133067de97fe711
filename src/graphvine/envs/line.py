"""How far packing is, on one line of a terminal, for who waits for it in the middle of something else."""

from __future__ import annotations

import sys


class Line:
    """``environment``: what is packed. ``shown``: None for wherever somebody looks on. There is nothing
    before it is called first, nor after the ``with`` block."""

    def __init__(self, environment: str, shown: bool | None = None) -> None:
        self._title = f"packing environment {environment}"
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._last = ""

    def __enter__(self) -> Line:
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        text = f"{self._title}: {what} {100 * done // total if total else 0} %"
        if self._shown and text != self._last:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            self._last = text

    def __exit__(self, *_: object) -> None:
        if self._last:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
