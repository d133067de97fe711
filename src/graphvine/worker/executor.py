"""An executor: a forked process that runs tasks, one at a time, in its main thread.

    read a packet; for each task: mark it as begun, find its function and inputs, run, pickle, report

- A result is reported at the end of the packet, or earlier when FLUSH_S have passed.
- A packet in which one task takes long is relieved of the others (``relief``).
- Whatever user code raises is a result. Only the death of the process is not; the mark then says of whom.
- Marks are cleared before results are sent, so a death is never blamed on a task whose result arrived.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import select
import socket
import sys
import time
import traceback
from collections import OrderedDict
from time import perf_counter
from typing import Any, NoReturn

import msgspec

from graphvine.protocol import payload, tree_files, values
from graphvine.protocol.failures import describe, pickle_error
from graphvine.protocol.trees import BadTreeError, NewTree, Tree
from graphvine.worker import capture, heap, scratch, spare, turns
from graphvine.worker.deaths import OutOfMemoryKills, explain, tail
from graphvine.worker.forking import run_in_child
from graphvine.worker.marks import LAYOUT, NOTHING
from graphvine.worker.modules import Contexts
from graphvine.worker.notes import listen, take_note
from graphvine.worker.packets import (
    MAX_MESSAGE_BYTES,
    ExecutorUp,
    FromExecutor,
    Packet,
    PacketDone,
    PacketTask,
    ResultKind,
    TaskResult,
    TaskTold,
    TaskTurn,
)
from graphvine.worker.passing import refer, resolve
from graphvine.worker.recent import Recent
from graphvine.worker.relief import Relief, UnderWay
from graphvine.worker.streams import Streams

#: Results wait at most so long for others to share a message with.
FLUSH_S = 0.005
#: ... and not when they are so many bytes.
FLUSH_BYTES = MAX_MESSAGE_BYTES // 2
#: Reading the kernel's high-water mark costs 20 us: not for tasks shorter than this.
MEASURED_FROM_S = 0.001
#: Unpickled blobs kept, in bytes of their pickles.
BLOB_CACHE_BYTES = 256 * 2**20
#: A blob of one entry is not kept if it is longer.
SINGLE_BYTES = 2**18


class VanishedError(Exception):
    """A file of the store is not there (any more); its message is the file's number."""


def load_file(path: str) -> Any:
    """The value in a file of the store, or its tree. Raises VanishedError, and whatever unpickling raises."""
    try:
        mapped = values.map_file(path)
    except IsADirectoryError:
        return load_tree(path)
    except FileNotFoundError:
        raise VanishedError(os.path.basename(path)) from None
    return values.loads(mapped, path)


def load_tree(path: str) -> Tree:
    """A tree of the store. Raises VanishedError."""
    try:
        return tree_files.load(path)
    except FileNotFoundError:
        raise VanishedError(os.path.basename(path)) from None


