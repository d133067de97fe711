"""A make-believe cluster around a core, for tests: workers that do what they are told, and insist on being
told right (``fake_worker``).

Nothing moves by itself: a test (or chance) says which link delivers its next batch, which worker begins, ends
or fetches something. Links keep their order. Every batch passes through the real codec.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from graphvine.manager.core import Core
from graphvine.manager.engine import Outcome
from graphvine.manager.fake_worker import Complaint, FakeWorker, digest
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
from graphvine.manager.plan import GivenFile, GivenValue, Plan
from graphvine.protocol.codec import decode_to_manager, decode_to_worker, encode
from graphvine.protocol.messages import (
    Address,
    Demand,
    Goodbye,
    Heartbeat,
    Hello,
    Leaving,
    Resources,
    ToManager,
    ToWorker,
)

__all__ = ["Complaint", "FakeWorker", "Rehearsal", "digest", "plan_of"]


def plan_of(inputs: list[tuple[int, ...]], wanted: Sequence[int] | None = None, **more: object) -> Plan:
    """A plan of tasks of one category that all share one blob. ``wanted``: unless stated, the last of them.
    ``more``: other fields of the plan."""
    size = len(inputs)
    fields: dict[str, object] = {
        "keys": [f"t{task}" for task in range(size)],
        "inputs": inputs,
        "blobs": [b"blob"],
        "blob_of": [0] * size,
        "blob_index": list(range(size)),
        "categories": ["work"],
        "category_of": [0] * size,
        "wanted": [size - 1] if wanted is None else list(wanted),
    }
    return Plan(**{**fields, **more})  # type: ignore[arg-type]


class Rehearsal:
    """A core, its make-believe workers, and the links between them."""

    def __init__(self, core: Core, after: Callable[[Core], None] | None = None) -> None:
        self.core = core
        self.now = 0.0
        self.duration_s = 0.001
        self.workers: dict[int, FakeWorker] = {}
        self.to_worker: dict[int, deque[list[ToWorker]]] = {}
        self.to_manager: dict[int, deque[ToManager]] = {}
        #: Pairs (asking, asked) of workers between which there is no way.
        self.cuts: set[tuple[int, int]] = set()
        #: Files of the manager's machine that are not what they were; workers that have no room for any.
        self.changed: set[str] = set()
        self.full: set[int] = set()
        #: What the manager sent of its own files, and to whom.
        self.given_out: list[tuple[int, int]] = []
        self.large: set[int] = set()
        self.plans: dict[int, Plan] = {}
        self.values: dict[int, bytes] = {}
        self.results: dict[int, dict[int, bytes]] = {}
        self.wishes: list[Available] = []
        #: Outcomes of the tasks of separate plans, by plan and position.
        self.outcomes: dict[int, dict[int, Outcome]] = {}
        self.over: dict[int, PlanDone | PlanFailed] = {}
        self.notes: list[Note] = []
        self.asked: list[Demand] = []
        self.parted: list[PartWorker] = []
        self.sent_away: list[SendAway] = []
        #: Files that the manager took in; without ``stageable`` it can't.
        self.staged: list[str] = []
        self.stageable = True
        self._after = after
        self._joined = 0

    def size_of(self, task: int) -> int:
        """Bytes of a task's result."""
        return 1_000_000 if task in self.large else 8

    # -- events -------------------------------------------------------------------------------------------

    def join(
        self,
        cores: float = 1,
        name: str = "",
        features: Sequence[str] = (),
        job: str = "",
        left_s: float = 0.0,
        **capacity: float,
    ) -> FakeWorker:
        """A worker says hello."""
        self._joined += 1
        number = self._joined
        memory, disk = capacity.get("memory_mb", 1000.0), capacity.get("disk_mb", 1000.0)
        hello = Hello(
            protocol=1,
            graphvine="0",
            python="3.11",
            name=name or f"w{number}",
            host=f"host{number}",
            node=f"node{number}",
            store="",
            pid=number,
            capacity=Resources(cores, memory, disk, capacity.get("gpus", 0.0)),
            addresses=[Address(f"host{number}", 1000 + number)],
            features=list(features),
            job=job,
            left_s=left_s,
        )
        worker = self.workers[number] = FakeWorker(self, number, hello)
        self.to_worker[number] = deque()
        self.to_manager[number] = deque()
        self.core.on_worker_joined(number, hello, self.now)
        return worker

    def vanish(self, number: int) -> None:
        """A worker is gone, with all it had and all that was under way; the core does not know yet."""
        del self.workers[number]
        del self.to_worker[number]
        del self.to_manager[number]

    def kill(self, number: int) -> None:
        """A worker is gone, and the core is told."""
        self.vanish(number)
        self.core.on_worker_lost(number, "killed", self.now)

    def leave(self, number: int) -> None:
        """A worker goes by its own will."""
        self.core.on_message(number, Goodbye("enough"), self.now)
        self.vanish(number)

    def go_away(self, number: int, idle: bool = False) -> None:
        """A worker says that it is going to leave, or asks whether it may."""
        self.to_manager[number].append(Leaving("its job ends", 10.0, idle))

    def run(self, plan: Plan, *, keep: bool = False, large: Sequence[int] | bool = ()) -> int:
        """Hand a plan over; ``large`` are the tasks whose results do not travel inside messages."""
        base = self.core.on_plan(plan, keep, self.now)
        tasks = range(len(plan)) if large is True else large or ()
        self.large.update(base + task for task in tasks)
        self.plans[base] = plan
        for task, names in enumerate(plan.inputs):
            if task in plan.given:
                given = plan.given[task]
                value = given.data if isinstance(given, GivenValue) else given.path.encode()
                self.values[base + task] = value
                continue
            inputs = [self.values[base + name if name >= 0 else plan.externals[-1 - name]] for name in names]
            blob = plan.blobs[plan.blob_of[task]]
            self.values[base + task] = digest(blob, plan.blob_index[task], inputs)
        return base

    def turn(self) -> list[Instruction]:
        """Let the core decide, and take its instructions."""
        instructions = self.core.turn(self.now)
        if self._after is not None:
            self._after(self.core)
        spoken: set[int] = set()
        for instruction in instructions:
            if isinstance(instruction, Say):
                if instruction.worker in spoken:
                    raise Complaint(f"worker {instruction.worker} was spoken to twice in one turn")
                spoken.add(instruction.worker)
            self._carry_out(instruction)
        return instructions

    def _carry_out(self, instruction: Instruction) -> None:
        if isinstance(instruction, Say):
            if instruction.worker in self.to_worker:
                batch = decode_to_worker(encode(instruction.messages))
                self.to_worker[instruction.worker].append(batch)
        elif isinstance(instruction, Available):
            if instruction.value is None:
                self.wishes.append(instruction)
            else:
                self.results.setdefault(instruction.plan, {})[instruction.position] = instruction.value
        elif isinstance(instruction, Settled):
            told = self.outcomes.setdefault(instruction.plan, {})
            if instruction.outcome.position in told:
                raise Complaint(f"{instruction} was told before")
            told[instruction.outcome.position] = instruction.outcome
        elif isinstance(instruction, PlanDone | PlanFailed):
            if instruction.plan in self.over:
                raise Complaint(f"plan {instruction.plan} was over already")
            self.over[instruction.plan] = instruction
        elif isinstance(instruction, Stage):
            self._stage(instruction)
        elif isinstance(instruction, Unstage):
            self.staged.remove(instruction.path)
        elif isinstance(instruction, SendAway):
            self.sent_away.append(instruction)
            self.vanish(instruction.worker)
        elif isinstance(instruction, PartWorker):
            self.parted.append(instruction)
            if instruction.worker in self.workers:
                self.vanish(instruction.worker)
        elif isinstance(instruction, Asked):
            self.asked.append(instruction.demand)
        else:
            self.notes.append(instruction)

    def _stage(self, stage: Stage) -> None:
        if not self.stageable:
            self.core.on_unstageable(stage.file, "the disk is full", self.now)
            return
        assert any(stage.file in self.workers[holder].files for holder in stage.holders)
        path = f"staged/{stage.file}"
        self.staged.append(path)
        self.core.on_staged(stage.file, GivenFile(path, stage.size, tree=False), self.now)

    # -- links --------------------------------------------------------------------------------------------

    def deliver_to_worker(self, number: int) -> None:
        """The next batch arrives at a worker."""
        for message in self.to_worker[number].popleft():
            self.workers[number].hear(message)

    def deliver_all_to_worker(self, number: int) -> None:
        """All that is on its way to a worker arrives."""
        while self.to_worker[number]:
            self.deliver_to_worker(number)

    def deliver_to_manager(self, number: int, times: int = 1) -> None:
        """The next message of a worker arrives at the core."""
        message = self.to_manager[number].popleft()
        for _ in range(times):
            (copy,) = decode_to_manager(encode([message]))
            self.core.on_message(number, copy, self.now)

    def bring(self, wish: Available) -> None:
        """The loop tries to fetch a large result from the holders it was told."""
        self.wishes.remove(wish)
        for holder in wish.holders:
            worker = self.workers.get(holder)
            if worker is not None and wish.file in worker.files:
                self.results.setdefault(wish.plan, {})[wish.position] = worker.files[wish.file]
                self.core.on_result_fetched(wish.plan, wish.position, self.now)
                return
        if wish.path and not wish.holders:
            if wish.path in self.changed:
                self.core.on_given_lost(wish.file, f"{wish.path} changed", self.now)
                return
            self.results.setdefault(wish.plan, {})[wish.position] = self.values[wish.file]
            self.core.on_result_fetched(wish.plan, wish.position, self.now)
        for holder in wish.holders:
            self.core.on_result_unreachable(wish.file, holder, "gone", self.now)

    # -- everything at once -------------------------------------------------------------------------------

    def step(self) -> bool:
        """One round: the core decides, and everything follows. Whether anything happened."""
        busy = bool(self.turn())
        return self.react() or busy

    def react(self) -> bool:
        """Everything is delivered, every worker does all it can, and says so. Whether anything happened."""
        busy = False
        for number, worker in list(self.workers.items()):
            while self.to_worker.get(number):
                self.deliver_to_worker(number)
                busy = True
            for file in list(worker.fetching):
                worker.fetch(file)
            for order in worker.orders.values():
                worker.set_up(order)
            while ready := worker.can_begin():
                for task in ready:
                    worker.begin(task)
                    worker.finish(task)
            for task in list(worker.begun):
                worker.finish(task)
            worker.send()
        for number in list(self.workers):
            while self.to_manager.get(number):
                self.deliver_to_manager(number)
                busy = True
        for wish in list(self.wishes):
            self.bring(wish)
            busy = True
        return busy

    def settle(self, rounds: int = 10_000) -> None:
        """Go on until nothing happens any more."""
        for _ in range(rounds):
            if not self.step():
                return
        raise Complaint(f"still busy after {rounds} rounds")

    def wait(self, until: float) -> None:
        """Time passes: every worker that is there gives its signs of life, every silent one is found out."""
        while self.now < until:
            self.turn()
            deadline = self.core.deadline()
            step = self.now + self.core.settings.heartbeat_s
            self.now = min(until, step if deadline is None else max(self.now, min(deadline, step)))
            self.beat()
            if deadline is not None and deadline <= self.now:
                self.core.on_time(self.now)

    def beat(self) -> None:
        """Every worker gives a sign of life."""
        for number in self.workers:
            self.core.on_message(number, Heartbeat(0, 0.0, 0.0), self.now)

    def expected(self, base: int) -> dict[int, bytes]:
        """The results a plan should have, by position."""
        return {position: self.values[base + task] for position, task in enumerate(self.plans[base].wanted)}
