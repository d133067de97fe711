"""A worker's core on a test bench: executors, store and manager are models, time is a number.

Instructions are carried out as the loop would; an instruction the model did not expect fails the test. The
core's own bookkeeping is checked after every step.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from graphvine.protocol.codec import decode_to_manager, encode
from graphvine.protocol.messages import (
    Assign,
    BlobData,
    Report,
    Resources,
    TaskDone,
    TaskFailed,
    TaskOrder,
    ToManager,
    Welcome,
)
from graphvine.worker import instructions as says
from graphvine.worker.core import Core
from graphvine.worker.nursery import READY
from graphvine.worker.packets import Packet, PacketDone, ResultKind, TaskResult
from graphvine.worker.relief import UnderWay
from graphvine.worker.settings import Settings
from graphvine.worker.tasks import QUEUED

BLOB = 1_000_000
INLINE_BYTES = 100


class ModelExecutor:
    """``inbox``: packets it has not read; ``at``: the one it runs; ``left``: its tasks that are not done."""

    def __init__(self, context: int, zygote: str = "", devices: tuple[int, ...] = ()) -> None:
        self.context = context
        self.zygote = zygote
        self.devices = devices
        self.ready = False
        self.inbox: deque[Packet] = deque()
        self.at: Packet | None = None
        self.left: list[int] = []
        self.under_way = UnderWay(0, [])
        self.known: set[int] = set()

    def read(self) -> None:
        if self.at is None and self.inbox:
            self.at = self.inbox.popleft()
            self.left = [task.task for task in self.at.tasks]
            self.under_way = UnderWay(self.at.number, self.at.tasks)
            self.known.update(blob for blob, _ in self.at.blobs)
            unknown = {task.blob for task in self.at.tasks} - self.known
            assert not unknown, f"the executor was not told of blobs {unknown}"


class Bench:
    """Drives one core."""

    def __init__(self, cores: float = 2, settings: Settings | None = None, **more: float) -> None:
        self.now = 0.0
        self.capacity = Resources(cores, **({"memory_mb": 1000.0} | more))
        self.core = Core(self.capacity, settings or Settings(warm_executors=0))
        self.core.on_welcome(Welcome(7, 1.0, INLINE_BYTES))
        self.executors: dict[int, ModelExecutor] = {}
        self.stored: set[int] = set()
        self.zygotes: dict[str, int] = {}
        """Zygotes that were started and not ended or lost, and the context each was started for."""
        self.given: dict[str, dict[int, bytes | str]] = {}
        """What the set-ups of zygotes were given."""
        self.ended_zygotes: list[str] = []
        self.looking: dict[str, str] = {}
        """Environments looked for last, and archives to be unpacked, by the zygotes they are for."""
        self.unpacking: dict[str, int] = {}
        self.notes: list[says.Note] = []
        self.fetches: list[says.StartFetch] = []
        self.read_here: list[says.ReadHere] = []
        self.killed: list[int] = []
        self.ending: dict[int, ModelExecutor] = {}
        """Executors that are to end and have not yet."""
        self.order_of_starts: list[int] = []
        self.done: dict[int, TaskDone] = {}
        self.failed: list[TaskFailed] = []
        self.messages: list[ToManager] = []
        self.reports: list[Report] = []
        self.pieces: dict[int, dict[int, bytes]] = {}
        self.served: list[says.SendPiece] = []

    # -- the manager's side ------------------------------------------------------------------------------

    def assign(self, *orders: TaskOrder, **more: Any) -> None:
        """Orders of blob BLOB, which comes along."""
        more.setdefault("blobs", [BlobData(BLOB, 0, b"blob")])
        self.core.on_clock(self.now)
        self.core.on_assign(Assign(list(orders), **more))
        self.turn()

    def recall(self, *tasks: int) -> None:
        self.core.on_recall(list(tasks))
        self.turn()

    def cancel(self, *tasks: int) -> None:
        self.core.on_cancel(list(tasks), self.now)
        self.turn()

    def returned(self) -> list[int]:
        return [task for report in self.reports for task in report.returned]

    # -- what executors do -------------------------------------------------------------------------------

    def bring_up(self) -> None:
        """Every executor that is starting comes up, and those that are started then."""
        self.killed_end()
        while starting := [n for n, executor in self.executors.items() if not executor.ready]:
            for number in starting:
                self.executors[number].ready = True
                self.core.on_executor_ready(number)
            self.turn()
            self.killed_end()

    def only_executor(self) -> int:
        """The number of the one executor that there is, which is up."""
        self.bring_up()
        (number,) = self.executors
        return number

    def begin(self, number: int) -> list[int]:
        """The executor reads a packet, if it has none; tasks it has not done."""
        self.executors[number].read()
        return list(self.executors[number].left)

    def finish_one(self, number: int, kind: ResultKind = "", duration_s: float = 1e-5, size: int = 1) -> int:
        """The executor runs its next task to the end; its number."""
        executor = self.executors[number]
        executor.read()
        packet = executor.at
        assert packet is not None
        begun = executor.under_way.begin()
        assert begun is not None
        task, passing = begun.task, executor.under_way.passing
        self.order_of_starts.append(task)
        if passing is not None and begun.passed and not kind:
            passing.values[task] = b"v"
        if not begun.kept:
            size = 0
        value = b"v" * size if 0 < size <= INLINE_BYTES and not kind else None
        if value is None and size and not kind:
            self.stored.add(task)
        result = TaskResult(task, 0, kind, size, value, "why" if kind else "", b"", 1.0, duration_s, 0.0)
        executor.under_way.add(result)
        behind = packet.tasks[[one.task for one in packet.tasks].index(task) + 1 :]
        executor.left = []
        for one in behind:
            given = {given for given in one.inputs if type(given) is int}
            if not given or (passing is not None and given <= {*passing.values, *executor.left}):
                executor.left.append(one.task)
        self._tell(number, executor, packet)
        return task

    def _tell(self, number: int, executor: ModelExecutor, packet: Packet) -> None:
        """What the executor says of its packet; where values are passed on, only at its end."""
        said: list[PacketDone] = []
        if not executor.left:
            executor.at = None
            assert executor.under_way.begin() is None
            executor.under_way.end(
                lambda *what: said.append(PacketDone(packet.number, what[0], True, what[1]))
            )
        elif executor.under_way.passing is None:
            executor.under_way.hand_in(lambda results: said.append(PacketDone(packet.number, results, False)))
        executor.read()
        for done in said:
            self.core.on_packet_results(number, done, self.now)
        self.turn()

    def run_all(self, duration_s: float = 1e-5) -> None:
        """Run until no executor has anything to do."""
        self.bring_up()
        while busy := [n for n in self.executors if self.begin(n)]:
            for number in busy:
                if number in self.executors and self.begin(number):
                    self.finish_one(number, duration_s=duration_s)
            self.bring_up()

    def die(self, number: int, begun: bool = True) -> None:
        """The executor dies, in its next task or between tasks."""
        executor = self.executors.pop(number)
        executor.read()
        task = executor.left[0] if begun and executor.left else None
        self.core.on_executor_died(number, "signal 9", task, self.now)
        self.turn()

    # -- the loop's side -----------------------------------------------------------------------------------

    def zygote_ready(self, zygote: str) -> None:
        assert zygote in self.zygotes
        self.core.on_zygote_ready(zygote, 0.1)
        self.turn()

    def zygote_fails(self, zygote: str, text: str = "Traceback\nValueError: no", error: bytes = b"") -> None:
        """Its set-up raises."""
        del self.zygotes[zygote]
        self.core.on_zygote_failed(zygote, text, error, self.now)
        self.turn()

    def zygote_dies(self, zygote: str) -> None:
        """It is gone, and its executors, each in its next task."""
        for number in self._lose_zygote(zygote):
            self.core.on_executor_died(number, "the zygote is gone", None, self.now)
        self.core.on_zygote_died(zygote, "signal 9", self.now)
        self.turn()

    def killed_end(self) -> None:
        """Those that were ended are gone."""
        for number in list(self.ending):
            del self.ending[number]
            self.core.on_executor_gone(number)
        self.turn()

    def _lose_zygote(self, zygote: str) -> list[int]:
        self.zygotes.pop(zygote, None)
        lost = [number for number, executor in self.executors.items() if executor.zygote == zygote]
        for number in lost:
            del self.executors[number]
        return lost

    def wait(self, seconds: float) -> None:
        self.now += seconds
        deadline = self.core.deadline()
        if deadline is not None and deadline <= self.now:
            self.core.on_time(self.now)
        self.turn()

    def turn(self) -> None:
        for _ in range(1000):
            instructions = self.core.turn(self.now)
            if not instructions:
                break
            for instruction in instructions:
                self._do(instruction)
        else:
            raise AssertionError("the core never comes to rest")
        self.check()

    def _do(self, instruction: says.Instruction) -> None:
        match instruction:
            case says.RunPacket(number, packet, _, blobs, files):
                assert packet.tasks, "an empty packet"
                assert self.executors[number].ready
                assert set(blobs) <= self.stored
                assert {file for _, _, file in files} <= self.stored
                packet.blobs = [(blob, "path") for blob in blobs]
                self.executors[number].inbox.append(packet)
            case says.TakeBack(number):
                inbox = self.executors[number].inbox
                numbers = [packet.number for packet in inbox]
                inbox.clear()
                self.core.on_taken_back(number, numbers)
            case says.SpawnExecutor(number, context, zygote, devices):
                assert number not in self.executors
                assert not zygote or self.core._nursery[zygote].state == READY
                assert not zygote or zygote in self.zygotes
                self.executors[number] = ModelExecutor(context, zygote, devices)
            case says.FindEnvironment(zygote, name):
                self.looking[zygote] = name
            case says.UnpackEnvironment(zygote, file):
                assert file in self.stored
                self.unpacking[zygote] = file
            case says.StartZygote(zygote, context, inputs):
                assert zygote not in self.zygotes
                self.given[zygote] = dict(inputs)
                self.zygotes[zygote] = context
            case says.EndZygote(zygote):
                self.ended_zygotes.append(zygote)
                here = dict(self.executors)
                self.ending |= {number: here[number] for number in self._lose_zygote(zygote)}
            case says.KillExecutor(number):
                self.ending[number] = self.executors.pop(number)
                self.killed.append(number)
            case says.StoreBlob(blob, _):
                self.stored.add(blob)
            case says.DropFiles(files):
                self.stored.difference_update(files)
            case says.StartFetch():
                self.fetches.append(instruction)
            case says.ReadHere():
                self.read_here.append(instruction)
            case says.StopFetch(file):
                self.fetches = [fetch for fetch in self.fetches if fetch.file != file]
            case says.WritePiece(file, offset, data):
                self.pieces.setdefault(file, {})[offset] = data
            case says.FinishPull(file, size):
                whole = b"".join(data for _, data in sorted(self.pieces.pop(file).items()))
                assert len(whole) == size
                self.stored.add(file)
                self.core.on_fetched(file, size)
            case says.SendPiece():
                self.served.append(instruction)
            case says.SayToManager(messages):
                self._hear(decode_to_manager(encode(messages)))
            case says.StoreContext():
                pass
            case says.Note():
                self.notes.append(instruction)
            case _:
                raise AssertionError(f"unexpected: {instruction}")

    def _hear(self, messages: list[ToManager]) -> None:
        for message in messages:
            if not isinstance(message, Report):
                self.messages.append(message)
                continue
            self.reports.append(message)
            for done in message.done:
                assert done.task not in self.done, f"task {done.task} was reported twice"
                self.done[done.task] = done
            self.failed += message.failed

    # -- invariants ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Every job is in exactly one place, and what is occupied is what busy executors need."""
        core = self.core
        crew, queue, files = core._crew, core._queue, core._files
        assert set(crew.executors) == set(self.executors)
        in_packets = [
            job.order.task
            for executor in crew.executors.values()
            for bundle in executor.bundles
            for job in bundle.jobs
            if job.packet == bundle.number
        ]
        assert len(in_packets) == len(set(in_packets))
        waiting = {job.order.task for jobs in files.waiters.values() for job in jobs if job.packet == QUEUED}
        ready = sum(lane.size for lane in queue.ready) + sum(lane.size for lane in queue.held)
        assert not any(lane.held for lane in queue.ready)
        assert all(lane.held for lane in queue.held)
        assert len(queue.jobs) == len(in_packets) + len(waiting) + ready
        assert not set(files.waiters) & set(files.held)
        self._check_resources()

    def _check_devices(self) -> None:
        """No device has more than one owner, or owners of more than all of it; who works on one has it."""
        shares: dict[int, float] = {}
        for number, executor in self.core._crew.executors.items():
            asked = executor.lane.request.gpus if executor.lane is not None else executor.gpus
            assert executor.gpus == asked
            assert executor.devices == self.executors[number].devices
            assert len(set(executor.devices)) == math.ceil(asked - 1e-9)
            for device in executor.devices:
                shares[device] = shares.get(device, 0.0) + min(1.0, asked)
        for executor in self.ending.values():
            assert not set(executor.devices) & {device for device, share in shares.items() if share > 0.99}
        assert all(share < 1 + 1e-6 for share in shares.values())
        assert all(0 <= device < self.capacity.gpus for device in shares)

    def _check_resources(self) -> None:
        crew = self.core._crew
        self._check_devices()
        used, light = 0.0, 0
        for executor in crew.executors.values():
            assert (executor.lane is not None) == bool(executor.bundles)
            assert len(executor.bundles) <= 2
            if executor.at_light_work:
                light += 1
            else:
                used += executor.lane.request.cores if executor.lane is not None else 0.0
        assert crew._light + light == max(1, self.capacity.cores)
        assert crew._light >= 0
        assert abs(crew._cores + used - self.capacity.cores) < 1e-6
        assert used <= self.capacity.cores + 1e-6


def order(task: int, *inputs: int, category: int = 0, index: int = 0) -> TaskOrder:
    return TaskOrder(task, BLOB, index, list(inputs), category)