class Blobs:
    """Blobs by number: paths of all that were told, content of the recently used."""

    def __init__(self, budget_bytes: int = BLOB_CACHE_BYTES) -> None:
        self._budget = budget_bytes
        self._paths: dict[int, str] = {}
        self._loaded: OrderedDict[int, tuple[list[payload.Entry], int]] = OrderedDict()
        self._held_bytes = 0

    def tell(self, blob: int, path: str) -> None:
        self._paths[blob] = path

    def get(self, blob: int) -> list[payload.Entry]:
        """Its entries. Raises whatever unpickling raises, KeyError, OSError."""
        found = self._loaded.get(blob)
        if found is not None:
            self._loaded.move_to_end(blob)
            return found[0]
        try:
            with open(self._paths[blob], "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise VanishedError(os.path.basename(self._paths[blob])) from None
        entries: list[payload.Entry] = pickle.loads(data)
        if len(entries) == 1 and len(data) > SINGLE_BYTES:
            # Nobody comes back for it: its one task, with arguments of that size, is about to run.
            return entries
        self._loaded[blob] = (entries, len(data))
        self._held_bytes += len(data)
        while self._held_bytes > self._budget and len(self._loaded) > 1:
            self._held_bytes -= self._loaded.popitem(last=False)[1][1]
        return entries


class PeakMemory:
    """The kernel's high-water mark of this process's resident memory, reset at will."""

    def __init__(self) -> None:
        self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            # Not permitted in some containers: then the mark is that of the whole life.
            self._reset = -1

    def reset(self) -> None:
        if self._reset >= 0:
            os.write(self._reset, b"5")

    def read_mb(self) -> float:
        text = os.pread(self._status, 4096, 0)
        begin = text.find(b"VmHWM:") + 6
        return int(text[begin : text.find(b"kB", begin)]) / 1024


class UnknownMemory(PeakMemory):
    """Nobody asks."""

    def __init__(self) -> None:
        """Opens nothing."""

    def reset(self) -> None:
        """Nothing to do."""

    def read_mb(self) -> float:
        return 0.0


class Executor:
    """The loop of one executor. ``link``: its end of the socket pair; ``page``: its marks."""

    def __init__(self, link: socket.socket, page: mmap.mmap, passing: str, contexts: Contexts) -> None:
        """``passing``: where long messages lie, and the directories of tasks. ``contexts``: those the zygote
        has."""
        self._link = link
        self._page = page
        self._passing = passing
        scratch.begin(passing)
        self._pid = os.getpid()
        self._is_child = False
        """Whether this is a child that an executor forked for one task."""
        self._blobs = Blobs()
        self._contexts = contexts
        self._recent = Recent(load_file)
        self._memory = PeakMemory()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Packet).decode
        self._decode_result = msgspec.msgpack.Decoder(TaskResult).decode
        self._memory_kills = OutOfMemoryKills()
        self._unix_offset = 0.0
        self._relief = Relief(self._relieve)
        self._streams = Streams(link.fileno())
        self._modules = {name: module for name, module in sys.modules.items() if _is_ours(name)}
        self._running = 0, 0
        """The task that runs, and which attempt at it."""
        listen(self._tell)
        turns.listen(self._ask_for_turn)

    def serve(self) -> None:
        """Run packets until the agent closes its end."""
        self._say(ExecutorUp(os.getpid()))
        buffer = memoryview(bytearray(MAX_MESSAGE_BYTES))
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        while length := self._receive(poll, buffer):
            self._run_packet(self._decode(resolve(buffer[:length])))

    def _receive(self, poll: select.poll, buffer: memoryview) -> int:
        if not poll.poll(heap.IDLE_S * 1000):
            self._recent.clear()
            heap.give_back()
        return self._link.recv_into(buffer)

    def _say(self, message: FromExecutor) -> None:
        self._link.send(refer(self._encode(message), self._passing))

    def _tell(self, data: bytes) -> None:
        """Called in any thread of the running task."""
        self._say(TaskTold(*self._running, data))

    def _ask_for_turn(self, limit: str, reply: str) -> None:
        self._say(TaskTurn(self._running[0], limit, reply))

    def _run_packet(self, packet: Packet) -> None:
        for ref in packet.contexts:
            self._contexts.tell(ref)
        for blob, path in packet.blobs:
            self._blobs.tell(blob, path)
        self._recent.forget_unused()
        self._memory.reset()
        flushed = perf_counter()
        self._unix_offset = time.time() - flushed
        under_way = UnderWay(packet.number, packet.tasks, packet.patience_s)
        if len(packet.tasks) > 1:
            self._relief.begin(under_way)
        self._run_tasks(under_way, packet)
        self._relief.end()
        LAYOUT.pack_into(self._page, 0, NOTHING, NOTHING)
        under_way.end(lambda results, tasks: self._say(PacketDone(packet.number, results, True, tasks)))

    def _run_tasks(self, under_way: UnderWay, packet: Packet) -> None:
        mark, page, number = LAYOUT.pack_into, self._page, packet.number
        flushed = perf_counter()
        waiting_bytes = 0
        passed = under_way.passing.values if under_way.passing is not None else {}
        while (task := under_way.begin()) is not None:
            if waiting_bytes and (waiting_bytes > FLUSH_BYTES or perf_counter() - flushed > FLUSH_S):
                LAYOUT.pack_into(page, 0, NOTHING, NOTHING)
                under_way.hand_in(lambda results: self._say(PacketDone(number, results, finished=False)))
                waiting_bytes, flushed = 0, perf_counter()
            mark(page, 0, number, task.task)
            self._running = task.task, task.attempt
            if sys.modules.get(scratch.__name__) is not scratch:
                # A task before has removed modules that are not its own, to have its own ones imported anew.
                sys.modules.update(self._modules)
            result = self._run_task(task, packet, passed)
            scratch.end_task()
            under_way.add(result)
            if under_way.passing is not None:
                # Whether it counts is known at the end.
                continue
            waiting_bytes += len(result.value or result.text) + len(result.error) + len(result.note) + 1

    def _relieve(self, under_way: UnderWay) -> None:
        """Called from another thread while a task takes long."""
        number = under_way.number
        under_way.relieve(lambda results, tasks: self._say(PacketDone(number, results, False, tasks)))

    def _run_task(self, task: PacketTask, packet: Packet, passed: dict[int, Any]) -> TaskResult:
        """``passed``: values of tasks before it in the packet; its own is added when others need it."""
        began = perf_counter()
        try:
            if task.context != self._contexts.active:
                self._contexts.activate(task.context)
                # What was made with the modules of another is not of the same classes.
                self._recent.clear()
            entry = self._blobs.get(task.blob)[task.index]
            if getattr(entry[0], payload.IN_CHILD, False) and not self._is_child:
                return self._run_apart(task, packet, passed, began)
            if self._recent.trial is not None:
                self._recent.begin(task.inputs)
            inputs = [
                pickle.loads(given) if type(given) is bytes else self._take(given, task.shares, passed)
                for given in task.inputs
            ]
        except VanishedError as error:
            return self._failed(task, began, "vanished", error)
        except BaseException as error:  # noqa: BLE001 -- unpickling runs user code
            return self._failed(task, began, "undecodable", error)
        try:
            value = payload.run(entry, inputs)
        except BaseException as error:  # noqa: BLE001 -- SystemExit and KeyboardInterrupt included
            if os.getpid() != self._pid:
                leave_as_child(error)
            self._streams.mend()
            lacks_room = isinstance(error, scratch.FullDiskError)
            return self._failed(task, began, "storage" if lacks_room else "raised", error)
        if os.getpid() != self._pid:
            leave_as_child(None)
        self._streams.mend()
        del inputs
        try:
            # A child's value stays in the child. What is made of a tree depends on where it lies. Those who
            # need one find that it was not passed on, go back, and read it from the store.
            passes = bool(task.passed) and not self._is_child and type(value) not in (NewTree, Tree)
            keeps = task.kept or not passes
            data, size = self._carry(task, value, packet) if keeps else (None, 0)
        except BadTreeError as error:
            return self._failed(task, began, "raised", error)
        except OSError as error:
            return self._failed(task, began, "storage", error)
        except BaseException as error:  # noqa: BLE001 -- pickling runs user code
            return self._failed(task, began, "unpicklable", error)
        if passes:
            passed[task.task] = value
        duration = perf_counter() - began
        return TaskResult(
            task.task,
            task.attempt,
            "",
            size,
            data,
            "",
            b"",
            began + self._unix_offset,
            duration,
            self._peak(duration),
            take_note(),
        )

    def _run_apart(
        self, task: PacketTask, packet: Packet, passed: dict[int, Any], began: float
    ) -> TaskResult:
        """Run a task in a child of this process: whatever becomes of it there, this one goes on."""
        try:
            self._prepare_for_child()
            end = run_in_child(lambda: self._encode(self._run_as_child(task, packet, passed)))
        except OSError as error:
            return self._failed(task, began, "killed", error)
        if end.data is not None:
            result = self._decode_result(end.data)
            result.memory_mb = end.peak_mb
            return result
        said = tail(scratch.printed_path())
        scratch.drop_lasting()
        for path in scratch.left_by(self._passing, end.pid):
            tree_files.remove(path)
        for directory in filter(None, (packet.directory, packet.fallback)):
            tree_files.remove(f"{directory}/{temporary_name(task.task, end.pid)}")
        # Other last words are with the agent, which reads what executors and their children print.
        text = explain(end.status, end.peak_mb, self._memory_kills.grown(), said)
        result = self._failed(task, began, "killed", ChildProcessError(text))
        result.memory_mb = end.peak_mb
        return result

    def _prepare_for_child(self) -> None:
        """Have what a task needs at hand: making it and removing it takes longer than most calls do."""
        with contextlib.suppress(OSError):  # the child is to say so, if it needs room
            scratch.lasting()
        capture.prepare()

    def _run_as_child(self, task: PacketTask, packet: Packet, passed: dict[int, Any]) -> TaskResult:
        self._is_child = True
        self._pid = os.getpid()
        scratch.adopt_lasting()
        capture.adopt()
        self._memory = UnknownMemory()  # the kernel tells it of a process that has ended
        try:
            return self._run_task(task, packet, passed)
        finally:
            scratch.end_task()

    def _take(self, given: str | int, shares: bool, passed: dict[int, Any]) -> Any:
        """The value of an input that does not come with the packet: a file, or what another task has just
        passed on. Raises as ``load_file``."""
        if isinstance(given, int):
            return passed[given]
        return self._recent.take(given) if shares else load_file(given)

    def _carry(self, task: PacketTask, value: Any, packet: Packet) -> tuple[bytes | None, int]:
        """The result inline and its length, or None and the size of the file (or tree) it was written to."""
        if type(value) is NewTree or type(value) is Tree:
            return None, store_tree(NewTree(value.path), task.task, packet.fallback or packet.directory)
        began = perf_counter()
        data, buffers = values.dumps(value, packet.inline_bytes)
        if not buffers and len(data) <= packet.inline_bytes:
            return data, len(data)
        took_s = perf_counter() - began
        directory, size = self._write(task.task, data, buffers, packet)
        if task.shares:
            self._recent.offer(f"{directory}/{task.task}", value, took_s)
        return None, size

    def _write(self, task: int, data: bytes, buffers: list[memoryview], packet: Packet) -> tuple[str, int]:
        """Where it was written, and its size."""
        pieces = values.layout(data, buffers)
        try:
            return packet.directory, write_value_file(packet.directory, task, pieces)
        except OSError:
            if not packet.fallback or packet.fallback == packet.directory:
                raise
            return packet.fallback, write_value_file(packet.fallback, task, pieces)

    def _peak(self, duration_s: float) -> float:
        if duration_s < MEASURED_FROM_S:
            return 0.0
        peak = self._memory.read_mb()
        self._memory.reset()
        return peak

    def _failed(self, task: PacketTask, began: float, kind: ResultKind, error: BaseException) -> TaskResult:
        duration = perf_counter() - began
        ours = kind in ("unpicklable", "storage", "vanished", "killed")
        return TaskResult(
            task.task,
            task.attempt,
            kind,
            0,
            None,
            str(error) if ours else describe(error),
            b"" if ours else pickle_error(error),
            began + self._unix_offset,
            duration,
            self._peak(duration),
            take_note(),
        )


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "graphvine"


