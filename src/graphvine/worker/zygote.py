"""A zygote: a warm process that imports what tasks need, once, and forks executors from itself.

Run as ``python -m graphvine.worker.zygote DESCRIPTOR`` by the pool, with one end of a SOCK_SEQPACKET pair.

- It is started by exec, so that it holds nothing of the agent's, and stays single-threaded itself (what user
  modules start at import is theirs to survive a fork; OpenBLAS and Arrow do).
- Executors die with it (PR_SET_PDEATHSIG). Orphans of executors become its children (it is a subreaper). Each
  executor has a session of its own: what is left of that is ended when the executor is.
- When the agent is gone (end of file on the socket), it kills all of them, removes the directories it was
  told to watch, and exits: so the agent can be killed at any time and leaves nothing.
- One that is told to prepare itself runs a library's set-up first. Meanwhile a thread looks out for the end
  of the agent, and is gone when the first executor is forked.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import os
import pickle
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec

from graphvine.protocol.failures import describe, pickle_error
from graphvine.protocol.node import become_task_runner
from graphvine.worker import executor as executor_module
from graphvine.worker import heap, library, scratch, sigterm
from graphvine.worker.forking import die_with, fork, opened_gpu, reseed
from graphvine.worker.marks import map_page
from graphvine.worker.modules import Contexts
from graphvine.worker.packets import MAX_MESSAGE_BYTES, ContextRef
from graphvine.worker.passing import refer

#: What executors need sooner or later, and the agent, which knows this module, never.
WARM = ("cloudpickle", "zipfile")
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class Spawn(msgspec.Struct, array_like=True, tag=0):
    """Fork an executor, after importing ``imports``. Comes with four descriptors: its end of the socket pair,
    its page of marks, and the pipes for its standard output and error. ``shown``: variables that show it its
    gpus (none where the worker offers none)."""

    executor: int
    imports: list[str]
    scratch: str
    shown: dict[str, str] = {}


class Watch(msgspec.Struct, array_like=True, tag=1):
    """Remove these directories when the agent is gone."""

    directories: list[str]


class Prepare(msgspec.Struct, array_like=True, tag=2):
    """Import ``imports``, then run the set-up in the file ``setup`` ("": none) with the modules of
    ``archive`` ("": none). The answer is ``Prepared`` or ``PrepareFailed``, or an end after ``limit_s``.
    ``inputs``: paths of the files that the set-up is given, and whether each is an inline pickle."""

    setup: str
    archive: str
    imports: list[str]
    scratch: str
    limit_s: float
    inputs: list[tuple[str, bool]] = []


class Forked(msgspec.Struct, array_like=True, tag=0):
    executor: int
    pid: int


class Gone(msgspec.Struct, array_like=True, tag=1):
    """An executor ended: its wait status, and its peak resident memory."""

    executor: int
    status: int
    peak_mb: float


class Importing(msgspec.Struct, array_like=True, tag=2):
    """About to import a module; if the zygote dies now, that is why. "" when it is over."""

    name: str


class SpawnFailed(msgspec.Struct, array_like=True, tag=3):
    executor: int
    reason: str


class Prepared(msgspec.Struct, array_like=True, tag=4):
    duration_s: float


class PrepareFailed(msgspec.Struct, array_like=True, tag=5):
    """The set-up raised; the pickled exception is b"" when it cannot be carried."""

    text: str
    error: bytes


ToZygote = Spawn | Watch | Prepare
FromZygote = Forked | Gone | Importing | SpawnFailed | Prepared | PrepareFailed


class Zygote:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._executors: dict[int, int] = {}
        """Pid to executor number."""
        self._sessions: set[int] = set()
        """Of executors that ended."""
        self._imported: set[str] = set()
        self._watched: list[str] = []
        self._contexts = Contexts()
        self._decode = msgspec.msgpack.Decoder(ToZygote).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)

    def serve(self) -> None:
        """Until the agent is gone."""
        self._catch_signals()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_out, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll()}
                if self._wake_out.fileno() in ready:
                    self._drain_wakeups()
                    self._reap()
                if self._control.fileno() in ready and not self._receive():
                    break
        except (BrokenPipeError, ConnectionResetError):
            # The agent went while something was being said to it, or with something unread.
            pass
        self._leave()

    def _catch_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)

    def _drain_wakeups(self) -> None:
        try:
            while self._wake_out.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _say(self, message: FromZygote) -> None:
        self._control.send(self._encode(message))

    def _receive(self) -> bool:
        """Take in one message; False when the agent is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, 4)
        except ConnectionResetError:
            return False
        if not data:
            return False
        message = self._decode(data)
        if isinstance(message, Watch):
            self._watched = message.directories
        elif isinstance(message, Prepare):
            self._on_prepare(message)
        else:
            self._on_spawn(message, descriptors)
        return True

    def _on_prepare(self, prepare: Prepare) -> None:
        began, process = time.perf_counter(), os.getpid()
        answer: FromZygote
        try:
            with _LookOut(self._control, self._leave_at_once):
                self._import(prepare.imports)
                self._set_up(prepare)
        except BaseException as error:  # noqa: BLE001 -- a set-up is the user's code
            if os.getpid() != process:
                executor_module.leave_as_child(error)
            answer = PrepareFailed(describe(error), pickle_error(error))
        else:
            if os.getpid() != process:
                # What the set-up forked is no zygote.
                executor_module.leave_as_child(None)
            answer = Prepared(time.perf_counter() - began)
        # It may have installed handlers of its own.
        self._catch_signals()
        self._control.send(refer(self._encode(answer), prepare.scratch))

    def _set_up(self, prepare: Prepare) -> None:
        if not prepare.setup:
            return
        with open(prepare.setup, "rb") as file:
            setup = file.read()
        self._contexts.tell(ContextRef(-1, prepare.archive, []))
        self._contexts.activate(-1)
        # A thread in C, which also ends a set-up that never lets go of the interpreter, and says where it is.
        faulthandler.dump_traceback_later(prepare.limit_s, exit=True)
        scratch.begin(prepare.scratch)
        process = os.getpid()
        try:
            library.start(setup, [_load_input(path, inline) for path, inline in prepare.inputs])
        finally:
            if os.getpid() == process:
                # In a child that the set-up forked it would wait for a thread that is not there.
                faulthandler.cancel_dump_traceback_later()

    def _leave_at_once(self) -> None:
        """The agent is gone while a set-up runs. Called from another thread."""
        _kill_and_reap_all()
        for directory in self._watched:
            shutil.rmtree(directory, ignore_errors=True)
        os._exit(1)

    def _on_spawn(self, spawn: Spawn, descriptors: list[int]) -> None:
        try:
            self._import(spawn.imports, offers_gpus=bool(spawn.shown))
            pid = self._fork(spawn, descriptors)
        except OSError as error:
            self._say(SpawnFailed(spawn.executor, f"cannot fork: {error}"))
        else:
            self._executors[pid] = spawn.executor
            self._say(Forked(spawn.executor, pid))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _import(self, names: list[str], offers_gpus: bool = False) -> None:
        fresh = [name for name in names if name not in self._imported]
        for name in fresh:
            self._imported.add(name)
            self._say(Importing(name))
            try:
                importlib.import_module(name)
            except BaseException:  # noqa: BLE001 -- modules raise what they like; a task that needs it will tell
                print(f"graphvine: cannot import {name} ahead:\n{traceback.format_exc()}", file=sys.stderr)
            # Modules install handlers of their own (faulthandler, ROOT).
            self._catch_signals()
            if offers_gpus:
                _refuse_opened(name)
        if fresh:
            self._say(Importing(""))

    def _fork(self, spawn: Spawn, descriptors: list[int]) -> int:
        # Keeps the pages of what is there shared: the collector does not touch them any more.
        gc.collect()
        gc.freeze()
        parent = os.getpid()
        pid = fork()
        if pid == 0:
            self._become_executor(spawn, descriptors, parent)
        return pid

    def _become_executor(self, spawn: Spawn, descriptors: list[int], parent: int) -> NoReturn:
        try:
            os.setsid()
            die_with(parent)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            sigterm.pass_over()
            for mine in (self._control, self._wake_in, self._wake_out):
                mine.close()
            _redirect(descriptors[2], descriptors[3])
            _freshen()
            os.environ.update(spawn.shown)
            link = socket.socket(fileno=descriptors[0])
            page = map_page(descriptors[1])
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            executor_module.main(link, page, spawn.scratch, self._contexts)
        except BaseException:  # noqa: BLE001 -- must never return into the zygote's loop
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while True:
            try:
                # Not reaped yet, so that the number of its process group cannot be anybody else's.
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            pid = found.si_pid
            executor = self._executors.pop(pid, None)
            if executor is not None:
                _kill_group(pid)
            _, status, usage = os.wait4(pid, 0)
            if executor is not None:
                self._sessions.add(pid)
                self._say(Gone(executor, status, usage.ru_maxrss / 1024))
            if self._sessions:
                self._end_sessions()

    def _end_sessions(self) -> None:
        """End process groups that executors left behind: commands that they ran, say."""
        for pid in _children():
            try:
                # Its number is its own as long as nobody but us may reap it.
                if os.getsid(pid) in self._sessions:
                    os.killpg(os.getpgid(pid), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue

    def _leave(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in self._executors:
            _kill_group(pid)
        _kill_and_reap_all()
        for directory in self._watched:
            shutil.rmtree(directory, ignore_errors=True)


class _LookOut:
    """While it lasts, ``leave`` is called from a thread when nobody is at the other end of ``control``."""

    def __init__(self, control: socket.socket, leave: Callable[[], None]) -> None:
        self._control = control
        self._leave = leave
        self._process = os.getpid()
        self._over = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="zygote-look-out", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._process:
            return  # a child that the set-up forked: the descriptor is its parent's, too
        os.eventfd_write(self._over, 1)
        self._thread.join()
        os.close(self._over)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLRDHUP)
        poll.register(self._over, select.POLLIN)
        if any(descriptor == self._control.fileno() for descriptor, _ in poll.poll()):
            self._leave()


def _refuse_opened(module: str) -> None:
    """End this process if a module has opened a GPU in it: what is forked from it could never use one. As
    with all that ends it while it imports, the module is left to the tasks that need it."""
    device = opened_gpu()
    if device:
        print(
            f"graphvine: {module} opens {device} when it is imported: that is left to tasks", file=sys.stderr
        )
        sys.stderr.flush()
        os._exit(1)


def _load_input(path: str, inline: bool) -> Any:
    """What a set-up is given. Raises what unpickling raises, VanishedError."""
    if not inline:
        return executor_module.load_file(path)
    with open(path, "rb") as file:
        return pickle.load(file)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Not yet a group of its own (just forked), or nobody of it is left.
        os.kill(pid, signal.SIGKILL)


def _kill_and_reap_all() -> None:
    """Kill all children, then those that become ours because their parent died, until none is left."""
    while children := _children():
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _redirect(output: int, error: int) -> None:
    """Standard output and error into the executor's pipes; standard input is empty."""
    os.dup2(output, 1)
    os.dup2(error, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # Where a segmentation fault happened is worth more than that it did.
    faulthandler.enable()


def _freshen() -> None:
    """What a process of its own would have: another random state, an empty ``__main__``."""
    reseed()
    sys.modules["__main__"] = types.ModuleType("__main__")


def main() -> None:
    if sys.path and _is_here(sys.path[0]) and not getattr(sys.flags, "safe_path", False):
        # Put there by -m: what lies in the working directory is no module of ours or the user's.
        del sys.path[0]
    control = socket.socket(fileno=int(sys.argv[1]))
    del sys.argv[1:]
    serve(control)


def _is_here(path: str) -> bool:
    try:
        return path in ("", os.getcwd())
    except OSError:  # it was removed
        return False


def serve(control: socket.socket) -> None:
    """Be a zygote until the agent, at the other end of ``control``, is gone."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    heap.keep_freed()
    become_task_runner()
    for name in WARM:
        importlib.import_module(name)
    Zygote(control).serve()


if __name__ == "__main__":
    main()
