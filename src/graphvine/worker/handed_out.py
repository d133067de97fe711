"""What was handed out to executors: results, what is taken back, and executors that die or are to be stopped.

- The results of packets that are not current any more are ignored.
- An executor's death is blamed on the one task it had begun; everything else it held goes back to the front.
- What is recalled, and comes back without having been run, is returned to the manager with all that waits for
  its result here. Once this worker is leaving, so is whatever an executor had that died.
"""

from __future__ import annotations

from graphvine.protocol.messages import TaskDone, TaskFailed
from graphvine.worker.crew import Bundle, Crew, Executor
from graphvine.worker.dispatch import Dispatcher
from graphvine.worker.family import was_passed_on
from graphvine.worker.files import STORED, Files
from graphvine.worker.instructions import KillExecutor, Note, TakeBack
from graphvine.worker.nursery import Nursery
from graphvine.worker.outbox import Outbox
from graphvine.worker.packets import PacketDone, TaskResult
from graphvine.worker.settings import Settings
from graphvine.worker.tasks import CANCELLED, GONE, QUEUED, Job, Queue


class HandedOut:
    """What executors have, and what becomes of it."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        queue: Queue,
        files: Files,
        crew: Crew,
        nursery: Nursery,
        dispatcher: Dispatcher,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._queue = queue
        self._files = files
        self._crew = crew
        self._nursery = nursery
        self._dispatcher = dispatcher
        self._recalled: set[int] = set()
        """Recalled tasks that lie in packets: those of them that come back without having been run are
        returned, at once or when their packet ends."""
        self.leaving = False

    # -- what is not to be run here ----------------------------------------------------------------------

    def recall(self, tasks: list[int]) -> None:
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
            self.forget(task)
            self._outbox.returned.append(task)
            stack += self._files.waiters.pop(task, ())

    def cancel(self, tasks: list[int], now: float) -> None:
        """Forget tasks; stop executors that run them."""
        packets = set()
        for task in tasks:
            job = self._queue.jobs.get(task)
            if job is not None:
                packet = job.packet
                self.forget(task)
                if packet > 0:
                    packets.add(packet)
                    job.packet = CANCELLED
        if not packets:
            return
        for executor in self._crew.executors.values():
            if any(bundle.number in packets for bundle in executor.bundles):
                executor.doomed_at = now
                self._take_back(executor)

    def forget(self, task: int) -> None:
        """A task is no longer here, wherever it was."""
        self._queue.forget(task)
        self._recalled.discard(task)

    def forget_recalls(self) -> None:
        """The manager has forgotten this worker, and what it has called back."""
        self._recalled.clear()

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
        self.forget(job.order.task)
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
        if self.leaving:
            # A batch system that ends a job may have signalled all its processes: nobody is to blame.
            self._recalled |= {
                j.order.task for bundle in executor.bundles for j in bundle.jobs if j.packet == bundle.number
            }
        elif job is not None and any(b.number == job.packet for b in executor.bundles):
            failed = TaskFailed(job.order.task, job.order.attempt, "killed", cause)
            self._outbox.failed.append(failed)
            self.forget(job.order.task)
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
                self.forget(job.order.task)

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

    # -- time ------------------------------------------------------------------------------------------

    def deadlines(self) -> list[float]:
        """When executors are to be looked at."""
        executors = self._crew.executors.values()
        times = [e.doomed_at for e in executors if e.doomed_at is not None]
        return times + [e.expires_at for e in executors if e.expires_at is not None]

    def on_time(self, now: float) -> None:
        """Stop those whose time is over."""
        for executor in list(self._crew.executors.values()):
            if executor.doomed_at is not None and executor.doomed_at <= now:
                self._stop(executor)
            elif executor.expires_at is not None and executor.expires_at <= now:
                self._time_out(executor)

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
        self.forget(order.task)
        self._stop(executor)
