"""A simulated worker: the real agent's core, and around it what ``worker.loop`` and ``worker.carry`` are to a
real one. It can be killed, suspended, disconnected."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import xxhash

from graphvine.protocol.codec import decode_to_worker, encode
from graphvine.protocol.messages import (
    PROTOCOL_VERSION,
    Address,
    Context,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    Leaving,
    OnNode,
    Piece,
    Refused,
    Rejoin,
    Resources,
    ToManager,
    ToWorker,
    Welcome,
)
from graphvine.worker.core import Core
from graphvine.worker.files import HERE
from graphvine.worker.hearing import hear
from graphvine.worker.instructions import (
    DropFiles,
    EndZygote,
    FindEnvironment,
    FinishPull,
    Instruction,
    KillExecutor,
    Note,
    ProbePeer,
    ReadHere,
    RunPacket,
    SayToManager,
    SendPiece,
    SpawnExecutor,
    StartFetch,
    StartZygote,
    StopFetch,
    StoreBlob,
    StoreContext,
    TakeBack,
    UnpackEnvironment,
    WritePiece,
)
from graphvine.worker.packets import PacketDone
from graphvine.worker.settings import Settings
from simulation.executors import SimPool
from simulation.links import Connection
from simulation.transfers import link_state
from simulation.work import Content, value_in

if TYPE_CHECKING:
    from simulation.cluster import Cluster

#: A core that says so often in a row that something is to be done does not get anywhere.
_MAX_TURNS = 1000


class SimAgent:
    """One worker process with its executors, store and transfer server."""

    def __init__(
        self, world: Cluster, serial: int, name: str, capacity: Resources, settings: Settings
    ) -> None:
        self.world = world
        self.serial = serial
        self.name = name
        self.capacity = capacity
        self.settings = settings
        self.core = Core(capacity, settings)
        self.pool = SimPool(self)
        self.store: dict[int, Content] = {}
        #: Results in the store's directory of which the agent does not know yet.
        self.written: dict[int, Content] = {}
        self.contexts: dict[int, Context] = {}
        self.fetching: dict[int, int] = {}
        self.pulling: dict[int, dict[int, bytes]] = {}
        self.vanished: set[int] = set()
        #: How many tasks were begun here.
        self.begun = 0
        self.alive = True
        self.suspended = False
        self.joined = False
        #: Told to stop; sent away by the manager in time.
        self.leaving = False
        self.gone_well = False
        #: Tasks that it was at when it began to leave.
        self.late = 0
        #: When it begins to leave by itself; 0: never.
        self.until = 0.0
        self.number = 0
        self.connection: Connection
        self._waiting: deque[Callable[[], None]] = deque()
        self._occupied = 0.0
        self._fetches = 0
        self._next_heartbeat = 0.0
        self._heartbeat_s = 0.0
        self._answer_by = 0.0
        self._wake_at: float | None = None

    # -- life ------------------------------------------------------------------------------------------

    def start(self, left_s: float = 0.0) -> None:
        if left_s:
            self.until = self.world.now + left_s
            self.later(left_s, lambda: self.depart(5.0))
        self.core.start()
        self._carry_out()
        self._connect()
        self._plan_wake()

    def kill(self, noticed: bool) -> None:
        """Everything is lost. ``noticed``: the manager sees the connection end; otherwise only silence."""
        if not self.alive:
            return
        self.world.losses += 1
        self.world.tell(f"{self.name} is killed{'' if noticed else ', unseen'}")
        self._end()
        if noticed:
            self.connection.close()

    def leave(self) -> None:
        """A clean end."""
        if self.alive and self.joined:
            self._say([Goodbye("it was asked to leave")])
            self._end()
            self.connection.close()

    def depart(self, grace_s: float) -> None:
        """It was told to stop: a good end, if it comes in time."""
        if not self.alive or self.leaving:
            return
        self.leaving = True
        self.world.tell(f"{self.name} is leaving within {grace_s:g} s")
        self.hear(0.0, lambda: self._begin_to_leave(grace_s))
        self.later(grace_s, self._leave_late)

    def _begin_to_leave(self, grace_s: float) -> None:
        if self.joined:
            self._say([Leaving("its job ends", grace_s)])
        self.core.on_leave()
        self.late = self.core.running()

    def _leave_late(self) -> None:
        self.world.losses += 1
        if self.joined:
            self.leave()
        else:
            self.kill(noticed=True)

    def _end(self) -> None:
        self.alive = False
        self._waiting.clear()
        self.connection.down.lose_all()

    def suspend(self) -> None:
        self.suspended = True

    def resume(self) -> None:
        """All that should have happened in the meantime happens now, in order."""
        self.suspended = False
        while self._waiting and not self.suspended and self.alive:
            self._waiting.popleft()()

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Something of this worker's processes happens, if they live; later, if they are suspended."""
        self.world.events.after(delay_s, lambda: self._happen(action))

    def _happen(self, action: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.suspended:
            self._waiting.append(action)
        else:
            action()

    def hear(self, delay_s: float, event: Callable[[], None]) -> None:
        """Something reaches the agent's loop: a turn."""
        self.later(delay_s, lambda: self._hear_now(event))

    def _hear_now(self, event: Callable[[], None]) -> None:
        event()
        self._turn()

    def occupy(self, cores: float) -> None:
        self._occupied += cores
        if self._occupied > self.capacity.cores + 1e-6:
            self.world.complain(f"{self.name} runs tasks on {self._occupied} cores of {self.capacity.cores}")

    # -- a turn ----------------------------------------------------------------------------------------

    def _turn(self) -> None:
        now = self.world.now
        deadline = self.core.deadline()
        if deadline is not None and deadline <= now:
            self.core.on_time(now)
        self._carry_out()
        if self.joined:
            if self._next_heartbeat <= now:
                self._next_heartbeat = now + self._heartbeat_s
                self._say([Heartbeat(self.core.running(), 0.0, 0.0)])
        elif now >= self._answer_by:
            self.world.tell(f"{self.name} got no answer and connects again")
            self.reconnect()
        self._plan_wake()
        self.world.check_agent(self)

    def _plan_wake(self) -> None:
        due = self._next_heartbeat if self.joined else self._answer_by
        deadline = self.core.deadline()
        if deadline is not None and deadline < due:
            due = deadline
        due = max(due, self.world.now + 1e-6)
        if self._wake_at is None or due < self._wake_at:
            self._wake_at = due
            self.later(due - self.world.now, lambda: self._wake(due))

    def _wake(self, due: float) -> None:
        if self._wake_at == due:
            self._wake_at = None
            self._turn()

    # -- the manager -----------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._answer_by = self.world.now + self.settings.answer_s
        self.connection = self.world.connect(self)
        self._say_hello()

    def _say_hello(self) -> None:
        hello = Hello(
            protocol=PROTOCOL_VERSION,
            graphvine=self.world.manager.version,
            python=self.world.manager.python,
            name=self.name,
            host=self.name,
            node="here" if self.serial % 2 else self.name,
            store="",
            pid=self.serial,
            capacity=self.capacity,
            addresses=[Address(self.name, self.serial)] if self.world.weather.addresses else [],
            holds=self.core.holds(),
            left_s=max(1e-6, self.until - self.world.now) if self.until else 0.0,
        )
        self.connection.up.send(encode([hello]))

    def reconnect(self) -> None:
        self.connection.close()
        self._connect()

    def break_off(self, noticed_after_s: float) -> None:
        """The connection breaks: what is on its way is lost. This side sees it after a while."""
        broken = self.connection
        broken.break_off()
        self.hear(noticed_after_s, lambda: self._on_disconnected(broken))

    def _on_disconnected(self, broken: Connection) -> None:
        if broken is self.connection:
            if self.joined:
                self._begin_anew()
            self._connect()

    def receive(self, connection: Connection, frame: bytes) -> None:
        """A frame arrived at this worker's machine."""
        if connection is self.connection:
            self._happen(lambda: self._hear_now(lambda: self._on_frame(connection, frame)))

    def _on_frame(self, connection: Connection, frame: bytes) -> None:
        if connection is self.connection:
            for message in decode_to_worker(frame):
                self._on_message(message)

    def _on_message(self, message: ToWorker) -> None:
        now = self.world.now
        match hear(self.core, message, now):
            case Welcome() as welcome:
                self.joined = True
                self.number = welcome.worker
                self._heartbeat_s = welcome.heartbeat_s
                self._next_heartbeat = now + welcome.heartbeat_s
                self.core.on_welcome(welcome)
                if self.leaving:
                    self._say([Leaving("its job ends", 1.0)])
            case Rejoin() if not self.joined:
                pass
            case Rejoin():
                self.world.tell(f"{self.name} joins again")
                self._begin_anew()
                self._say_hello()
            case Leave() if self.leaving:
                self.world.tell(f"{self.name} has left")
                self.gone_well = True
                self._end()
                self.connection.close()
            case Refused(reason) | Leave(reason):
                self.world.complain(f"{self.name} was sent away: {reason}")

    def _begin_anew(self) -> None:
        self.joined = False
        self._answer_by = self.world.now + self.settings.answer_s
        self.core.on_rejoin(self.world.now)

    def _say(self, messages: list[ToManager]) -> None:
        self.connection.up.send(encode(messages))

    # -- carrying out ----------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        turns = 0
        while instructions := self.core.turn(self.world.now):
            turns += 1
            if turns > _MAX_TURNS:
                self.world.complain(f"{self.name} turns in circles: {instructions}")
            for instruction in instructions:
                self._do(instruction)

    def _do(self, instruction: Instruction) -> None:
        match instruction:
            case RunPacket():
                self._run(instruction)
            case SayToManager(messages):
                self._say(messages)
            case DropFiles(files):
                self._drop(files)
            case TakeBack(executor):
                self.core.on_taken_back(executor, self.pool.take_back(executor))
            case StoreBlob(blob, data):
                self.store[blob] = Content(b"", len(data), bytes(data))
            case StoreContext(context):
                self.contexts[context.context] = context
            case StartZygote(zygote, number):
                self.pool.start_zygote(zygote, self.contexts[number])
            case FindEnvironment(zygote, name):
                self.pool.find_environment(zygote, name)
            case UnpackEnvironment(zygote, file):
                self.pool.unpack_environment(zygote, file)
            case EndZygote(zygote):
                self.pool.end_zygote(zygote)
            case SpawnExecutor(executor, _, zygote):
                self.pool.spawn(executor, zygote)
            case KillExecutor(executor):
                self.pool.kill(executor)
            case StartFetch():
                self._fetch(instruction)
            case ProbePeer():
                self._probe(instruction)
            case ReadHere(file, what):
                self._read_here(file, what)
            case StopFetch(file):
                self.fetching.pop(file, None)
            case WritePiece(file, offset, data):
                self.pulling.setdefault(file, {})[offset] = bytes(data)
            case FinishPull(file, size):
                self._finish_pull(file, size)
            case SendPiece():
                self._send_piece(instruction)
            case Note(level, text):
                self.world.tell(f"{self.name} {level}: {text}")

    def _run(self, run: RunPacket) -> None:
        packet = run.packet
        needed = {*run.blobs, *(file for _, _, file in run.files)}
        missing = [file for file in needed if file not in self.store]
        for file in missing:
            self.core.on_file_lost(file)
        if missing:
            self.core.on_packet_unsent(run.executor, packet.number, can_go_on=True)
            return
        packet.blobs.extend((blob, str(blob)) for blob in run.blobs)
        for position, slot, file in run.files:
            packet.tasks[position].inputs[slot] = str(file)
        if not self.pool.send(run.executor, packet):
            self.core.on_packet_unsent(run.executor, packet.number, can_go_on=False)

    def take_results(self, executor: int, done: PacketDone) -> None:
        vanished = []
        for result in done.results:
            if result.value is None and not result.kind and result.size:
                # The file of a cancelled run is removed, and with it that of the next run, if it is there.
                content = self.written.pop(result.task, None)
                if content is None:
                    vanished.append(result.task)
                else:
                    self.store[result.task] = content
        self.core.on_packet_results(executor, done, self.world.now)
        for file in vanished:
            self.world.losses += 1
            self.core.on_file_lost(file)

    # -- files -----------------------------------------------------------------------------------------

    def open(self, file: int) -> Content:
        """What an executor finds under a path. Raises FileNotFoundError, which names the file."""
        content = self.store.get(file)
        if content is None:
            if file not in self.vanished:
                self.world.complain(f"{self.name}: an executor needs file {file}, which is not in the store")
            raise FileNotFoundError(str(file))
        return content

    def lose_file(self, file: int) -> None:
        """The disk loses a file; nobody is told."""
        if self.store.pop(file, None) is not None:
            self.vanished.add(file)

    def _drop(self, files: list[int]) -> None:
        for file in files:
            self.fetching.pop(file, None)
            self.pulling.pop(file, None)
            self.store.pop(file, None)

    def _fetch(self, order: StartFetch) -> None:
        self._fetches += 1
        token = self.fetching[order.file] = self._fetches
        self.world.transfers.start(
            self.name,
            order.addresses,
            order.file,
            order.size,
            order.coming,
            lambda content, reason: self.hear(
                3e-5, lambda: self._on_transfer(order.file, order.holder, token, content, reason)
            ),
        )

    def _probe(self, order: ProbePeer) -> None:
        self.world.transfers.probe(
            self.name,
            order.addresses,
            lambda state: self.hear(3e-5, lambda: self.core.on_link(order.holder, state)),
        )

    def _read_here(self, file: int, what: OnNode) -> None:
        """A file of the manager's machine, which this worker perhaps cannot read."""
        world = self.world
        self._fetches += 1
        token = self.fetching[file] = self._fetches
        content: Content | None = world.given[what.path]
        if content.gone or world.chance.random() < 0.2:
            content = None
        delay_s = world.chance.uniform(1e-4, 0.02)
        self.hear(delay_s, lambda: self._on_transfer(file, HERE, token, content, "it cannot be read here"))

    def _on_transfer(self, file: int, holder: int, token: int, content: Content | None, reason: str) -> None:
        if self.fetching.get(file) != token:
            return
        del self.fetching[file]
        if content is None:
            state = link_state(reason)
            if state is not None:
                self.core.on_link(holder, state)
            self.core.on_fetch_failed(file, holder, reason)
        else:
            self.store[file] = content
            self.core.on_fetched(file, content.size)

    def _finish_pull(self, file: int, size: int) -> None:
        pieces = self.pulling.pop(file)
        data = b"".join(pieces[offset] for offset in sorted(pieces))
        if len(data) != size:
            self.world.complain(f"{self.name}: a pull of file {file} made {len(data)} bytes of {size}")
        raw = None if file not in self.world.blobs else data
        self.store[file] = Content(value_in(data), size, raw)
        self.core.on_fetched(file, size)

    def _send_piece(self, asked: SendPiece) -> None:
        content = self.store.get(asked.file)
        data = content.read(asked.offset, asked.length) if content is not None else b""
        if content is None:
            self.core.on_file_lost(asked.file)
        total = content.size if content is not None else -1
        checksum = xxhash.xxh3_64_intdigest(data)
        self._say([Piece(asked.file, asked.offset, total, data, checksum, asked.requester)])
