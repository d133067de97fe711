"""Memory and disk that a command or a call uses while it runs, and its end when that is more than it may.

Memory is the resident size of its processes together, looked at in intervals; what each process had at its
peak is known from the kernel in the end, so one that used too much for a moment only has exceeded its limit,
too. Disk is what lies in its sandbox. Looking takes a twentieth of a core at most.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

#: Looks are so far apart, ...
INTERVAL_S = 0.2
#: ... and so many times as long as they take.
_IDLE = 19
#: A call that does not end when it is told to has so long until its process is killed.
GRACE_S = 3.0
#: Begins what is said of a call whose process is killed.
STOPPED = "graphvine: stopped: "
_SIGNAL = signal.SIGUSR2
_MB = 2**20
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Limits(msgspec.Struct, array_like=True, frozen=True):
    """In MB; 0: none."""

    memory: float = 0.0
    disk: float = 0.0

    def __bool__(self) -> bool:
        return self.memory > 0 or self.disk > 0


class LimitExceededError(BaseException):
    """Raised in a call that uses more than it may. No ``Exception``, so that it is seldom caught."""


class Monitor:
    """What the processes ``pids()`` use, and what lies in ``sandbox``."""

    def __init__(self, limits: Limits, sandbox: str, pids: Callable[[], list[int]]) -> None:
        self.memory = 0.0
        self.disk = 0.0
        self.exceeded: dict[str, float] = {}
        """The limits that it did not keep."""
        self._limits = limits
        self._sandbox = sandbox
        self._pids = pids

    def look(self) -> float:
        """See what is used now; seconds until the next look."""
        # Of this thread alone: while a call holds the interpreter, looking takes long and costs nothing.
        began = time.thread_time()
        if self._limits.memory:
            self.note(memory=resident_mb(self._pids()))
        if self._limits.disk:
            self.note(disk=extent(self._sandbox)[0])
        return max(INTERVAL_S, _IDLE * (time.thread_time() - began))

    def note(self, memory: float = 0.0, disk: float = 0.0) -> None:
        """So much was in use."""
        self.memory, self.disk = max(self.memory, memory), max(self.disk, disk)
        for name, used in (("memory", self.memory), ("disk", self.disk)):
            limit = getattr(self._limits, name)
            if limit and used > limit:
                self.exceeded[name] = limit

    @property
    def reason(self) -> str:
        """Which limits it did not keep, in words (see ``exceeded_by``)."""
        return " and ".join(
            f"it used {getattr(self, name):.0f} MB of {name}, and may use {limit:g} MB"
            for name, limit in self.exceeded.items()
        )

    def ended_within(self, pid: int, seconds: float) -> bool:
        """Wait for a process, unless it exceeds a limit or takes longer than that: then False."""
        end = time.monotonic() + seconds
        descriptor = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while True:
                pause = min(self.look(), end - time.monotonic())
                if self.exceeded or pause <= 0:
                    return False
                if poll.poll(math.ceil(pause * 1000)):
                    return True
        finally:
            os.close(descriptor)


def exceeded_by(reason: str) -> dict[str, float]:
    """The limits that ``Monitor.reason`` names."""
    return {
        name: float(limit) for name, limit in re.findall(r"MB of (\w+), and may use ([\d.e+]+) MB", reason)
    }


@contextmanager
def keeping(limits: Limits, sandbox: str) -> Iterator[Monitor]:
    """While the main thread of this process calls something, it is to keep to its limits: whether it did, the
    monitor knows afterwards."""
    process = os.getpid()
    monitor = Monitor(limits, sandbox, lambda: [process, *descendants(process)])
    if not limits:
        yield monitor
        return
    _forget_peak()
    over = threading.Event()
    # It ends a sleep, or the waiting for a child, too.
    before = signal.signal(_SIGNAL, _raise)
    guard = threading.Thread(target=_guard, args=(monitor, over, process), name="graphvine-limits")
    guard.start()
    try:
        # It may be told so when it has just come to its end.
        with contextlib.suppress(LimitExceededError):
            yield monitor
    finally:
        if os.getpid() == process:
            try:
                _end(guard, over)
            except LimitExceededError:
                _end(guard, over)
            # Nobody sends it any more.
            signal.signal(_SIGNAL, before)
            if limits.memory:
                monitor.note(memory=peak_mb("self"))
            if limits.disk:
                monitor.note(disk=extent(sandbox)[0])


def _raise(*_: object) -> None:
    raise LimitExceededError


def _end(guard: threading.Thread, over: threading.Event) -> None:
    over.set()
    guard.join()


def _guard(monitor: Monitor, over: threading.Event, process: int) -> None:
    told = 0.0
    while not over.wait(monitor.look()):
        if not monitor.exceeded:
            continue
        if not told:
            told = time.monotonic()
            signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
        elif time.monotonic() - told > GRACE_S:
            with contextlib.suppress(Exception):
                print(f"{STOPPED}{monitor.reason}", file=sys.stderr, flush=True)
            os.kill(process, signal.SIGKILL)


def resident_mb(pids: list[int]) -> float:
    """Memory of processes together; of those that are gone, none."""
    pages = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
                pages += int(file.read().split()[1])
        except (OSError, IndexError):
            continue
    return pages * _PAGE / _MB


def descendants(pid: int) -> list[int]:
    """The children of a process, theirs, and so on; none where the kernel does not list them."""
    found: list[int] = []
    left = [pid]
    while left:
        parent = left.pop()
        try:
            threads = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for thread in threads:
            with contextlib.suppress(OSError):
                with open(f"/proc/{parent}/task/{thread}/children", "rb", buffering=0) as file:
                    children = [int(word) for word in file.read().split()]
                found += children
                left += children
    return found


def extent(directory: str) -> tuple[float, int]:
    """MB and number of the files in a directory that are not links to the store."""
    size = count = 0
    try:
        if not os.listdir(directory):
            return 0.0, 0
    except OSError:  # it was removed
        return 0.0, 0
    for place, directories, names in os.walk(directory):
        count += len(directories) + len(names)
        for name in names:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(place, name))
                if status.st_nlink == 1:
                    size += status.st_size
    return size / _MB, count


def _forget_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
        file.write(b"5")


def tree_mb(pid: int) -> float:
    """The most memory that a process and what it began are known to have used: all together now, or one of
    them by itself until now."""
    pids = [pid, *descendants(pid)]
    return max(resident_mb(pids), *map(peak_mb, pids))


def peak_mb(pid: int | str) -> float:
    """The most memory that a process has used; 0 when it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
