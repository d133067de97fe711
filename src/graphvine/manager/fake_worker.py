"""A make-believe worker, for tests of the manager's core: keeps what an agent keeps, does what it is told.

It insists on being told right, and complains (``Complaint``) about an order that names a blob it never got,
about an order it has already, and about being sent what it holds. A task's value is a digest of its blob, its
entry and its inputs' values, so a wrong or stale input shows in the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphvine.protocol.messages import (
    Assign,
    Cancel,
    Context,
    ContextNews,
    Drop,
    Hello,
    Leave,
    Missing,
    Probe,
    Recall,
    Report,
    Source,
    Sources,
    TaskDone,
    TaskFailed,
    TaskOrder,
    ToWorker,
    TurnGiven,
    Welcome,
)
from graphvine.protocol.zygotes import zygote_key

if TYPE_CHECKING:
    from graphvine.manager.rehearsal import Rehearsal


class Complaint(AssertionError):
    """A worker was told something that makes no sense to it."""


def digest(blob: bytes, index: int, inputs: Sequence[bytes]) -> bytes:
    """The value of a task."""
    state = hashlib.blake2b(blob, digest_size=8)
    state.update(b"%d" % index)
    for value in inputs:
        state.update(value)
    return state.digest()


class FakeWorker:
    """What an agent keeps, without an agent: orders, files, and what it has to report."""

    def __init__(self, cluster: Rehearsal, number: int, hello: Hello) -> None:
        self.cluster = cluster
        self.number = number
        self.hello = hello
        self.orders: dict[int, TaskOrder] = {}
        #: Begun tasks and the values of their inputs.
        self.begun: dict[int, list[bytes]] = {}
        self.started: dict[int, TaskOrder] = {}
        self.files: dict[int, bytes] = {}
        self.blobs: dict[int, bytes] = {}
        self.contexts: dict[int, Context] = {}
        self.context_of: dict[int, int] = {}
        #: Zygotes that are ready, and the context for which each was made.
        self.ready: dict[str, int] = {"": 0}
        self.peers: set[int] = set()
        #: Files to be fetched: where from. None: asked for and no answer yet.
        self.fetching: dict[int, Source | None] = {}
        #: Answers to tasks that asked for their turn.
        self.turns: list[str] = []
        self.report = Report()
        self.ran: list[int] = []

    # -- what it is told ----------------------------------------------------------------------------------

    def hear(self, message: ToWorker) -> None:
        """Take one message in."""
        if isinstance(message, Assign):
            self._assign(message)
        elif isinstance(message, Sources):
            self.peers.update(message.peers)
            self._supplied(message.values, message.sources)
        elif isinstance(message, Drop):
            for file in message.files:
                self.files.pop(file, None)
                self.blobs.pop(file, None)
                self.fetching.pop(file, None)
        elif isinstance(message, Probe):
            self.peers.update(message.peers)
        elif isinstance(message, TurnGiven):
            self.turns += message.replies
        elif isinstance(message, Recall):
            self._give_back(message.tasks)
        elif isinstance(message, Cancel):
            for task in message.tasks:
                self.orders.pop(task, None)
                self.begun.pop(task, None)
        elif not isinstance(message, Welcome | Leave):
            raise Complaint(f"{message} came to a worker")

    def _assign(self, message: Assign) -> None:
        self.peers.update(message.peers)
        self.contexts.update((context.context, context) for context in message.contexts)
        for blob in message.blobs:
            if blob.context and blob.context not in self.contexts:
                raise Complaint(f"blob {blob.blob} is of context {blob.context}, which never came")
            self.context_of[blob.blob] = blob.context
            if blob.data is not None:
                self.blobs[blob.blob] = blob.data
                self.fetching.pop(blob.blob, None)
        self._supplied(message.values, message.sources)
        for order in message.orders:
            if order.task in self.orders or order.task in self.begun:
                raise Complaint(f"task {order.task} was given twice to worker {self.number}")
            if order.blob not in self.blobs and order.blob not in self.fetching:
                raise Complaint(f"task {order.task} needs blob {order.blob}, which never came")
            self.orders[order.task] = order
            for file in order.inputs:
                if not self.expects(file):
                    self.fetching[file] = None
                    self.report.missing.append(Missing(file, [], "not here, not made here, not coming"))

    def _supplied(self, values: dict[int, bytes], sources: list[Source]) -> None:
        for file, value in values.items():
            self.files[file] = value
            self.fetching.pop(file, None)
        for source in sources:
            if any(holder not in self.peers for holder in source.holders):
                raise Complaint(f"{source} names a worker of which worker {self.number} was told no address")
            if source.file not in self.files and source.file not in self.blobs:
                self.fetching[source.file] = source

    def expects(self, file: int) -> bool:
        """Whether a file is here, made here, or coming."""
        made = file in self.orders or file in self.begun
        return made or file in self.files or file in self.fetching

    def _give_back(self, tasks: Sequence[int]) -> None:
        back = [task for task in tasks if task in self.orders]
        for task in back:
            if task in self.orders:
                del self.orders[task]
                self.report.returned.append(task)
                back += [other for other, order in self.orders.items() if task in order.inputs]

    # -- what it does -------------------------------------------------------------------------------------

    def can_begin(self) -> list[int]:
        """Orders that have all they need, in the order in which they came."""
        return [
            order.task
            for order in self.orders.values()
            if order.blob in self.blobs
            and all(file in self.files for file in order.inputs)
            and self.zygote_of(order) in self.ready
        ]

    def zygote_of(self, order: TaskOrder) -> str:
        """The zygote that an order needs."""
        context = self.contexts.get(self.context_of[order.blob])
        return zygote_key(context) if context is not None else ""

    def set_up(self, order: TaskOrder) -> None:
        """What an order needs beside its inputs becomes ready."""
        key, context = self.zygote_of(order), self.context_of[order.blob]
        if key not in self.ready:
            self.ready[key] = context
            self.report.contexts.append(ContextNews(context, True))

    def tear_down(self, zygote: str) -> None:
        """... is not ready any more."""
        self.report.contexts.append(ContextNews(self.ready.pop(zygote), False))
        again = [task for task in self.begun if self.zygote_of(self.started[task]) == zygote]
        self.orders = {task: self.started[task] for task in again} | self.orders
        for task in again:
            del self.begun[task]

    def begin(self, task: int) -> None:
        """Begin a task: from now on it can't be given back, and its inputs may go."""
        order = self.orders.pop(task)
        inputs = [self.files[file] for file in order.inputs]
        self.started[task] = order
        self.begun[task] = [digest(self.blobs[order.blob], order.index, inputs)]

    def finish(self, task: int) -> None:
        """A begun task ends well."""
        value = self.begun.pop(task)[0]
        self.ran.append(task)
        self.files[task] = value
        size = self.cluster.size_of(task)
        inline = value if size <= self.cluster.core.settings.inline_bytes else None
        self.report.done.append(TaskDone(task, size, inline, 0.0, self.cluster.duration_s))

    def fail(self, task: int, kind: str = "raised", text: str = "it failed") -> None:
        """A begun task ends badly."""
        del self.begun[task]
        self.report.failed.append(TaskFailed(task, 0, kind, text))  # type: ignore[arg-type]

    def fetch(self, file: int) -> None:
        """Try to get a file from where it is said to be."""
        source = self.fetching[file]
        if source is None:
            return
        blob = self.cluster.core.blob(file)
        if blob is not None and not source.holders:
            del self.fetching[file]
            self.blobs[file] = blob
            self.report.fetched.append(file)
            return
        through = source.holders or self.cluster.core.holders(file)
        for holder in through:
            peer = self.cluster.workers.get(holder)
            cut = bool(source.holders) and (self.number, holder) in self.cluster.cuts
            cut = cut or self.number in self.cluster.full
            if peer is not None and not cut and holder == source.coming and peer.fetching.get(file):
                # It will pass it on when it has it.
                return
            if peer is not None and not cut and (file in peer.files or file in peer.blobs):
                del self.fetching[file]
                store = self.files if file in peer.files else self.blobs
                store[file] = (peer.files if file in peer.files else peer.blobs)[file]
                self.report.fetched.append(file)
                return
        if not through and self._take_given(file):
            return
        self.fetching[file] = None
        self.report.missing.append(Missing(file, source.holders, "nobody has it"))

    def _take_given(self, file: int) -> bool:
        """Get a file of the manager's machine, unless it is not what it was."""
        given = self.cluster.core.given_file(file)
        if given is None:
            return False
        if given.path in self.cluster.changed:
            self.cluster.core.on_given_lost(file, f"{given.path} changed", self.cluster.now)
            return False
        if self.number in self.cluster.full:
            return False
        self.cluster.core.on_given_read(file, given.size + 100, self.cluster.now)
        del self.fetching[file]
        self.files[file] = self.cluster.values[file]
        self.report.fetched.append(file)
        self.cluster.given_out.append((file, self.number))
        return True

    def lose(self, file: int) -> None:
        """A file's bytes are gone."""
        del self.files[file]
        self.report.lost.append(file)

    def send(self) -> None:
        """Put what there is to report on the link."""
        if self.report != Report():
            self.cluster.to_manager[self.number].append(self.report)
            self.report = Report()
