"""The executors of a worker, as the agent's loop sees them. Nothing here waits.

The pool starts the zygotes, asks them for executors, sends packets, and turns what the zygotes and the
executors say into events (``pool_events``). The agent polls ``descriptors()`` together with its own sockets
and calls ``on_readable``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Mapping

import msgspec

from graphvine.worker import scratch as scratch_directories
from graphvine.worker.deaths import OutOfMemoryKills, explain, last_lines_of, tail
from graphvine.worker.executor import temporary_name
from graphvine.worker.launch import Inside, Launched, Zygote, zygote_log
from graphvine.worker.marks import make_page, map_page, read_mark
from graphvine.worker.output import Outlet, Pipe
from graphvine.worker.packets import (
    MAX_MESSAGE_BYTES,
    ContextRef,
    ExecutorUp,
    FromExecutor,
    Packet,
    PacketDone,
    PacketHead,
    TaskTold,
    TaskTurn,
)
from graphvine.worker.passing import forget, refer, resolve
from graphvine.worker.pool_events import (
    ExecutorDied,
    ExecutorReady,
    PoolEvent,
    ResultsArrived,
    ZygoteDied,
    ZygoteFailed,
    ZygoteReady,
)
from graphvine.worker.removal import Remover
from graphvine.worker.zygote import (
    Forked,
    FromZygote,
    Gone,
    Importing,
    Prepare,
    Prepared,
    PrepareFailed,
    Spawn,
    SpawnFailed,
    ToZygote,
    Watch,
)

#: Asked of the kernel for each executor's inbox; it gives what its limits allow.
_INBOX_BYTES = 2**20
#: What faulthandler says first when a set-up took too long.
_TIMED_OUT = "Timeout ("
#: How long killed processes are waited for.
_GONE_S = 2.0


class _Executor:
    """What the pool knows of one executor."""

    def __init__(self, number: int, log: str, zygote: _Zygote) -> None:
        self.number = number
        self.zygote = zygote
        self.link, self.inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """Our end, and the executor's, of which we keep a copy: what it has not read can be taken back."""
        for end in (self.link, self.inbox):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _INBOX_BYTES)
        self.page_descriptor = make_page()
        self.page = map_page(self.page_descriptor)
        self.outlet = Outlet(number, log)
        self.pid = 0
        self.killed = False
        self.directories: set[str] = set()

    def close(self) -> None:
        self.link.close()
        self.inbox.close()
        self.outlet.close()
        self.page.close()
        os.close(self.page_descriptor)


