"""What a command leaves behind although it left its process group: daemons, and what ``setsid`` began.

While a command runs this process adopts the orphans among its descendants (it is a *subreaper*). So all that
is left after it are children of this process that were not there before.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


def adopt() -> set[int]:
    """From now on this process adopts orphans; the children that it has already, for ``end``."""
    before = children() if _has_any() else set()
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return before


def end(before: set[int]) -> None:
    """End whatever was begun since ``adopt``, which gave ``before``."""
    # The children of each that ends are adopted in turn.
    while _has_any() and (left := children() - before):
        for pid in left:
            _end(pid)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def children() -> set[int]:
    """Those of this process; none where the kernel does not list them."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb", buffering=0) as file:
                found.update(map(int, file.readall().split()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # that thread ended
    return found


def _has_any() -> bool:
    """Asked twice for every command, and nearly always answered by this one call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return
