"""One worker, as the manager sees it, and what is to be said to it in this turn.

``queue`` maps each task that was given to the worker and not answered for to the core-seconds it is expected
to take; ``load`` is their sum. ``heap`` and ``share`` hold tasks kept for this worker and not yet given to
it: the heap those whose inputs are (or will be) here, the share a piece of a plan's leaves, last first.
Either may hold stale entries, whose tasks are not ready any more: whoever takes one looks. ``held`` are those
of the queue that can't begin here yet (see ``readiness``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphvine.manager.reach import place_of
from graphvine.protocol.codec import FRAME_BYTES, portions
from graphvine.protocol.messages import (
    Address,
    Assign,
    BlobData,
    Cancel,
    Context,
    Drop,
    Hello,
    Probe,
    Recall,
    Resources,
    Source,
    Sources,
    TaskOrder,
    ToWorker,
    TurnGiven,
    cores_of,
    is_light,
)

if TYPE_CHECKING:
    from graphvine.manager.departures import Departure
    from graphvine.manager.pools import Pool


#: A worker's log is looked through when it is longer than this.
LOG_LIMIT = 8192
#: For so long, at the least, something is expected to be held that is.
HELD_S = 1.0
#: More than what a value or a blob costs in a frame beside its bytes.
_HEAD_BYTES = 64
_MB = 2**20
#: What is empty in most messages. Shared, never changed.
_NO_ROWS: list[Any] = []
_NO_ENTRIES: dict[int, Any] = {}


class Worker:
    """What is known of one worker."""

    __slots__ = (
        "alone",
        "asked",
        "blobs",
        "blocked",
        "contexts",
        "cores",
        "draining",
        "heap",
        "held",
        "held_count",
        "held_s",
        "hello",
        "listed",
        "load",
        "log",
        "log_limit",
        "number",
        "outbox",
        "peers",
        "place",
        "pools",
        "promised",
        "queue",
        "ready",
        "share",
        "stored",
        "strange",
        "taking",
        "until",
    )

    def __init__(self, number: int, hello: Hello, seen_at: str = "") -> None:
        """``seen_at``: the address from which it speaks ("": not known)."""
        self.number = number
        self.hello = hello
        self.place = place_of(number, hello, seen_at)
        self.cores = max(hello.capacity.cores, 0.01)
        self.queue: dict[int, float] = {}
        self.load = 0.0
        #: Zygotes that are ready here, and of the queue what waits for others, by zygote; how many, how long.
        self.ready: set[int] = set()
        self.held: dict[int, dict[int, float]] = {}
        self.held_count = 0
        self.held_s = 0.0
        self.heap: list[int] = []
        self.share: list[int] = []
        #: Every file that came to be here, some of them gone since.
        self.log: list[int] = []
        self.log_limit = LOG_LIMIT
        #: Whether it was heard to say what makes no sense, and that was noted.
        self.strange = False
        self.blobs: set[int] = set()
        self.contexts: set[int] = set()
        #: Workers whose addresses this one was told.
        self.peers: set[int] = set()
        #: Whose tasks it may run.
        self.pools: list[Pool] = []
        #: Recalled on behalf of this worker and not answered for.
        self.asked = 0
        #: In the list of workers from which may be stolen or recalled.
        self.listed = False
        #: Key of the suspect that is to run here alone when the queue is empty (0: none; keys may be
        #: negative),
        #: and number of the one that does.
        self.draining = 0
        self.alone = 0
        #: It gets no tasks (see ``blocking``).
        self.blocked = False
        #: Bytes in its store, as it said last, and bytes that it was told to take over (see ``departures``).
        self.stored = 0.0
        #: When it begins to leave by itself (0: nobody knows; see ``lifetimes``).
        self.until = 0.0
        self.promised = 0
        #: What it was told to take over: file and number of the worker that leaves.
        self.taking: dict[tuple[int, int], Departure] = {}
        self.outbox = Outbox()

    def cores_for(self, request: Resources) -> float:
        """The cores that a task gets here that asks for this; one for a light one, of which as many are run
        at once as there are cores."""
        if is_light(request):
            return min(1.0, self.cores)
        return max(cores_of(request, self.hello.capacity), 0.01)

    def give_up_taking(self) -> None:
        """What it was to take over is for somebody else."""
        for (file, _), departure in self.taking.items():
            departure.fresh.append(file)
        self.taking = {}

    def room_bytes(self) -> float:
        """Bytes for which there is room, as far as that is known."""
        return self.hello.capacity.disk_mb * _MB - self.stored - self.promised

    def answered(self, number: int) -> None:
        """A task that was perhaps held is not any more."""
        for zygote, tasks in self.held.items():
            expected = tasks.pop(number, None)
            if expected is not None:
                self.held_count -= 1
                self.held_s -= expected
                if not tasks:
                    del self.held[zygote]
                if not self.held:
                    self.held_s = 0.0
                return

    def wait_s(self) -> float:
        """Seconds until what is kept for this worker would all have begun, if it is like what was given to
        it. (When something is held, nobody knows for how long, but it is no matter of milliseconds.)"""
        if self.held:
            return max(self._wait_s(), HELD_S)
        return self._wait_s()

    def _wait_s(self) -> float:
        given = len(self.queue)
        if not given:
            return 0.0
        return self.load * (given + len(self.share) + len(self.heap)) / (given * self.cores)


class Rest:
    """What is seldom said to a worker: all but orders and drops."""

    __slots__ = (
        "blobs",
        "cancels",
        "contexts",
        "first",
        "limits",
        "new_peers",
        "probes",
        "recalls",
        "requests",
        "sources",
        "turns",
        "update_values",
        "updates",
        "values",
    )

    def __init__(self) -> None:
        self.first: list[ToWorker] = []
        self.cancels: list[int] = []
        self.recalls: list[int] = []
        self.probes: list[int] = []
        self.turns: list[str] = []
        self.updates: list[Source] = []
        self.update_values: dict[int, bytes] = {}
        self.blobs: list[BlobData] = []
        self.contexts: list[Context] = []
        self.values: dict[int, bytes] = {}
        self.sources: list[Source] = []
        self.new_peers: dict[int, list[Address]] = {}
        self.requests: dict[int, Resources] = {}
        self.limits: dict[int, float] = {}

    def waits(self) -> bool:
        """Whether there is something that goes with the next orders."""
        return bool(
            self.values or self.sources or self.new_peers or self.contexts or self.requests or self.limits
        )

    def forget(self, number: int) -> None:
        """Say nothing of what was to be said about a file."""
        self.values.pop(number, None)
        self.update_values.pop(number, None)
        if self.sources:
            self.sources = [source for source in self.sources if source.file != number]
        if self.updates:
            self.updates = [source for source in self.updates if source.file != number]


class Outbox:
    """What is to be said to one worker in this turn (``take`` says in which order).

    Most is orders and drops. For the rest there is a place only while it is needed: with thousands of workers
    to speak to in each turn, a dozen empty lists each would cost more to look into than the orders do."""

    __slots__ = ("drops", "orders", "rest")

    def __init__(self) -> None:
        self.orders: list[TaskOrder] = []
        self.drops: list[int] = []
        self.rest: Rest | None = None

    def also(self) -> Rest:
        """The place for what is seldom said."""
        rest = self.rest
        if rest is None:
            rest = self.rest = Rest()
        return rest

    def drop(self, number: int) -> None:
        """Have a file dropped, and say nothing of what was to be said about it: values and sources of an
        order that was not given after all wait here for the next one."""
        self.drops.append(number)
        if self.rest is not None:
            self.rest.forget(number)

    def take(self) -> list[ToWorker]:
        """All that is to be said, in the order in which it must be heard; the outbox is empty afterwards.

        What is taken away comes before what is given: a file may be dropped and made again in one turn. But
        a task may be given to one worker and called back for another in one turn."""
        if self.rest is not None:
            return self._take_all(self.rest)
        messages: list[ToWorker] = []
        if self.drops:
            messages.append(Drop(self.drops))
            self.drops = []
        if self.orders:
            messages.append(_assign(self.orders))
            self.orders = []
        return messages

    def _take_all(self, rest: Rest) -> list[ToWorker]:
        messages, rest.first = rest.first, []
        if rest.cancels:
            messages.append(Cancel(rest.cancels))
            rest.cancels = []
        if self.drops:
            messages.append(Drop(self.drops))
            self.drops = []
        if rest.probes:
            messages.append(Probe(rest.probes, rest.new_peers))
            rest.probes, rest.new_peers = [], {}
        if rest.turns:
            messages.append(TurnGiven(rest.turns))
            rest.turns = []
        if rest.updates or rest.update_values:
            messages.append(Sources(rest.updates, rest.new_peers, rest.update_values))
            rest.updates, rest.update_values, rest.new_peers = [], {}, {}
        if self.orders or rest.blobs:
            _take_what_is_heavy(rest, messages)
            messages.append(_take_assign(rest, self.orders))
            self.orders = []
        if rest.recalls:
            messages.append(Recall(rest.recalls))
            rest.recalls = []
        if not rest.waits():
            self.rest = None
        return messages


def _assign(orders: list[TaskOrder]) -> Assign:
    """Orders and nothing else: of what is empty, none is made anew."""
    return Assign(orders, _NO_ROWS, _NO_ROWS, _NO_ENTRIES, _NO_ROWS, _NO_ENTRIES, _NO_ENTRIES, _NO_ENTRIES)


def _take_what_is_heavy(rest: Rest, messages: list[ToWorker]) -> None:
    """Values and blobs go before the work that needs them, in messages of their own, when they are more
    than fit into one with it."""
    if rest.values and sum(map(len, rest.values.values())) > FRAME_BYTES // 2:
        for values in portions(rest.values.items(), _weight_of_value):
            messages.append(Sources([], {}, dict(values)))
        rest.values = {}
    if len(rest.blobs) > 1 and sum(map(_weight_of_blob, rest.blobs)) > FRAME_BYTES // 2:
        for blobs in portions(rest.blobs, _weight_of_blob):
            messages.append(Assign([], blobs, rest.contexts))
            rest.contexts = []
        rest.blobs = []


def _take_assign(rest: Rest, orders: list[TaskOrder]) -> Assign:
    """The work, and what it needs."""
    assign = _assign(orders)
    if rest.blobs:
        assign.blobs, rest.blobs = rest.blobs, []
        assign.contexts, rest.contexts = rest.contexts, []
    if rest.values:
        assign.values, rest.values = rest.values, {}
    if rest.sources:
        assign.sources, rest.sources = rest.sources, []
    if rest.new_peers:
        assign.peers, rest.new_peers = rest.new_peers, {}
    if rest.requests:
        assign.requests, rest.requests = rest.requests, {}
    if rest.limits:
        assign.limits, rest.limits = rest.limits, {}
    return assign


def _weight_of_value(item: tuple[int, bytes]) -> int:
    return len(item[1]) + _HEAD_BYTES


def _weight_of_blob(blob: BlobData) -> int:
    return len(blob.data or b"") + _HEAD_BYTES