class _Zygote:
    """A running zygote and the link to it. Messages that find the link full wait here."""

    def __init__(self, key: str, launched: Zygote, log: str) -> None:
        self.key = key
        self.control = launched.control
        self.process = launched.process
        self.log = log
        self.log_begin = launched.log_begin
        self.importing = ""
        self.limit_s = 0.0
        """How long the set-up may take that it is at."""
        self.ended = False
        """It was asked to leave: nobody wants to hear that it did."""
        self._unsent: deque[tuple[ToZygote, list[int]]] = deque()
        self._encode = msgspec.msgpack.Encoder().encode

    def say(self, message: ToZygote, descriptors: list[int]) -> None:
        self._unsent.append((message, descriptors))
        self.say_waiting()

    def say_waiting(self) -> None:
        """Send what there is room for. Called again whenever the zygote said something."""
        while self._unsent:
            message, descriptors = self._unsent[0]
            try:
                socket.send_fds(self.control, [self._encode(message)], descriptors)
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                # Full, or dead: then the end of file will say so.
                return
            self._unsent.popleft()

    def end(self) -> None:
        """Ask it to leave, without waiting: it hears the end of our words."""
        self.ended = True
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closing the link is the word to leave."""
        self.control.close()
        try:
            self.process.wait(_GONE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # What a set-up started and left behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Pool:
    """``scratch``: a directory for large messages (not removed here). ``log_directory``: each executor's
    output goes to ``executor-<number>.log`` there."""

    def __init__(
        self,
        scratch: str,
        log_directory: str,
        *,
        watched: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        zygote: Zygote | None = None,
    ) -> None:
        """``watched``: directories the zygote removes when this process is gone, and at ``close``.
        ``environment``: variables of the executors, on top of this process's own. ``zygote``: the first
        one, started already."""
        self._scratch = scratch
        self.log_directory = log_directory
        self._watched = list(watched)
        self._environment = environment
        self._epoll = select.epoll()
        self._printing = select.epoll()
        """Apart, so that what a task printed can be read whenever its results are."""
        self._epoll.register(self._printing, select.EPOLLIN)
        self._zygotes: dict[str, _Zygote] = {}
        self._by_control: dict[int, _Zygote] = {}
        """All that run, also those that were asked to leave."""
        self._started = 0
        self._executors: dict[int, _Executor] = {}
        self._by_descriptor: dict[int, _Executor] = {}
        self._pipes: dict[int, tuple[Outlet, Pipe]] = {}
        self._harmful: set[str] = set()
        """Modules whose import killed a zygote: left to the tasks that need them."""
        self._memory_kills = OutOfMemoryKills()
        self._remover = Remover()
        self._buffer = memoryview(bytearray(MAX_MESSAGE_BYTES))
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(FromExecutor).decode
        self._decode_head = msgspec.msgpack.Decoder(PacketHead).decode
        self._decode_control = msgspec.msgpack.Decoder(FromZygote).decode
        if zygote is not None:
            self._adopt("", zygote, zygote_log(log_directory))

    # -- what the agent asks for -----------------------------------------------------------------------

    def start_zygote(self) -> None:
        """Start it now, so that it is warm when the first ``spawn`` comes. Otherwise ``spawn`` does."""
        if "" not in self._zygotes:
            log = zygote_log(self.log_directory)
            self._adopt("", Launched(log, self._environment), log)

    def start(
        self, zygote: str, prepare: Prepare, variables: Mapping[str, str], inside: Inside | None = None
    ) -> None:
        """Start a zygote beside the base one, with environment variables of its own, and perhaps ``inside``
        an
        environment. Ends in ZygoteReady, ZygoteFailed or ZygoteDied. Raises OSError."""
        assert zygote not in self._zygotes
        self._started += 1
        log = zygote_log(self.log_directory, self._started)
        launched = Launched(log, {**(self._environment or {}), **variables}, inside)
        started = self._adopt(zygote, launched, log)
        started.limit_s = prepare.limit_s
        started.say(prepare, [])

    def end(self, zygote: str) -> None:
        """End a zygote and its executors, of which nothing more is heard."""
        known = self._zygotes.pop(zygote, None)
        if known is None:
            return
        for executor in self._executors.values():
            if executor.zygote is known:
                executor.killed = True
        # This process goes on, and needs its directories.
        with contextlib.suppress(OSError):
            known.say(Watch([]), [])
        known.end()

    def _adopt(self, key: str, launched: Zygote, log: str) -> _Zygote:
        zygote = self._zygotes[key] = _Zygote(key, launched, log)
        self._by_control[zygote.control.fileno()] = zygote
        self._epoll.register(zygote.control, select.EPOLLIN)
        zygote.say(Watch(self._watched), [])
        return zygote

    def spawn(
        self,
        executor: int,
        context: ContextRef | None = None,
        zygote: str = "",
        shown: Mapping[str, str] | None = None,
    ) -> None:
        """Ask for executor number ``executor`` (never used before). ``send`` may follow at once. With a
        context, its modules are imported in the zygote first. Ends in ExecutorReady or ExecutorDied.
        ``zygote``: the key of one that is ready. ``shown``: variables that show it its gpus."""
        if not zygote:
            self.start_zygote()
        parent = self._zygotes[zygote]
        log = os.path.join(self.log_directory, f"executor-{executor}.log")
        new = _Executor(executor, log, parent)
        self._executors[executor] = new
        self._by_descriptor[new.link.fileno()] = new
        self._epoll.register(new.link, select.EPOLLIN)
        for pipe in new.outlet.pipes:
            self._pipes[pipe.reader] = (new.outlet, pipe)
            self._printing.register(pipe.reader, select.EPOLLIN)
        imports = [name for name in context.imports if name not in self._harmful] if context else []
        writers = [pipe.writer for pipe in new.outlet.pipes]
        spawn = Spawn(executor, imports, self._scratch, dict(shown or {}))
        parent.say(spawn, [new.inbox.fileno(), new.page_descriptor, *writers])

    def send(self, executor: int, packet: Packet) -> bool:
        """Put a packet into an executor's inbox. False: no room, or no such executor (any more); nothing
        was sent. Room comes when results arrive."""
        known = self._executors.get(executor)
        if known is None:
            return False
        message = refer(self._encode(packet), self._scratch)
        try:
            known.link.send(message, socket.MSG_DONTWAIT)
        except BlockingIOError:
            forget(message)
            return False
        known.directories.update((packet.directory, packet.fallback))
        return True

    def take_back(self, executor: int) -> list[int]:
        """Remove the packets an executor has not read yet; their numbers. What they told (contexts, blobs)
        must be told again."""
        known = self._executors.get(executor)
        numbers: list[int] = []
        while known is not None:
            try:
                length = known.inbox.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            numbers.append(self._decode_head(resolve(self._buffer[:length])).number)
        return numbers

    def kill(self, executor: int) -> None:
        """Kill an executor and its process group (SIGKILL). ExecutorDied follows."""
        known = self._executors.get(executor)
        if known is not None:
            known.killed = True
            # Without a pid it was not forked yet, or we do not know: it is killed as soon as it says so.
            if known.pid:
                _kill_group(known.pid)

    def descriptors(self) -> list[int]:
        """What to poll for reading. The list never changes."""
        return [self._epoll.fileno()]

    def on_readable(self, descriptor: int) -> list[PoolEvent]:
        """Read whatever came. Never waits; may return an empty list."""
        events: list[PoolEvent] = []
        for ready, _ in self._epoll.poll(0):
            executor = self._by_descriptor.get(ready)
            if executor is not None:
                self._read_results(executor, events)
            elif ready in self._by_control:
                self._read_control(self._by_control[ready], events)
        # After the results, so that all a task printed before its result is seen not later than that.
        for ready, _ in self._printing.poll(0):
            outlet, pipe = self._pipes[ready]
            events += outlet.on_readable(pipe, self._printing)
        return events

    def close(self) -> None:
        """Kill everything, wait for it (about two seconds at worst), release descriptors."""
        for executor in self._executors.values():
            if executor.pid:
                _kill_group(executor.pid)
        for zygote in self._by_control.values():
            # All at once: they are waited for one after the other.
            zygote.end()
        for zygote in self._by_control.values():
            zygote.close()
        self._by_control.clear()
        self._zygotes.clear()
        for executor in self._executors.values():
            executor.close()
        self._executors.clear()
        self._by_descriptor.clear()
        self._pipes.clear()
        self._printing.close()
        self._epoll.close()
        self._remover.close()

    # -- what the executors say ------------------------------------------------------------------------

    def _read_results(self, executor: _Executor, events: list[PoolEvent]) -> None:
        while True:
            try:
                length = executor.link.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            message = self._decode(resolve(self._buffer[:length]))
            if isinstance(message, ExecutorUp):
                self._on_pid(executor, message.pid)
                events.append(ExecutorReady(executor.number, message.pid))
            elif isinstance(message, TaskTold | TaskTurn):
                events.append(message)
            else:
                if any(result.kind == "killed" for result in message.results):
                    self._add_last_words(executor, message, events)
                events.append(ResultsArrived(executor.number, message))

    def _add_last_words(self, executor: _Executor, done: PacketDone, events: list[PoolEvent]) -> None:
        """To results of tasks whose process died: a child of the executor, which printed to its pipes."""
        for pipe in executor.outlet.pipes:
            events += executor.outlet.on_readable(pipe, self._printing)
        words = last_lines_of(executor.outlet.last_words())
        for result in done.results:
            if result.kind == "killed" and words:
                result.text += f"; last lines of its output:\n{words}"

    def _on_pid(self, executor: _Executor, pid: int) -> None:
        executor.pid = pid
        executor.outlet.close_writers()
        if executor.killed:
            _kill_group(pid)

    # -- what the zygote says --------------------------------------------------------------------------

    def _read_control(self, zygote: _Zygote, events: list[PoolEvent]) -> None:
        while True:
            try:
                data = zygote.control.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                self._on_zygote_gone(zygote, events)
                return
            message = self._decode_control(resolve(memoryview(data)))
            if isinstance(message, Importing):
                zygote.importing = message.name
            elif isinstance(message, Prepared):
                zygote.limit_s = 0.0
                events.append(ZygoteReady(zygote.key, message.duration_s))
            elif isinstance(message, PrepareFailed):
                events.append(ZygoteFailed(zygote.key, message.text, message.error))
                self.end(zygote.key)
            else:
                self._on_control(message, events)
        zygote.say_waiting()

    def _on_control(self, message: Forked | Gone | SpawnFailed, events: list[PoolEvent]) -> None:
        executor = self._executors.get(message.executor)
        if executor is None:
            return
        if isinstance(message, Forked):
            self._on_pid(executor, message.pid)
        elif isinstance(message, SpawnFailed):
            self._bury(executor, f"could not be started: {message.reason}", events)
        else:
            memory_ran_out = os.WIFSIGNALED(message.status) and self._memory_kills.grown()
            events += executor.outlet.drain()
            last_lines = last_lines_of(executor.outlet.last_words())
            if executor.pid:
                last_lines = tail(scratch_directories.printed_by(self._scratch, executor.pid)) or last_lines
            self._bury(executor, explain(message.status, message.peak_mb, memory_ran_out, last_lines), events)

    def _bury(self, executor: _Executor, cause: str, events: list[PoolEvent]) -> None:
        self._read_results(executor, events)
        packet, task = read_mark(executor.page)
        if executor.pid:
            self._remove_unfinished(executor, task)
        del self._executors[executor.number]
        del self._by_descriptor[executor.link.fileno()]
        self._epoll.unregister(executor.link)
        events += executor.outlet.drain()
        for pipe in executor.outlet.pipes:
            # Closed below; but a child of the executor may still hold the other end, and an epoll set it.
            del self._pipes[pipe.reader]
            with contextlib.suppress(FileNotFoundError):
                self._printing.unregister(pipe.reader)
        executor.close()
        events.append(ExecutorDied(executor.number, cause, task, packet, executor.killed))

    def _remove_unfinished(self, executor: _Executor, task: int | None) -> None:
        """What an executor was writing, and what its task had."""
        left = scratch_directories.left_by(self._scratch, executor.pid)
        if task is not None:
            name = temporary_name(task, executor.pid)
            left += [os.path.join(directory, name) for directory in executor.directories if directory]
        for path in left:
            self._remover.remove(path)

    def _on_zygote_gone(self, zygote: _Zygote, events: list[PoolEvent]) -> None:
        del self._by_control[zygote.control.fileno()]
        self._epoll.unregister(zygote.control)
        zygote.close()
        for path in scratch_directories.left_by(self._scratch, zygote.process.pid):
            self._remover.remove(path)
        if self._zygotes.get(zygote.key) is zygote:
            del self._zygotes[zygote.key]
        cause = self._cause_of_end(zygote)
        children = [executor for executor in self._executors.values() if executor.zygote is zygote]
        pids = [executor.pid for executor in children if executor.pid]
        for pid in pids:
            _kill_group(pid)
        _await_gone(pids)
        for executor in children:
            self._bury(executor, cause, events)
        if not zygote.ended:
            events.append(ZygoteDied(cause, zygote.key))

    def _cause_of_end(self, zygote: _Zygote) -> str:
        """Why a zygote is gone, in words. Learns which modules do harm."""
        whose = "its" if zygote.key else "all"
        cause = f"the zygote, parent of {whose} executors, is gone: {_exit_words(zygote.process.returncode)}"
        if zygote.importing:
            self._harmful.add(zygote.importing)
            cause += f" while it imported {zygote.importing}"
        last_lines = tail(zygote.log, zygote.log_begin)
        if zygote.limit_s and _TIMED_OUT in last_lines:
            return f"its set-up did not end within {zygote.limit_s:g} s; this is where it was:\n{last_lines}"
        return f"{cause}; last lines of its output:\n{last_lines}" if last_lines else cause


def _exit_words(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return explain(-code, 0.0, False, "")


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # Just forked and not yet a group of its own; or gone, which will be reported.
            continue
        return


def _await_gone(pids: list[int]) -> None:
    """Wait until killed processes, children of a dead parent, have ended: nothing of theirs comes later."""
    deadline = time.monotonic() + _GONE_S
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            # Gone already, or a kernel without pidfd, where results that come late are lost and run again.
            continue
        try:
            select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(descriptor)
