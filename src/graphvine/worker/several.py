"""Workers and zygotes from one start.

What a worker and its zygote import costs more than all else that they do until they are connected. So it is
imported once, and the zygote forked from its worker. (A manager's own worker is the only one on its machine
that gets ready: there both do so at the same time, see ``launch``.)

Several workers of one command are forked in the same way, from a process that has imported everything. They
have nothing else in common: each is a worker as any other, with a store, a connection and an end of its own.
That process passes signals on and waits for them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from graphvine.worker import zygote
from graphvine.worker.forking import die_with, fork
from graphvine.worker.launch import ONE_THREAD

#: What a worker needs beside what is imported here.
_WARM = (*zygote.WARM, "psutil", "graphvine.worker.loop", "graphvine.worker.store")
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)
_WATCHED = {*_PASSED_ON, signal.SIGCHLD}


def warm_up() -> None:
    """Import all that a worker and its zygote need."""
    for name in _WARM:
        importlib.import_module(name)
    gc.collect()
    # The pages of what is there stay shared: the collector does not touch them any more.
    gc.freeze()


def run_several(count: int, work: Callable[[int], int]) -> int:
    """Run ``work(number)``, which returns an exit code, in so many processes. Returns the largest exit code
    when all have ended. Raises OSError when there can't be so many; then none is left."""
    warm_up()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    parent = os.getpid()
    running: set[int] = set()
    try:
        for number in range(count):
            pid = fork()
            if pid == 0:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                die_with(parent)
                _work(work, number)
            running.add(pid)
        return _wait(running)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(work: Callable[[int], int], number: int) -> NoReturn:
    code = 1
    try:
        code = work(number)
    except BaseException:  # noqa: BLE001 -- must never return into the loop that forks
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def _wait(running: set[int]) -> int:
    """Until none is left; those that end are taken out of ``running``."""
    largest = 0
    while running:
        number = signal.sigwait(_WATCHED)
        for pid in running if number in _PASSED_ON else ():
            os.kill(pid, number)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                largest = max(largest, code if code >= 0 else 128 - code)
    return largest


class ForkedProcess:
    """A child of this process, with what is needed here of ``subprocess.Popen``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | Any = None
        self._ended = os.pidfd_open(pid)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or minus the signal. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._ended, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("zygote", timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._ended)
        return int(self.returncode)

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


class ForkedZygote:
    """The first zygote of a worker that was forked; as ``launch.Launched``. This process must not have any
    threads yet, nor sockets of libzmq."""

    def __init__(self, log: str, rest: int = -1) -> None:
        """Its output is appended to the file ``log``. ``rest``: what it waits for (``worker.rest``), if
        anything."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(log, "ab") as output:
            self.log_begin = output.tell()
            pid = fork()
            if pid == 0:
                _be_zygote(self.control, theirs, output.fileno(), rest)
        self.process = ForkedProcess(pid)
        self.control.setblocking(False)


def _leave_directory() -> None:
    """What lies in the working directory, or beside the command, is no module of ours or the user's."""
    ours = os.path.dirname(sys.argv[0])
    if (
        not getattr(sys.flags, "safe_path", False)
        and sys.path[:1]
        and (sys.path[0] in ("", os.getcwd(), ours, os.path.realpath(ours)))
    ):
        del sys.path[0]


def _wait_for(rest: int) -> None:
    """Until the rest of the environment is there, or the agent is gone. Modules that came since are found."""
    while os.read(rest, 1):
        pass
    os.close(rest)
    importlib.invalidate_caches()


def _be_zygote(ours: socket.socket, theirs: socket.socket, output: int, rest: int) -> NoReturn:
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for descriptor, standard in ((nowhere, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, standard)
        link = theirs.detach()
        ours.detach()
        # Nothing of the worker's is kept open: its end would not be noticed.
        kept = sorted({2, link, rest} - {-1})
        for one, next_one in itertools.pairwise([*kept, os.sysconf("SC_OPEN_MAX")]):
            os.closerange(one + 1, next_one)
        for name in ONE_THREAD:
            os.environ.setdefault(name, "1")
        _leave_directory()
        del sys.argv[1:]
        logging.getLogger().handlers.clear()
        logging.getLogger().setLevel(logging.WARNING)
        if rest >= 0:
            _wait_for(rest)
        zygote.serve(socket.socket(fileno=link))
    except BaseException:  # noqa: BLE001 -- must never return into the worker
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)
