"""The agent's core: decides what a worker does next. Pure: no sockets, threads, clocks, files.

The loop calls ``on_*`` for whatever happened and then ``turn``, which returns instructions. Rules:

- Orders run in the order in which they came, as soon as their inputs are here; work is started only within
  the worker's capacity. A job that does not fit holds back those behind it, so that none starves.
- Every job is in exactly one place: waiting for inputs, in its lane, in one packet of one executor, or gone
  (see ``handed_out``).
- What was not read by an executor can be taken back: on recall, on cancel, and when another one is idle.
- Everything that has not begun goes back to the manager once this worker is going to leave.
- Jobs of a context whose zygote is not ready are held back, and nobody else's (see ``nursery``).
"""

from __future__ import annotations

from collections.abc import Iterable

from graphvine.protocol.messages import (
    Assign,
    Context,
    LinkState,
    Piece,
    Probe,
    Pull,
    Resources,
    Sources,
    TaskFailed,
    TaskOrder,
    Welcome,
)
from graphvine.worker.crew import Crew, cut_down
from graphvine.worker.dispatch import Codes, Dispatcher
from graphvine.worker.files import STORED, Files
from graphvine.worker.handed_out import HandedOut
from graphvine.worker.instructions import (
    Instruction,
    StoreBlob,
    StoreContext,
)
from graphvine.worker.links import Links
from graphvine.worker.nursery import Nursery
from graphvine.worker.outbox import Outbox
from graphvine.worker.settings import Settings
from graphvine.worker.tasks import Job, Lane, Queue

_ONE_CORE = Resources()


