"""Directories of their own for running tasks.

    from graphvine.worker import scratch
    path = scratch.directory()

They lie on the disk tier of the worker's store, so that what a task makes there can become its result (see
``protocol.trees.NewTree``) without being copied. They are removed when the task is over, whatever became of
it.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from graphvine.protocol import tree_files
from graphvine.worker.notes import set_note as set_note

#: Where this process makes them; "" outside of executors.
_parent = ""
_made: list[str] = []
_numbers = itertools.count()
#: Whose it is, and where.
_lasting = 0, ""


class FullDiskError(OSError):
    """The worker had no room for what a task makes: that is not the task's fault, and another worker may have
    room. The executor tells it as that. Its argument says what there was no room for."""


def directory() -> str:
    """A new, empty directory for the task that is running. Each call makes another one. May be called from
    any thread of the task. Raises RuntimeError outside of a task, OSError."""
    if not _parent:
        raise RuntimeError("only a task that runs on a worker has scratch directories")
    made = _new_directory()
    _made.append(made)
    return made


def _new_directory() -> str:
    # Not by ``tempfile``: in a process that was just forked, its random names cost more than all the rest.
    for number in _numbers:
        path = f"{_parent}/{_prefix(os.getpid())}{number}"
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue  # of a process that had this number before
        return path
    raise AssertionError("numbers do not end")


def lasting() -> str:
    """A directory of this executor that stays from task to task (making and removing one takes milliseconds
    on some disks). Whoever uses it leaves it as it was. What lies there does not become a result without
    being copied. Raises RuntimeError outside of a task, OSError."""
    global _lasting
    if not _parent:
        raise RuntimeError("only a task that runs on a worker has scratch directories")
    owner, path = _lasting
    if owner != os.getpid() or not os.path.isdir(path):
        path = _new_directory()
        _lasting = os.getpid(), path
    return path


def adopt_lasting() -> None:
    """For a child that an executor forked for a task: what lasts in the executor is its own meanwhile (the
    executor waits for it)."""
    global _lasting
    _lasting = os.getpid(), _lasting[1]


def drop_lasting() -> None:
    """What lasts was left by a child that died, who knows how: the next one is another one."""
    global _lasting
    path, _lasting = _lasting[1], (0, "")
    if path:
        tree_files.remove(path)


def shared(name: str) -> str:
    """A directory of that name for all tasks of this worker, which stays as long as that. Raises RuntimeError
    outside of a task, OSError."""
    if not _parent:
        raise RuntimeError("only a task that runs on a worker has scratch directories")
    path = os.path.join(_parent, f"shared-{name}")
    os.makedirs(path, exist_ok=True)
    return path


def holds(path: str) -> bool:
    """Whether a real path lies in a scratch directory of the running task."""
    return any(path.startswith(f"{made}/") or path == made for made in _made)


# -- for executors and their pool ------------------------------------------------------------------------


def begin(parent: str) -> None:
    """From now on this process is an executor, with its directories in ``parent``."""
    global _parent, _lasting
    _parent = os.path.realpath(parent)
    _lasting = 0, ""
    _made.clear()


def end_task() -> None:
    """Remove what the task had."""
    while _made:
        path = _made.pop()
        try:
            os.rmdir(path)
        except OSError:
            tree_files.remove(path)


def printed_path() -> str:
    """Where this executor keeps what its task prints (see ``capture``). Raises RuntimeError outside of a
    task."""
    if not _parent:
        raise RuntimeError("only a task that runs on a worker has scratch directories")
    return printed_by(_parent, os.getpid())


def printed_by(parent: str, pid: int) -> str:
    """... where the executor ``pid`` does."""
    return os.path.join(parent, f"{_prefix(pid)}printed")


def left_by(parent: str, pid: int) -> list[str]:
    """Scratch directories of an executor that died."""
    return [str(path) for path in Path(parent).glob(f"{_prefix(pid)}*")]


def _prefix(pid: int) -> str:
    return f"task-{pid}-"
