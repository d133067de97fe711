"""The executors of a simulated agent: what ``worker.pool`` and ``worker.executor`` are to a real one.

An executor reads a packet some time after it was sent (until then it can be taken back), runs its tasks one
after the other, marks what it begins, and tells results at the end of the packet or when some time went by.
Values that tasks of a packet pass on are lost with it; it may be relieved at any time (``worker.relief``).
What it runs is checked: that the blob and every input are there, and that the values are right.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from graphvine.protocol.messages import Context, is_light
from graphvine.worker.packets import Packet, PacketDone, PacketTask, ResultKind, TaskResult
from graphvine.worker.relief import UnderWay
from simulation.work import Content, TaskSpec, Work, digest, inline, value_in

if TYPE_CHECKING:
    from simulation.agents import SimAgent

FLUSH_S = 0.005
#: The set-up of a library of this name raises.
BROKEN = "broken"
_decode = msgspec.msgpack.Decoder(Packet).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_blob = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode


class SimExecutor:
    """One executor. Its agent's ``later`` runs things as long as the agent lives and is not suspended."""

    def __init__(self, agent: SimAgent, number: int, zygote: str) -> None:
        self.agent = agent
        self.number = number
        self.zygote = zygote
        self.up = False
        self.dead = False
        self.inbox: deque[Packet] = deque()
        self.packet: Packet | None = None
        self.begun: int | None = None
        self._under_way = UnderWay(0, [])
        self._untold = 0
        self._flushed = 0.0
        self._blobs: dict[int, list[tuple[int, int]] | None] = {}
        self._cores = 0.0

    # -- what the pool does ----------------------------------------------------------------------------

    def start(self) -> None:
        self.up = True
        self._read_soon()

    def send(self, packet: Packet) -> None:
        self.inbox.append(_decode(_encode(packet)))
        self._read_soon()

    def take_back(self) -> list[int]:
        numbers = [packet.number for packet in self.inbox]
        self.inbox.clear()
        return numbers

    def die(self) -> None:
        """Nothing comes of it any more."""
        self.dead = True
        self._stop_running()

    # -- running ---------------------------------------------------------------------------------------

    def _later(self, delay_s: float, action) -> None:  # type: ignore[no-untyped-def]
        self.agent.later(delay_s, lambda: None if self.dead else action())

    def _read_soon(self) -> None:
        if self.up and self.packet is None and self.inbox:
            self._later(self.agent.world.chance.uniform(1e-5, 1e-4), self._read)

    def _read(self) -> None:
        if self.packet is not None or not self.inbox:
            return
        self.packet = self.inbox.popleft()
        self._under_way = UnderWay(self.packet.number, self.packet.tasks)
        self._untold = 0
        self._flushed = self.agent.world.now
        for blob, _ in self.packet.blobs:
            self._blobs.setdefault(blob, None)
        self._next()

    def _next(self) -> None:
        packet = self.packet
        assert packet is not None
        task = self._under_way.begin()
        if task is None:
            self.begun = None
            self._under_way.end(lambda results, tasks: self._tell(results, tasks, finished=True))
            self.packet = None
            self._read_soon()
            return
        if self._untold and not self._under_way.passing and self.agent.world.now - self._flushed > FLUSH_S:
            self.begun = None
            self._under_way.hand_in(lambda results: self._tell(results, [], finished=False))
        self._begin(task)
        if self.agent.world.chance.random() < self.agent.world.weather.reliefs:
            self._later(self.agent.world.chance.uniform(0.0, 0.01), lambda: self._relieve(packet))

    def _tell(self, results: list[TaskResult], given_back: list[int], finished: bool) -> None:
        assert self.packet is not None
        self._untold = 0
        self._flushed = self.agent.world.now
        # What passed a value on to them has run for nothing.
        self.agent.world.losses += bool(given_back)
        self.agent.pool.tell_results(
            self.number, PacketDone(self.packet.number, results, finished, given_back)
        )

    def _relieve(self, packet: Packet) -> None:
        if self.packet is packet:
            self._under_way.relieve(lambda results, tasks: self._tell(results, tasks, finished=False))

    def _begin(self, task: PacketTask) -> None:
        self.begun = task.task
        try:
            work, index = self._entry(task)
            values = [self._input(given) for given in task.inputs]
        except FileNotFoundError as error:
            self._end(task, 0.0, "vanished", str(error))
            return
        spec = work.specs[index]
        work.begun[index] += 1
        self.agent.begun += 1
        self._start_running(work, index)
        if work.begun[index] <= spec.times:
            self._misbehave(task, work, index, spec)
        else:
            self._later(spec.duration_s, lambda: self._succeed(task, work, index, spec, values))

    def _entry(self, task: PacketTask) -> tuple[Work, int]:
        if task.blob not in self._blobs:
            self.agent.world.complain(
                f"{self.agent.name}: executor {self.number} was not told of {task.blob}"
            )
        entries = self._blobs.get(task.blob)
        if entries is None:
            content = self.agent.open(task.blob)
            assert content.raw is not None, f"file {task.blob} is not a blob"
            entries = self._blobs[task.blob] = _decode_blob(content.raw)
        serial, index = entries[task.index]
        return self.agent.world.works[serial], index

    def _input(self, given: bytes | str | int) -> bytes:
        if isinstance(given, int):
            assert self._under_way.passing is not None
            return self._under_way.passing.values[given]  # type: ignore[no-any-return]
        return value_in(given) if isinstance(given, bytes) else self.agent.open(int(given)).digest

    def _misbehave(self, task: PacketTask, work: Work, index: int, spec: TaskSpec) -> None:
        kind = spec.behaviour
        if kind == "killed":
            work.killed[index] += 1
            self._later(spec.duration_s, lambda: self.agent.pool.die(self.number, "it killed itself"))
        elif kind == "fatal":
            work.killed[index] += 1
            self._later(spec.duration_s, lambda: self.agent.kill(noticed=True))
        else:
            assert kind
            self._later(spec.duration_s, lambda: self._end(task, spec.duration_s, kind, f"it {kind}"))

    def _succeed(self, task: PacketTask, work: Work, index: int, spec: TaskSpec, values: list[bytes]) -> None:
        assert self.packet is not None
        made = digest(work.serial, index, values)
        names = work.plan.inputs[index]
        right = [work.accepts_input(name, value) for name, value in zip(names, values, strict=True)]
        work.made[index].add(made)
        if not all(right) or not (work.loose or made == work.expected[index]):
            self.agent.world.complain(f"task {task.task} got wrong inputs on {self.agent.name}")
        work.ended[index] += 1
        data, size = None, spec.size
        world = self.agent.world
        passes = self._under_way.passing is not None and world.chance.random() >= world.weather.unpassed
        if passes and task.passed:
            assert self._under_way.passing is not None
            self._under_way.passing.values[task.task] = made
        if passes and not task.kept:
            size = 0
        elif spec.size <= self.packet.inline_bytes:
            data = inline(made, spec.size)
        else:
            self.agent.written[task.task] = Content(made, spec.size)
        self._stop_running()
        self._add(task, "", size, data, "", spec.duration_s)

    def _end(self, task: PacketTask, duration_s: float, kind: ResultKind, text: str) -> None:
        self._stop_running()
        self._add(task, kind, 0, None, text, duration_s)

    def _add(
        self, task: PacketTask, kind: ResultKind, size: int, data: bytes | None, text: str, duration_s: float
    ) -> None:
        began = self.agent.world.now - duration_s
        self._under_way.add(
            TaskResult(task.task, task.attempt, kind, size, data, text, b"", began, duration_s, 0.0)
        )
        self._untold += 1
        self._next()

    def _start_running(self, work: Work, index: int) -> None:
        options = work.plan.options.get(index, work.plan.default_options)
        light = is_light(options.request)
        self._cores = 0.0 if light else min(options.request.cores, self.agent.capacity.cores)
        self.agent.occupy(self._cores)

    def _stop_running(self) -> None:
        self.agent.occupy(-self._cores)
        self._cores = 0.0


