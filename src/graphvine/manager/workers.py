"""One worker, as the manager sees it, and what is to be said to it in this turn.

``queue`` maps each task that was given to the worker and not answered for to the core-seconds it is expected
to take; ``load`` is their sum. ``heap`` and ``share`` hold tasks kept for this worker and not yet given to
it: the heap those whose inputs are (or will be) here, the share a piece of a plan's leaves, last first.
Either may hold stale entries, whose tasks are not ready any more: whoever takes one looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphvine.protocol.messages import (
    Address,
    Assign,
    BlobData,
    Cancel,
    Context,
    Drop,
    Hello,
    Recall,
    Resources,
    Source,
    Sources,
    TaskOrder,
    ToWorker,
    Welcome,
)

if TYPE_CHECKING:
    from graphvine.manager.pools import Pool


class Worker:
    """What is known of one worker."""

    __slots__ = (
        "alone",
        "asked",
        "blobs",
        "contexts",
        "cores",
        "draining",
        "heap",
        "hello",
        "listed",
        "load",
        "log",
        "log_limit",
        "number",
        "outbox",
        "peers",
        "pools",
        "queue",
        "share",
    )

    def __init__(self, number: int, hello: Hello) -> None:
        self.number = number
        self.hello = hello
        self.cores = max(hello.capacity.cores, 0.01)
        self.queue: dict[int, float] = {}
        self.load = 0.0
        self.heap: list[int] = []
        self.share: list[int] = []
        #: Every file that came to be here, some of them gone since.
        self.log: list[int] = []
        self.log_limit = 1024
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
        self.outbox = Outbox()

    def backlog(self) -> int:
        """Tasks kept for this worker and not given to it (an upper bound)."""
        return len(self.share) + len(self.heap)


class Outbox:
    """What is to be said to one worker in this turn. Anything said here is said before any new order."""

    __slots__ = (
        "blobs",
        "cancels",
        "contexts",
        "drops",
        "first",
        "new_peers",
        "orders",
        "recalls",
        "requests",
        "sources",
        "update_values",
        "updates",
        "values",
    )

    def __init__(self) -> None:
        self.first: list[ToWorker] = []
        self.cancels: list[int] = []
        self.recalls: list[int] = []
        self.drops: list[int] = []
        self.updates: list[Source] = []
        self.update_values: dict[int, bytes] = {}
        self._clear_assign()

    def _clear_assign(self) -> None:
        self.orders: list[TaskOrder] = []
        self.blobs: list[BlobData] = []
        self.contexts: list[Context] = []
        self.values: dict[int, bytes] = {}
        self.sources: list[Source] = []
        self.new_peers: dict[int, list[Address]] = {}
        self.requests: dict[int, Resources] = {}

    def welcome(self, message: Welcome) -> None:
        """The first thing ever said."""
        self.first.append(message)

    def take(self) -> list[ToWorker]:
        """All that is to be said, in the order in which it must be heard; the outbox is empty afterwards.

        What is taken away comes before what is given: a file may be dropped and made again in one turn."""
        messages, self.first = self.first, []
        if self.cancels:
            messages.append(Cancel(self.cancels))
            self.cancels = []
        if self.recalls:
            messages.append(Recall(self.recalls))
            self.recalls = []
        if self.drops:
            messages.append(Drop(self.drops))
            self.drops = []
        peers = self.new_peers
        if self.updates or self.update_values:
            messages.append(Sources(self.updates, peers, self.update_values))
            self.updates, self.update_values = [], {}
            peers = {}
        if self.orders or self.blobs:
            messages.append(
                Assign(
                    self.orders, self.blobs, self.contexts, self.values, self.sources, peers, self.requests
                )
            )
        if messages:
            self._clear_assign()
        return messages
