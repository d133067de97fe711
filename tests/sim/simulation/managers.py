"""The simulated manager: the real core and the real collector, and around them what ``manager.loop`` is to a
real one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import graphvine
from graphvine.manager.collect import Collector, Wish
from graphvine.manager.core import Core
from graphvine.manager.engine import Outcome
from graphvine.manager.instructions import (
    Asked,
    Available,
    Instruction,
    Note,
    PartWorker,
    PlanDone,
    PlanFailed,
    Say,
    SendAway,
    Settled,
    Stage,
    Unstage,
)
from graphvine.manager.peers import Peers, refusal
from graphvine.manager.plan import GivenFile
from graphvine.manager.reach import Reach
from graphvine.manager.relay import MANAGER, Relay
from graphvine.manager.run import Raw
from graphvine.manager.settings import Settings
from graphvine.manager.staging import STAGING
from graphvine.protocol.codec import decode_to_manager, encode
from graphvine.protocol.messages import (
    Address,
    Drop,
    Goodbye,
    Hello,
    Leave,
    LinkState,
    Piece,
    Pull,
    Rejoin,
    Taken,
    ToManager,
    ToWorker,
)
from graphvine.protocol.pieces import not_held, piece_of
from simulation.links import END, Connection
from simulation.transfers import link_state
from simulation.work import Content, Work, value_in

if TYPE_CHECKING:
    from simulation.cluster import Cluster


class SimRun:
    """A plan, or a fetch of kept files, that was handed over, and what came of it."""

    def __init__(self, label: str, keep: bool, expected: Sequence[bytes], work: Work | None) -> None:
        self.label = label
        self.keep = keep
        self.expected = expected
        self.work = work
        self.plan = 0
        self.files: list[int] = []
        self.values: list[bytes | None] = [None] * len(expected)
        self.done = False
        self.failed: PlanFailed | None = None
        self.cancelled = False
        self.outcomes: dict[int, Outcome] = {}

    def accepts(self, position: int, value: bytes) -> bool:
        """Whether this may be the result at that place."""
        if self.work is None:
            return value == self.expected[position]
        return self.work.accepts(self.work.plan.wanted[position], value)

    @property
    def over(self) -> bool:
        return self.done or self.failed is not None or self.cancelled


class SimCollector(Collector):
    """The real one, but for its direct links."""

    def __init__(self, manager: SimManager) -> None:
        super().__init__(
            "manager",
            "",
            "",
            manager.call,
            lambda worker, pull: manager.relay.ask(worker, pull),
            manager.core.place,
            Reach(0.5, 4.0, 50),
            lambda: manager.world.now,
            manager.on_result,
            manager.on_unreachable,
        )
        self._manager = manager

    def _fetch(self, wish: Wish, holder: int, addresses: list[Address]) -> None:
        def finished(content: Content | None, reason: str) -> None:
            if content is None:
                self._manager.call(lambda: self._on_not_fetched(wish, holder, link_state(reason)))
            else:
                raw = memoryview(bytearray(content.read(0, content.size)))
                self._manager.call(lambda: self._on_fetched(wish, holder, raw))

        self._manager.world.transfers.start("manager", addresses, wish.file, wish.size, False, finished)

    def _probe(self, holder: int, addresses: list[Address]) -> None:
        def finished(state: LinkState) -> None:
            self._manager.call(lambda: self._note(holder, state))

        self._manager.world.transfers.probe("manager", addresses, finished)

    def _copy(self, wish: Wish, source: str, is_tree: bool) -> None:
        content = self._manager.world.given[source]
        if content.gone:
            self._manager.call(lambda: self._on_unreachable(wish, 0, "it changed"))
        else:
            raw = memoryview(bytearray(content.read(0, content.size)))
            self._manager.call(lambda: self._on_result(wish, raw))


class SimManager:
    """One turn handles all that came since the last one."""

    def __init__(self, world: Cluster, settings: Settings) -> None:
        self.world = world
        self.core = Core(settings)
        self.core.on_watch(0.0)
        self.peers = Peers()
        self.collector = SimCollector(self)
        self.relay = Relay(
            self.core.holders,
            self.peers.__contains__,
            self.say,
            self.core.blob,
            self._give,
            self.collector.on_piece,
            lambda: self.world.now,
            most=6,
        )
        self.runs: dict[int, SimRun] = {}
        #: What each plan is, also after its run was over.
        self.taken: dict[int, Work] = {}
        self.connections: dict[bytes, Connection] = {}
        #: Whom it told to drop what.
        self.dropped: set[tuple[int, int]] = set()
        self.version = graphvine.__version__
        self.python = ".".join(map(str, __import__("sys").version_info[:2]))
        self._inbox: deque[Callable[[], None]] = deque()
        self._awake = False
        self._wake_at: float | None = None

    # -- from outside ----------------------------------------------------------------------------------

    def call(self, command: Callable[[], None]) -> None:
        self._inbox.append(command)
        if not self._awake:
            self._awake = True
            self.world.events.after(self.world.chance.uniform(0.0, 2e-4), self._turn)

    def receive(self, connection: Connection, frame: bytes) -> None:
        if frame == END:
            self.call(lambda: self._on_ended(connection))
        else:
            self.call(lambda: self._on_frame(connection, frame))

    # -- a turn ----------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._awake = False
        now = self.world.now
        for _ in range(len(self._inbox)):
            self._inbox.popleft()()
        deadline = self.core.deadline()
        if deadline is not None and deadline <= now:
            self.core.on_time(now)
        while instructions := self.core.turn(now):
            self._note_failures()
            for instruction in instructions:
                self._carry_out(instruction)
        self._plan_wake()
        self.world.check_manager()

    def _plan_wake(self) -> None:
        deadline = self.core.deadline()
        if deadline is not None and (self._wake_at is None or deadline < self._wake_at):
            due = self._wake_at = deadline
            self.world.events.at(due, lambda: self._wake(due))

    def _wake(self, due: float) -> None:
        if self._wake_at == due:
            self._wake_at = None
            self.call(lambda: None)

    # -- what workers say ------------------------------------------------------------------------------

    def _on_ended(self, connection: Connection) -> None:
        self.connections.pop(connection.identity, None)
        worker = self.peers.at_descriptor(connection.serial)
        if worker is not None:
            self._part(worker, "its connection ended")

    def _on_frame(self, connection: Connection, frame: bytes) -> None:
        identity = connection.identity
        peer = self.peers.at_identity(identity)
        for message in decode_to_manager(frame):
            if isinstance(message, Hello):
                self._on_hello(connection, message)
                peer = self.peers.at_identity(identity)
            elif peer is None:
                if not isinstance(message, Goodbye):
                    connection.down.send(encode([Rejoin()]))
                return
            else:
                self._on_message(peer.worker, message)

    def _on_hello(self, connection: Connection, hello: Hello) -> None:
        known = self.peers.at_identity(connection.identity)
        if known is not None:
            self._part(known.worker, "it began anew")
        assert refusal(hello, self.version) is None
        self.connections[connection.identity] = connection
        peer = self.peers.add(connection.identity, connection.serial, hello)
        seen_at = self.world.networks.get(hello.name, hello.name)
        self.core.on_worker_joined(peer.worker, hello, self.world.now, seen_at)

    def _on_message(self, worker: int, message: ToManager) -> None:
        if isinstance(message, Pull):
            self.relay.on_pull(worker, message)
        elif isinstance(message, Piece):
            self._on_piece(worker, message)
        elif isinstance(message, Taken):
            self.relay.on_taken(worker, message.pieces)
        else:
            self.core.on_message(worker, message, self.world.now)
            if isinstance(message, Goodbye):
                self._part(worker, message.reason)

    def _on_piece(self, worker: int, piece: Piece) -> None:
        if piece.requester != MANAGER:
            piece = self.world.perhaps_damaged(piece)
        self.relay.on_piece(worker, piece)

    def _give(self, question: Pull) -> bool:
        """Answer a question about a file of the manager's machine, after a while."""
        given = self.core.given_file(question.file)
        if given is not None:
            content = self.world.given[given.path]
            delay_s = self.world.chance.uniform(1e-4, 0.02)
            self.world.events.after(delay_s, lambda: self.call(lambda: self._answer(question, content)))
        return given is not None

    def _answer(self, question: Pull, content: Content) -> None:
        if content.gone:
            self.core.on_given_lost(question.file, "it changed", self.world.now)
            piece = not_held(question)
        else:
            self.core.on_given_read(question.file, content.size, self.world.now)
            data = content.read(question.offset, question.length)
            piece = piece_of(question, data, content.size, tree=False)
        self.relay.on_given(question.requester, self.world.perhaps_damaged(piece))

    def _part(self, worker: int, reason: str) -> None:
        if self.peers.remove(worker) is not None:
            self.world.tell(f"manager parts from worker {worker}: {reason}")
            self.core.on_worker_lost(worker, reason, self.world.now)
            self.collector.on_worker_parted(worker)
            self.relay.on_worker_parted(worker)

    # -- what the core says ----------------------------------------------------------------------------

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Say(worker, messages):
                self.say(worker, messages)
            case Available():
                run = self.runs.get(instruction.plan)
                if run is not None and not run.keep:
                    self.collector.collect(instruction, self.peers.hellos)
            case Settled(plan, outcome):
                self._on_settled(plan, outcome)
            case PlanDone(plan):
                self._finish(plan, None)
            case PlanFailed():
                self.core.task_key(instruction.plan, instruction.task)
                self._finish(instruction.plan, instruction)
            case Asked():
                pass
            case Note(level, text):
                self.world.tell(f"manager {level}: {text}")
            case Stage(file, size, holders):
                self.collector.collect(Available(STAGING, 0, file, size, None, holders), self.peers.hellos)
            case Unstage(path):
                del self.world.given[path]
            case SendAway(worker, reason):
                self.say(worker, [Leave(reason)])
                if self.peers.remove(worker) is not None:
                    self.collector.on_worker_parted(worker)
                    self.relay.on_worker_parted(worker)
            case PartWorker(worker, reason):
                if self.peers.remove(worker) is not None:
                    self.world.tell(f"manager gives worker {worker} up: {reason}")
                    self.collector.on_worker_parted(worker)
                    self.relay.on_worker_parted(worker)

    def _on_settled(self, plan: int, outcome: Outcome) -> None:
        run = self.runs.get(plan)
        if run is None:
            return
        if outcome.position in run.outcomes:
            self.world.complain(f"{run.label}: the outcome of {outcome.position} is told again")
        run.outcomes[outcome.position] = outcome
        if not outcome.ok and run.work is not None:
            run.work.failed.add(run.work.plan.wanted[outcome.position])

    def _note_failures(self) -> None:
        for plan, work in self.taken.items():
            table = self.core.state.plan(plan)
            if table is not None:
                work.failed |= table.failures.keys()

    def say(self, worker: int, messages: list[ToWorker]) -> None:
        identity = self.peers.identity(worker)
        connection = self.connections.get(identity) if identity is not None else None
        if connection is not None:
            connection.down.send(encode(messages))
            for message in messages:
                if isinstance(message, Drop):
                    self.dropped.update((worker, file) for file in message.files)
        elif identity is not None:
            self._part(worker, "its connection ended")

    def _on_staged(self, wish: Wish, raw: Raw) -> None:
        path = f"staged/{wish.file}/{len(self.world.given)}"
        self.world.given[path] = Content(value_in(raw), wish.size)
        self.core.on_staged(wish.file, GivenFile(path, wish.size, tree=False), self.world.now)

    def on_result(self, wish: Wish, raw: Raw) -> None:
        if wish.plan == STAGING:
            self.call(lambda: self._on_staged(wish, raw))
            return
        run = self.runs.get(wish.plan)
        if run is None:
            return
        value = value_in(raw)
        if not run.accepts(wish.position, value):
            self.world.complain(f"{run.label}: result {wish.position} is wrong")
        run.values[wish.position] = value
        if not isinstance(raw, bytes):
            self.core.on_result_fetched(wish.plan, wish.position, self.world.now)

    def on_unreachable(self, wish: Wish, worker: int, reason: str) -> None:
        if wish.plan == STAGING:
            self.core.on_unstageable(wish.file, reason, self.world.now)
            return
        if wish.plan not in self.runs:
            return
        if not worker and self.core.given_file(wish.file) is not None:
            self.core.on_given_lost(wish.file, reason, self.world.now)
        else:
            self.core.on_result_unreachable(wish.file, worker, reason, self.world.now)

    def _finish(self, plan: int, failed: PlanFailed | None) -> None:
        run = self.runs.pop(plan, None)
        self.core.progress(plan, self.world.now)
        if run is None:
            return
        self.world.tell(f"{run.label} {'failed: ' + failed.text if failed else 'is done'}")
        run.failed = failed
        run.done = failed is None
        if run.done and not run.keep and None in run.values:
            self.world.complain(f"{run.label} is done without result {run.values.index(None)}")

    # -- what users do ---------------------------------------------------------------------------------

    def run(self, work: Work, keep: bool) -> SimRun:
        """Hand a plan over. ``run.files`` name its results once the manager has taken it."""
        wanted = [work.expected[task] for task in work.plan.wanted]
        run = SimRun(f"plan {work.serial}", keep, wanted, work)

        def take() -> None:
            run.plan = self.core.on_plan(work.plan, keep, self.world.now)
            self.taken[run.plan] = work
            run.files = [run.plan + task for task in work.plan.wanted]
            first = run.plan + len(work.plan)
            self.world.blobs.update(range(first, first + len(work.plan.blobs)))
            self.runs[run.plan] = run

        self.call(take)
        return run

    def fetch(self, kept: SimRun) -> SimRun:
        """Fetch what a run keeps."""
        files = kept.files
        run = SimRun(f"fetch of {list(files)}", False, kept.expected, kept.work)

        def take() -> None:
            run.plan = self.core.on_wanted(files, self.world.now)
            run.files = list(files)
            self.runs[run.plan] = run

        self.call(take)
        return run

    def cancel_tasks(self, run: SimRun, tasks: Sequence[int]) -> None:
        assert run.work is not None
        run.work.cancelled.update(tasks)
        self.call(lambda: self.core.on_cancel_tasks([run.plan + task for task in tasks], self.world.now))

    def retire(self, names: Sequence[str]) -> None:
        self.call(lambda: self.core.on_retire(names, "it is not needed", self.world.now))

    def release(self, files: Sequence[int]) -> None:
        self.call(lambda: self.core.on_release(files, self.world.now))

    def cancel(self, run: SimRun) -> None:
        def stop() -> None:
            if run.plan in self.runs:
                self.core.on_cancel_plan(run.plan, self.world.now)
                del self.runs[run.plan]
                run.cancelled = True

        self.call(stop)
