"""The process of a command: begun, waited for, and ended with all that it began.

- It is one process group. The group is ended when the command is over, or its time is, and so are those that
  left it (``strays``).
- It inherits no descriptor but its standard streams, and no signal that the executor ignores or blocks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Mapping

import msgspec

from graphvine.taskvine.remote import shell, strays
from graphvine.taskvine.remote.limits import tree_mb
from graphvine.taskvine.remote.spawning import Environment, make_spawner

_libc = ctypes.CDLL(None)
#: The number is the same on all architectures; the C library has a name for it only since 2.34.
_CLOSE_RANGE = ctypes.c_long(436)
_FIRST, _LAST, _CLOEXEC = ctypes.c_uint(3), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(4)
#: Bytes that the kernel takes as one argument or variable (MAX_ARG_STRLEN).
_LONGEST = 2**17
#: When is first looked at the memory of a command, and how long until it is looked again at most; until then,
#: after a part of the time that it has taken.
FIRST_LOOK_S = 0.005
LONGEST_LOOK_S = 1.0
_LATER = 0.2
_spawner = make_spawner()


class End(msgspec.Struct):
    """How a command ended. ``code``: as ``os.waitstatus_to_exitcode`` has it. ``in_time``: whether by itself.
    Seconds of the processor. ``peak_mb``: memory of its processes at the peak (0: it was too short to be
    measured)."""

    code: int
    in_time: bool
    cpu_s: float
    peak_mb: float


#: Waits for a process, for so many seconds at most; whether it ended by itself.
Wait = Callable[[int, float], bool]


def run(
    line: str,
    directory: str,
    environment: Environment,
    output: int,
    limit_s: float,
    wait: Wait | None = None,
) -> End:
    """Run a command line in a directory; what it prints goes to the descriptor ``output``. ``wait``: in place
    of merely waiting. Raises OSError when it cannot be begun, ValueError."""
    before = strays.adopt()
    try:
        return _attend(_begin(line, directory, environment, output), limit_s, wait)
    finally:
        strays.end(before)


def _begin(line: str, directory: str, environment: Environment, output: int) -> int:
    _keep_to_ourselves()
    path, arguments = shell.arguments_of(line, environment.variables)
    try:
        return _spawner.begin(path, arguments, environment, directory, output)
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise OSError(errno.E2BIG, _what_is_too_long(line, environment.variables)) from None
        if path == shell.SHELL:
            raise
        return _spawner.begin(*shell.shell_for(line), environment, directory, output)


def _what_is_too_long(line: str, variables: Mapping[str, str]) -> str:
    """Which of what a program is given the kernel does not take."""
    sizes = {f"the variable {name}": len(f"{name}={value}".encode()) for name, value in variables.items()}
    sizes["the command line"] = len(line.encode())
    longest = max(sizes, key=sizes.__getitem__)
    if sizes[longest] >= _LONGEST:
        return f"{longest} has {sizes[longest]} bytes, and programs are given less than {_LONGEST} in one"
    return f"{sum(sizes.values())} bytes of command line and variables are more than programs are given"


def _keep_to_ourselves() -> None:
    """Have every descriptor but the standard streams closed in programs that are begun."""
    if _libc.syscall(_CLOSE_RANGE, _FIRST, _LAST, _CLOEXEC) == 0:
        return
    for name in os.listdir("/proc/self/fd"):  # a kernel before 5.11
        with contextlib.suppress(OSError):
            if int(name) > 2:
                os.set_inheritable(int(name), False)


def _attend(pid: int, limit_s: float, wait: Wait | None) -> End:
    """Wait for a command, and end what it leaves."""
    in_time, seen = True, Seen()
    try:
        in_time = (wait or seen.wait)(pid, limit_s)
        if in_time:
            # It is not reaped yet, so that its number, which is that of the group, is nobody else's.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    finally:
        _kill_group(pid)
        _, status, usage = os.wait4(pid, 0)
    # Until its program was there it shared our memory, which the kernel counts.
    if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        seen.peak_mb = max(seen.peak_mb, usage.ru_maxrss / 1024)
    return End(os.waitstatus_to_exitcode(status), in_time, usage.ru_utime + usage.ru_stime, seen.peak_mb)


class Seen:
    """Waits for a command, and looks now and then at how much memory its processes use: the less often, the
    longer it takes."""

    def __init__(self) -> None:
        self.peak_mb = 0.0

    def wait(self, pid: int, seconds: float) -> bool:
        """Whether it ended by itself within that time."""
        began = time.monotonic()
        descriptor = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            pause = FIRST_LOOK_S
            while (left := began + seconds - time.monotonic()) > 0:
                if poll.poll(math.ceil(min(pause, left) * 1000)):
                    return True
                self.peak_mb = max(self.peak_mb, tree_mb(pid))
                pause = min(_LATER * (time.monotonic() - began), LONGEST_LOOK_S)
            return bool(poll.poll(0))
        finally:
            os.close(descriptor)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