class SimPool:
    """All executors of an agent, and the ways in which their words reach it."""

    def __init__(self, agent: SimAgent) -> None:
        self._agent = agent
        self.executors: dict[int, SimExecutor] = {}
        #: Zygotes beside the base one, and whether each is ready.
        self.zygotes: dict[str, bool] = {}
        self._starts: dict[str, int] = {}
        #: Environments that are unpacked here, and the names of those that are looked for.
        self._unpacked: set[str] = set()
        self._looking: dict[str, str] = {}

    def find_environment(self, zygote: str, name: str) -> None:
        """A helper looks whether an environment is unpacked."""
        self._looking[zygote] = name

        def answer() -> None:
            core = self._agent.core
            if name in self._unpacked:
                self._tell(lambda: core.on_environment_found(zygote, -1.0))
            else:
                self._tell(lambda: core.on_environment_absent(zygote))

        self._agent.later(self._agent.world.chance.uniform(0.001, 0.05), answer)

    def unpack_environment(self, zygote: str, file: int) -> None:
        """The helper unpacks it from its archive, if the weather lets it live."""
        agent, world, name = self._agent, self._agent.world, self._looking.pop(zygote)

        def unpack() -> None:
            if file not in agent.store and file not in agent.vanished:
                world.complain(f"{agent.name} is to unpack {file}, which is not in its store")
            if file not in agent.store or world.chance.random() < world.weather.false_starts:
                self._tell(lambda: agent.core.on_zygote_died(zygote, "its helper died", world.now))
            elif name == BROKEN:
                self._tell(lambda: agent.core.on_environment_unusable(zygote, "it is broken", world.now))
            else:
                self._unpacked.add(name)
                self._tell(lambda: agent.core.on_environment_found(zygote, 0.1))

        agent.later(world.chance.uniform(0.001, 0.3), unpack)

    def start_zygote(self, zygote: str, context: Context) -> None:
        """Its set-up takes a while. One whose name says so raises; the weather takes others down."""
        world = self._agent.world
        if zygote in self.zygotes:
            world.complain(f"{self._agent.name}: zygote {zygote} is started twice")
        self.zygotes[zygote] = False
        start = self._starts[zygote] = self._starts.get(zygote, 0) + 1

        def end_set_up() -> None:
            if self._starts[zygote] != start or zygote not in self.zygotes:
                return
            core = self._agent.core
            if context.setup_name == BROKEN:
                del self.zygotes[zygote]
                self._tell(lambda: core.on_zygote_failed(zygote, "it is broken", b"", world.now))
            elif world.chance.random() < world.weather.false_starts:
                self.die_zygote(zygote)
            else:
                self.zygotes[zygote] = True
                self._tell(lambda: core.on_zygote_ready(zygote, 0.0))

        self._agent.later(world.weather.setup_s + world.chance.uniform(0.002, 0.2), end_set_up)

    def end_zygote(self, zygote: str) -> None:
        """The agent ends a zygote, and hears no more of it or its executors."""
        del self.zygotes[zygote]
        for executor in [one for one in self.executors.values() if one.zygote == zygote]:
            if executor.packet is not None or executor.inbox:
                self._agent.world.complain(f"{self._agent.name}: zygote {zygote} is ended while it works")
            self.kill(executor.number)

    def die_zygote(self, zygote: str) -> None:
        """A zygote ends by itself, and its executors with it."""
        for executor in [one for one in self.executors.values() if one.zygote == zygote]:
            self.die(executor.number, "its zygote is gone")
        del self.zygotes[zygote]
        self._tell(lambda: self._agent.core.on_zygote_died(zygote, "it died", self._agent.world.now))

    def spawn(self, number: int, zygote: str) -> None:
        if zygote and not self.zygotes.get(zygote):
            # It died, and the news of that is on its way.
            self._agent.later(0.0, lambda: self._tell_death(number, "its zygote is gone", None))
            return
        executor = self.executors[number] = SimExecutor(self._agent, number, zygote)
        self._agent.later(self._agent.world.chance.uniform(0.002, 0.03), lambda: self._start(executor))

    def _start(self, executor: SimExecutor) -> None:
        if executor.dead:
            return
        world = self._agent.world
        if world.chance.random() < world.weather.false_starts:
            self.die(executor.number, "it did not start")
            return
        self._tell(lambda: self._agent.core.on_executor_ready(executor.number))
        executor.start()

    def send(self, number: int, packet: Packet) -> bool:
        world = self._agent.world
        executor = self.executors.get(number)
        if executor is None or (executor.inbox and world.chance.random() < world.weather.full_inboxes):
            return False
        executor.send(packet)
        return True

    def take_back(self, number: int) -> list[int]:
        executor = self.executors.get(number)
        return executor.take_back() if executor is not None else []

    def kill(self, number: int) -> None:
        """The agent ends an executor, and hears no more of it than that it is gone."""
        executor = self.executors.pop(number, None)
        if executor is not None:
            # Results that were not told yet are lost with it.
            self._agent.world.losses += executor.packet is not None
            executor.die()
        self._agent.later(0.001, lambda: self._tell(lambda: self._agent.core.on_executor_gone(number)))

    def die(self, number: int, cause: str) -> None:
        """An executor ends by itself. What it had told arrives first."""
        executor = self.executors.pop(number, None)
        if executor is None:
            return
        self._agent.world.losses += executor.packet is not None
        begun = executor.begun
        executor.die()
        self._tell_death(number, cause, begun)

    def _tell_death(self, number: int, cause: str, begun: int | None) -> None:
        self._tell(lambda: self._agent.core.on_executor_died(number, cause, begun, self._agent.world.now))

    def tell_results(self, number: int, done: PacketDone) -> None:
        self._tell(lambda: self._agent.take_results(number, done))

    def _tell(self, event) -> None:  # type: ignore[no-untyped-def]
        self._agent.hear(3e-5, event)