class Core:
    """One worker's state and decisions."""

    def __init__(self, capacity: Resources, settings: Settings) -> None:
        self._settings = settings
        self._outbox = Outbox()
        self._links = Links(settings.bar_link_s, self._outbox)
        self._files = Files(settings, self._outbox, self._links)
        self._crew = Crew(capacity)
        self._queue = Queue()
        self._codes = Codes({0: ""}, {0: ""}, {("", ""): 0}, {})
        self._nursery = Nursery(settings, self._outbox, self._queue, self._crew, self._files)
        self._dispatcher = Dispatcher(
            settings, self._outbox, self._queue, self._files, self._crew, self._codes, self._nursery
        )
        self._handed_out = handed_out = HandedOut(
            settings, self._outbox, self._queue, self._files, self._crew, self._nursery, self._dispatcher
        )
        self._sequence = 0
        # Each is called as it is: results come by the thousand.
        self.on_executor_ready = handed_out.on_executor_ready
        self.on_packet_results = handed_out.on_packet_results
        self.on_taken_back = handed_out.on_taken_back
        self.on_packet_unsent = handed_out.on_packet_unsent
        self.on_executor_died = handed_out.on_executor_died
        self.on_executor_gone = handed_out.on_executor_gone

    def on_clock(self, now: float) -> None:
        """What is heard next is heard now."""
        self._links.now = self._files.now = now

    # -- the manager's messages ------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for the first executors, before there is any work."""
        self._dispatcher.warm_up()

    def on_welcome(self, welcome: Welcome) -> None:
        self._files.worker = welcome.worker
        self._dispatcher.inline_bytes = welcome.inline_bytes

    def on_assign(self, assign: Assign) -> None:
        files = self._files
        for context in assign.contexts:
            self._on_context(context)
        for blob in assign.blobs:
            self._codes.of_blob[blob.blob] = blob.context
            files.note_blob(blob.blob)
            if blob.data is not None and blob.blob not in files.held:
                self._outbox.instructions.append(StoreBlob(blob.blob, blob.data))
                self._queue.wake(files.hold(blob.blob, STORED))
        files.note_peers(assign.peers)
        for file, value in assign.values.items():
            self._queue.wake(files.take_value(file, value))
        self._on_orders(assign.orders, assign.requests)
        for task, max_s in assign.limits.items():
            job = self._queue.jobs.get(task)
            if job is not None:
                job.max_s = max_s
        for source in assign.sources:
            files.on_source(source)
        if self._handed_out.leaving:
            self.on_recall([order.task for order in assign.orders])
        elif files.waiters:
            self._dispatcher.report_unknown(assign.orders)

    def _on_context(self, context: Context) -> None:
        key = " ".join(sorted(context.imports))
        zygote = self._nursery.learn(context)
        self._codes.imports[context.context] = key
        self._codes.zygotes[context.context] = zygote
        self._codes.context_with.setdefault((zygote, key), context.context)
        self._outbox.instructions.append(StoreContext(context))

    def _on_orders(self, orders: list[TaskOrder], requests: dict[int, Resources]) -> None:
        held, waiters, jobs = self._files.held, self._files.waiters, self._queue.jobs
        blob, lane = -1, None
        for order in orders:
            task = order.task
            if order.blob != blob or lane is None:
                blob = order.blob
                lane = self._lane(blob, _ONE_CORE)
            own = requests.get(task) if requests else None
            job_lane = lane if own is None else self._lane(blob, own)
            if task in jobs:
                self._handed_out.forget(task)
            self._sequence += 1
            jobs[task] = job = Job(order, job_lane, self._sequence)
            missing = 0
            for file in order.inputs:
                if file not in held:
                    waiters.setdefault(file, []).append(job)
                    missing += 1
            if blob not in held:
                waiters.setdefault(blob, []).append(job)
                missing += 1
            if missing:
                job.missing = missing
            else:
                job_lane.arrive(job)
                if not job_lane.listed:
                    self._queue.list(job_lane)

    def _lane(self, blob: int, request: Resources) -> Lane:
        context = self._codes.of_blob.get(blob, 0)
        key, zygote = self._codes.imports.get(context, ""), self._codes.zygotes.get(context, "")
        lane = self._queue.lane(key, cut_down(request, self._crew.capacity), zygote)
        return self._nursery.lane_of(lane)

    def on_sources(self, sources: Sources) -> None:
        self._files.note_peers(sources.peers)
        for file, value in sources.values.items():
            self._queue.wake(self._files.take_value(file, value))
        for source in sources.sources:
            self._files.on_source(source)

    def on_drop(self, files: Iterable[int]) -> None:
        self._files.drop(files)
        for file in files:
            self._codes.of_blob.pop(file, None)

    def on_recall(self, tasks: list[int]) -> None:
        """Give back what has not begun, at once or when unread packets were taken back."""
        self._handed_out.recall(tasks)

    def on_cancel(self, tasks: list[int], now: float) -> None:
        """Forget tasks; stop executors that run them."""
        self._handed_out.cancel(tasks, now)

    def on_leave(self) -> None:
        """This worker is going to leave: what has not begun goes back to the manager, and so does what still
        comes."""
        self._handed_out.leaving = True
        self.on_recall(list(self._queue.jobs))

    def on_pull(self, pull: Pull) -> None:
        self._files.on_pull(pull)

    def on_probe(self, probe: Probe) -> None:
        self._files.note_peers(probe.peers)
        self._files.on_probe(probe.workers)

    def on_link(self, worker: int, state: LinkState) -> None:
        """What became of a link to a peer."""
        self._links.note(worker, state)

    def on_piece(self, piece: Piece) -> None:
        self._queue.wake(self._files.on_piece(piece))

    def on_rejoin(self, now: float) -> None:
        """The manager gave this worker up: forget all tasks, keep the results that are stored."""
        self.on_cancel(list(self._queue.jobs), now)
        self._files.on_rejoin()
        self._handed_out.forget_recalls()
        self._nursery.on_rejoin()
        self._outbox.forget_news()

    def holds(self) -> list[tuple[int, int]]:
        """Results in the store: file and size in bytes."""
        return list(self._files.sizes.items())

    # -- zygotes ---------------------------------------------------------------------------------------

    def on_zygote_ready(self, zygote: str, duration_s: float) -> None:
        """A zygote has done its set-up, which took so long."""
        self._nursery.on_ready(zygote, duration_s)

    def on_zygote_failed(self, zygote: str, text: str, error: bytes, now: float) -> None:
        """The set-up of a zygote raised (``text`` is the traceback); the zygote is gone."""
        self._nursery.on_failed(zygote, text, error, now)

    def on_environment_found(self, zygote: str, unpacked_s: float) -> None:
        """The environment of a zygote is unpacked, which took so long (-1: it was already)."""
        self._nursery.on_environment_found(zygote, unpacked_s)

    def on_environment_absent(self, zygote: str) -> None:
        """The environment of a zygote is not unpacked on this node."""
        self._nursery.on_environment_absent(zygote)

    def on_environment_unusable(self, zygote: str, reason: str, now: float) -> None:
        """The environment of a zygote cannot be used on this node."""
        self._nursery.on_environment_unusable(zygote, reason, now)

    def on_zygote_died(self, zygote: str, cause: str, now: float) -> None:
        """A zygote is gone, ready or not; ``on_executor_died`` came for each of its executors."""
        self._nursery.on_died(zygote, cause, now)

    # -- files -----------------------------------------------------------------------------------------

    def on_fetched(self, file: int, size: int) -> None:
        self._queue.wake(self._files.on_fetched(file, size))

    def on_fetch_failed(self, file: int, holder: int, reason: str) -> None:
        self._files.on_fetch_failed(file, holder, reason)

    def on_pull_failed(self, file: int, reason: str) -> None:
        if self._files.is_blob(file):
            # The manager would only send it again: it has every blob.
            self.on_blob_refused(file, f"no room for the tasks themselves: {reason}")
        else:
            self._files.on_pull_failed(file, reason)

    def on_blob_refused(self, blob: int, reason: str) -> None:
        """The store has no room for a blob: its tasks fail here, and another one of it brings it again."""
        self._files.drop([blob])
        self._outbox.lost.append(blob)
        for job in [job for job in self._queue.jobs.values() if job.order.blob == blob]:
            self._outbox.failed.append(TaskFailed(job.order.task, job.order.attempt, "storage", reason))
            self._handed_out.forget(job.order.task)

    def on_file_lost(self, file: int) -> None:
        """A stored file has vanished. Jobs find out when they would be sent."""
        self._files.on_lost(file)

    # -- deciding --------------------------------------------------------------------------------------

    def turn(self, now: float) -> list[Instruction]:
        """Hand out what is ready, and return all instructions since the last turn. Called again after they
        were carried out, until there are none."""
        self.on_clock(now)
        self._nursery.turn(now)
        if self._queue.ready:
            self._dispatcher.dispatch(now)
        self._dispatcher.steal(now)
        if not self._queue.jobs:
            # What was forgotten while it waited for several files still waits for those that never came.
            self._files.waiters.clear()
        self._files.tell_taken()
        # With more to do here than can be begun, nobody waits for a few results; and more will come soon.
        busy = self._queue.ready and self._crew.count_running()
        return self._outbox.take(now, self._settings.gather_s if busy else 0.0)

    def deadline(self) -> float | None:
        """When ``on_time`` is next needed."""
        times = self._handed_out.deadlines()
        if self._dispatcher.overdue_at is not None:
            times.append(self._dispatcher.overdue_at)
        again_at = self._nursery.deadline()
        if again_at is not None:
            times.append(again_at)
        if self._outbox.due is not None:
            times.append(self._outbox.due)
        return min(times, default=None)

    def on_time(self, now: float) -> None:
        """``deadline()`` has come."""
        self._handed_out.on_time(now)
        self._nursery.on_time(now)

    def idle(self) -> bool:
        """Whether there are no tasks here."""
        return not self._queue.jobs

    def running(self) -> int:
        """How many executors have work."""
        return self._crew.count_running()