def leave_as_child(error: BaseException | None) -> NoReturn:
    """End a process that a task forked and that came out of the task as if it were the executor: what it
    returned or raised is nobody's result."""
    if error is None:
        code = 0
    elif isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    else:
        code = 1
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        # They may be closed, or what the user put in their place.
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)


def temporary_name(task: int, pid: int) -> str:
    """Name under which the executor ``pid`` writes a result that is not whole yet."""
    return f".{task}.{pid}"


def write_value_file(directory: str, task: int, pieces: list[bytes | memoryview]) -> int:
    """Write a result so that it is there whole or not at all; its size. Raises OSError."""
    scratch = f"{directory}/{temporary_name(task, os.getpid())}"
    size = sum(map(len, pieces))
    reused = spare.take(directory, size, scratch)
    fresh = 0 if reused else os.O_CREAT | os.O_TRUNC
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CLOEXEC | fresh, 0o600)
    try:
        values.write(descriptor, pieces)
        if reused:
            os.ftruncate(descriptor, size)
        os.rename(scratch, f"{directory}/{task}")
    except BaseException:
        os.unlink(scratch)
        raise
    finally:
        os.close(descriptor)
    return size


def store_tree(new: NewTree, task: int, directory: str) -> int:
    """Take what a task made into the store (its disk tier), so that it is there whole or not at all; its
    size. Raises BadTreeError, OSError."""
    store = os.path.realpath(directory)

    def how(path: str) -> tree_files.Take:
        if scratch.holds(path):
            return "move"
        # What the store holds is never written to, so its files can be shared.
        return "link" if path.startswith(f"{store}/") else "copy"

    made = f"{directory}/{temporary_name(task, os.getpid())}"
    size = tree_files.take_in(new, made, how)
    tree_files.put_in_place(made, f"{directory}/{task}")
    return size


def main(link: socket.socket, page: mmap.mmap, passing: str, contexts: Contexts) -> NoReturn:
    """Serve until the agent is gone, then end without the interpreter's exit handlers."""
    Executor(link, page, passing, contexts).serve()
    os._exit(0)
