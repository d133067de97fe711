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
from collections.abc import Callable, Mapping

import msgspec

from graphvine.taskvine.remote import shell, strays
from graphvine.taskvine.remote.spawning import Environment, make_spawner

_libc = ctypes.CDLL(None)
#: The number is the same on all architectures; the C library has a name for it only since 2.34.
_CLOSE_RANGE = ctypes.c_long(436)
_FIRST, _LAST, _CLOEXEC = ctypes.c_uint(3), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(4)
#: Bytes that the kernel takes as one argument or variable (MAX_ARG_STRLEN).
_LONGEST = 2**17
_spawner = make_spawner()


class End(msgspec.Struct):
    """How a command ended. ``code``: as ``os.waitstatus_to_exitcode`` has it. ``in_time``: whether by itself.
    Seconds of the processor, MB. ``is_own_peak``: it is not perhaps that of the executor, whose memory a
    process shares until its program is there."""

    code: int
    in_time: bool
    cpu_s: float
    peak_mb: float
    is_own_peak: bool


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
    in_time = True
    try:
        if wait is not None or limit_s < math.inf:
            in_time = (wait or _ends_within)(pid, limit_s)
        if in_time:
            # It is not reaped yet, so that its number, which is that of the group, is nobody else's.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    finally:
        _kill_group(pid)
        _, status, usage = os.wait4(pid, 0)
    mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return End(
        os.waitstatus_to_exitcode(status),
        in_time,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        usage.ru_maxrss > mine,
    )


def _ends_within(pid: int, seconds: float) -> bool:
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
