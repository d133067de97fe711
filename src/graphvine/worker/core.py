"""The agent's core: decides what a worker does next. Pure: no sockets, threads, clocks, files.

The loop calls ``on_*`` for whatever happened and then ``turn``, which returns instructions. Rules:

- Orders run in the order in which they came, as soon as their inputs are here; work is started only within
  the worker's capacity. A job that does not fit holds back those behind it, so that none starves.
- Every job is in exactly one place: waiting for inputs, in its lane, in one packet of one executor, or gone.
  The results of packets that are not current any more are ignored.
- An executor's death is blamed on the one task it had begun; everything else it held goes back to the front.
- What was not read by an executor can be taken back: on recall, on cancel, and when another one is idle.
- What is recalled goes back with all that waits here for its result. So does everything that has not begun,
  once this worker is going to leave.
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
    TaskDone,
    TaskFailed,
    TaskOrder,
    Welcome,
)
from graphvine.worker.crew import Bundle, Crew, Executor, cut_down
from graphvine.worker.dispatch import Codes, Dispatcher
from graphvine.worker.family import was_passed_on
from graphvine.worker.files import STORED, Files
from graphvine.worker.instructions import (
    Instruction,
    KillExecutor,
    Note,
    StoreBlob,
    StoreContext,
    TakeBack,
)
from graphvine.worker.links import Links
from graphvine.worker.nursery import Nursery
from graphvine.worker.outbox import Outbox
from graphvine.worker.packets import PacketDone, TaskResult
from graphvine.worker.settings import Settings
from graphvine.worker.tasks import CANCELLED, GONE, QUEUED, Job, Lane, Queue

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
        self._recalled: set[int] = set()
        """Recalled tasks that lie in packets: those of them that come back without having been run are
        returned, at once or when their packet ends."""
        self._sequence = 0
        self._leaving = False

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
        if self._leaving:
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
                self._forget(task)
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
        packets = set()
        for task in tasks:
            job = self._queue.jobs.get(task)
            if job is None:
                continue
            if job.packet == QUEUED:
                self._return(job)
            else:
                self._recalled.add(task)
                packets.add(job.packet)
        for executor in self._crew.executors.values():
            # The first packet is being read or run.
            if any(bundle.number in packets for bundle in executor.bundles):
                self._take_back(executor)

    def _return(self, job: Job) -> None:
        stack = [job]
        while stack:
            job = stack.pop()
            task = job.order.task
            if self._queue.jobs.get(task) is not job or job.packet > 0:
                continue
            self._forget(task)
            self._outbox.returned.append(task)
            stack += self._files.waiters.pop(task, ())

    def on_cancel(self, tasks: list[int], now: float) -> None:
        """Forget tasks; stop executors that run them."""
        packets = set()
        for task in tasks:
            job = self._queue.jobs.get(task)
            if job is not None:
                packet = job.packet
                self._forget(task)
                if packet > 0:
                    packets.add(packet)
                    job.packet = CANCELLED
        if not packets:
            return
        for executor in self._crew.executors.values():
            if any(bundle.number in packets for bundle in executor.bundles):
                executor.doomed_at = now
                self._take_back(executor)

    def on_leave(self) -> None:
        """This worker is going to leave: what has not begun goes back to the manager, and so does what still
        comes."""
        self._leaving = True
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
        self._recalled.clear()
        self._nursery.on_rejoin()
        self._outbox.forget_news()

    def holds(self) -> list[tuple[int, int]]:
        """Results in the store: file and size in bytes."""
        return list(self._files.sizes.items())

    # -- executors -------------------------------------------------------------------------------------

    def on_executor_ready(self, number: int) -> None:
        executor = self._crew.executors.get(number)
        if executor is not None:
            executor.ready = True
            self._nursery[executor.zygote].false_starts = 0

    def on_packet_results(self, number: int, done: PacketDone, now: float) -> None:
        """Results of one packet, perhaps not all of it yet."""
        executor = self._crew.executors.get(number)
        if executor is None:
            self._drop_results(done.results)
            return
        jobs, held, waiters = self._queue.jobs, self._files.held, self._files.waiters
        report, learn, packet = self._outbox.done, self._dispatcher.durations.learn, done.number
        for result in done.results:
            task = result.task
            job = jobs.get(task)
            if job is None or job.packet != packet:
                self._drop_results([result])
            elif result.kind == "vanished":
                # It goes back to the queue with what is left of its packet, and waits for the file.
                self._files.on_lost(int(result.text))
            elif result.kind:
                self._on_failed(job, result)
            else:
                del jobs[task]
                if self._recalled:
                    self._recalled.discard(task)
                value = result.value
                job.packet = GONE
                report.append(
                    TaskDone(
                        task,
                        result.size,
                        value,
                        result.began_s,
                        result.duration_s,
                        result.memory_mb,
                        result.note,
                    )
                )
                learn(job.order.category, result.duration_s)
                if was_passed_on(result):
                    # All that needed it has run. Should more come to need it, it is to be made again.
                    self._outbox.lost.append(task)
                    continue
                if task in waiters:
                    self._queue.wake(self._files.hold(task, STORED if value is None else value))
                else:
                    held[task] = STORED if value is None else value
                if value is None:
                    self._files.note_made(task, result.size)
        for task in done.given_back:
            job = jobs.get(task)
            if job is not None and job.packet == packet:
                self._put_back(job)
        if done.finished:
            self._on_packet_finished(executor, packet, now)

    def _on_failed(self, job: Job, result: TaskResult) -> None:
        assert result.kind
        assert result.kind != "vanished"
        self._forget(job.order.task)
        self._outbox.failed.append(
            TaskFailed(
                job.order.task,
                job.order.attempt,
                result.kind,
                result.text,
                result.error,
                result.began_s,
                result.duration_s,
                result.memory_mb,
                result.note,
            )
        )

    def _drop_results(self, results: list[TaskResult]) -> None:
        for result in results:
            if result.value is None and not result.kind and result.size:
                self._files.drop_stray(result.task)

    def _on_packet_finished(self, executor: Executor, packet: int, now: float) -> None:
        bundles = executor.bundles
        if not bundles or bundles[0].number != packet:
            return
        bundle = bundles.popleft()
        executor.blobs.update(bundle.blobs)
        executor.contexts.update(bundle.contexts)
        self._requeue(bundle)
        executor.doomed_at = None
        if bundles:
            bundles[0].sent_at = now
        else:
            self._crew.vacate(executor)

    def _take_back(self, executor: Executor) -> None:
        executor.taking = True
        self._outbox.instructions.append(TakeBack(executor.number))

    def on_taken_back(self, number: int, packets: list[int]) -> None:
        """Unread packets are here again. What is recalled goes back to the manager, the rest to its lane."""
        executor = self._crew.executors.get(number)
        if executor is None:
            return
        executor.taking = False
        unread = [bundle for bundle in executor.bundles if bundle.number in packets]
        for bundle in unread:
            executor.bundles.remove(bundle)
            self._requeue(bundle)
        if executor.bundles:
            executor.stolen = executor.bundles[0].number
            self._doom(executor)
        else:
            executor.doomed_at = None
            self._crew.vacate(executor)

    def _doom(self, executor: Executor) -> None:
        """After a cancel: stop the executor if it runs what was cancelled. What is short, or shares a packet
        with wanted tasks, has a little time to end by itself: another executor costs more."""
        if executor.doomed_at is None:
            return
        marks = [(job.packet, bundle.long) for bundle in executor.bundles for job in bundle.jobs]
        if (CANCELLED, True) in marks:
            self._stop(executor)
        elif (CANCELLED, False) in marks:
            executor.doomed_at += self._settings.cancel_grace_s
        else:
            executor.doomed_at = None

    def on_packet_unsent(self, number: int, packet: int, can_go_on: bool) -> None:
        """A packet could not be sent: its jobs go back, as if it had been taken back.

        Without ``can_go_on`` it was the executor that could not take it: one that has none is of no use."""
        self.on_taken_back(number, [packet])
        executor = self._crew.executors.get(number)
        if executor is not None and executor.idle and not can_go_on:
            self._stop(executor)

    def on_executor_died(self, number: int, cause: str, begun: int | None, now: float) -> None:
        """An executor is gone. ``begun``: the task to blame, if any."""
        self.on_executor_gone(number)
        executor = self._crew.executors.get(number)
        if executor is None:
            return
        job = self._queue.jobs.get(begun) if begun is not None else None
        if self._leaving:
            # A batch system that ends a job may have signalled all its processes: nobody is to blame.
            self._recalled |= {
                j.order.task for bundle in executor.bundles for j in bundle.jobs if j.packet == bundle.number
            }
        elif job is not None and any(b.number == job.packet for b in executor.bundles):
            failed = TaskFailed(job.order.task, job.order.attempt, "killed", cause)
            self._outbox.failed.append(failed)
            self._forget(job.order.task)
        if not executor.ready:
            self._on_false_start(executor, cause, now)
        self._outbox.instructions.append(Note("warning", f"executor {number} died: {cause}"))
        self._remove(executor)

    def on_executor_gone(self, number: int) -> None:
        """An executor is gone that may have been ended: what it had of gpus is free."""
        self._crew.devices.give_back(number)

    def _on_false_start(self, executor: Executor, cause: str, now: float) -> None:
        zygote = self._nursery[executor.zygote]
        zygote.false_starts += 1
        zygote.not_before = now + self._settings.start_delay_s
        if zygote.false_starts < self._settings.start_tries:
            return
        for lane in self._queue.ready:
            same = lane.zygote == executor.zygote and lane.key == executor.key
            job = lane.front() if same else None
            if job is not None:
                text = f"no executor could be started: {cause}"
                self._outbox.failed.append(TaskFailed(job.order.task, job.order.attempt, "killed", text))
                self._forget(job.order.task)

    def _stop(self, executor: Executor) -> None:
        self._outbox.instructions.append(KillExecutor(executor.number))
        self._remove(executor)

    def _remove(self, executor: Executor) -> None:
        self._crew.remove(executor.number)
        for bundle in executor.bundles:
            self._requeue(bundle)
        executor.bundles.clear()
        self._crew.vacate(executor)

    def _requeue(self, bundle: Bundle) -> None:
        """Jobs of a packet that ended or was taken back, and did not run: back to the front, or returned."""
        self._files.unpin(bundle.files)
        # Backwards: what follows others is found to wait for them.
        for job in reversed(bundle.jobs):
            if job.packet == bundle.number:
                self._put_back(job)

    def _put_back(self, job: Job) -> None:
        """A job that was handed out and has not begun: back to the front, or returned."""
        if job.order.task in self._recalled:
            self._recalled.discard(job.order.task)
            job.packet = QUEUED
            job.missing = 1  # in no lane
            self._return(job)
        else:
            self._dispatcher.queue_again(job)

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
            self._forget(job.order.task)

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
        executors = self._crew.executors.values()
        times = [e.doomed_at for e in executors if e.doomed_at is not None]
        times += [e.expires_at for e in executors if e.expires_at is not None]
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
        for executor in list(self._crew.executors.values()):
            if executor.doomed_at is not None and executor.doomed_at <= now:
                self._stop(executor)
            elif executor.expires_at is not None and executor.expires_at <= now:
                self._time_out(executor)
        self._nursery.on_time(now)

    def _time_out(self, executor: Executor) -> None:
        """A task took longer than it may: it has failed, and its executor is stopped."""
        executor.expires_at = None
        bundle = executor.bundles[0]
        job = bundle.jobs[0]
        if job.packet != bundle.number:
            return  # it was cancelled, and that is seen to
        order, text = job.order, f"it ran for longer than the {job.max_s:g} s it was given"
        self._outbox.failed.append(
            TaskFailed(order.task, order.attempt, "timeout", text, duration_s=job.max_s)
        )
        self._forget(order.task)
        self._stop(executor)

    def idle(self) -> bool:
        """Whether there are no tasks here."""
        return not self._queue.jobs

    def running(self) -> int:
        """How many executors have work."""
        return self._crew.count_running()

    def _forget(self, task: int) -> None:
        """A task is no longer here, wherever it was."""
        self._queue.forget(task)
        self._recalled.discard(task)
