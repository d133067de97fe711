"""SIGTERM in an executor: passed over, but remembered.

Some batch systems say to every process of a job that it is to end. That is for the agent to see to: what runs
in its executors may end in its own time. What a task forks or starts is as it would be anywhere else: it dies
of the signal, and nobody but the batch system is to blame for that.
"""

from __future__ import annotations

import importlib
import os
import signal
from typing import Any

#: What lies under ``signal``, which makes enumerations of all that this returns: in a child, that touches
#: dozens of pages which it would not have to copy otherwise.
_system: Any = importlib.import_module("_signal")
#: A batch system that says it to all processes of a job has said it to all within this time.
_TOLD_WITHIN_S = 0.2
_came = False


def pass_over() -> None:
    """From now on this process, but none that is forked from it, goes on when it is told to end."""
    signal.signal(signal.SIGTERM, _note)
    held: list[set[int]] = []
    sigterm, default, block, set_mask = map(
        int, (signal.SIGTERM, signal.SIG_DFL, signal.SIG_BLOCK, signal.SIG_SETMASK)
    )

    def before() -> None:
        # One that comes to the child before it is as it should be waits until then.
        held.append(_system.pthread_sigmask(block, {sigterm}))

    def in_parent() -> None:
        _system.pthread_sigmask(set_mask, held.pop())

    def in_child() -> None:
        _system.signal(sigterm, default)
        in_parent()

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def whole_job_ends() -> bool:
    """Whether this process is told to end, too, now that something it has started died of SIGTERM."""
    if not _came:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            if signal.sigtimedwait({signal.SIGTERM}, _TOLD_WITHIN_S) is not None:
                return True
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _came


def _note(*_: object) -> None:
    global _came
    _came = True
