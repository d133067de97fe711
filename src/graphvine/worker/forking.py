"""A piece of work in a child process of this one, and what becomes of the child.

For work that may crash, leak or change the state of its process: the child begins with all that its parent
has, without a copy, and nothing of what it does there stays.
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import NoReturn

import msgspec

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
#: What the child says begins with the length of the rest.
_HEAD_BYTES = 8
_CHUNK_BYTES = 2**16


class End(msgspec.Struct):
    """How a child ended. ``data``: what it had to say, None when it did not come to that. ``status``: as
    ``os.wait`` gives it."""

    pid: int
    data: bytes | None
    status: int
    peak_mb: float


def run_in_child(work: Callable[[], bytes]) -> End:
    """Fork, run ``work`` in the child, wait for what it returns. Raises OSError when there can be no
    child."""
    reader, writer = os.pipe()
    parent = os.getpid()
    try:
        pid = fork()
        if pid == 0:
            _be_child(work, writer, parent)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        data = _receive(reader, pid)
    finally:
        os.close(reader)
    _, status, usage = os.wait4(pid, 0)
    return End(pid, data, status, usage.ru_maxrss / 1024)


def fork() -> int:
    """``os.fork`` with nothing left in the buffers of the standard streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.version_info < (3, 12):
        return os.fork()
    with warnings.catch_warnings():
        # Threads of the parent do not exist in the child, and are not missed there.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have this process killed, or sent another signal, when its parent is gone (at once ended, if it is gone
    already)."""
    _libc.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def reseed() -> None:
    """Random numbers of its own for a forked process. (``random`` sees to that itself.)"""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        # Without an argument it asks for more randomness, by way of more code, than forking takes.
        numpy_random.seed(random.getrandbits(32))


def opened_gpu(descriptors: str = "/proc/self/fd") -> str:
    """A GPU's device file that this process has open, "" when there is none. With one open no child can use
    any."""
    for name in os.listdir(descriptors):
        try:
            path = os.readlink(f"{descriptors}/{name}")
        except OSError:
            continue
        if path.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dri/renderD")):
            return path
    return ""


def _be_child(work: Callable[[], bytes], writer: int, parent: int) -> NoReturn:
    try:
        die_with(parent)
        reseed()
        data = work()
        _write(writer, len(data).to_bytes(_HEAD_BYTES, "little") + data)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    except BaseException:  # noqa: BLE001 -- must never return into the parent's code
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _receive(reader: int, pid: int) -> bytes | None:
    """What the child says, whole, or None. (The end of the pipe is no sign of the child's end: its own
    children
    may have it, too.)"""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    try:
        ended = os.pidfd_open(pid)
    except OSError:
        ended = -1
    else:
        poll.register(ended, select.POLLIN)
    received = bytearray()
    try:
        while not _is_whole(received):
            ready = dict(poll.poll())
            if reader not in ready:
                return None
            part = os.read(reader, _CHUNK_BYTES)
            if not part:
                return None
            received += part
    finally:
        if ended >= 0:
            os.close(ended)
    return bytes(received[_HEAD_BYTES:])


def _is_whole(received: bytearray) -> bool:
    if len(received) < _HEAD_BYTES:
        return False
    return len(received) >= _HEAD_BYTES + int.from_bytes(received[:_HEAD_BYTES], "little")
