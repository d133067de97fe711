"""Who runs what next. Part of the agent's core: no I/O.

- The job that came first is served first. When nobody can take it, those behind it wait as well: executors
  that become free, and cores that are given back, are for it. Light jobs need not wait: they take nothing.
- An idle executor gets a packet; else one that works for the same lane gets a second packet to go on with,
  when the tasks are short; executors are added while there are ready jobs, resources for them, and too few.
- When somebody is idle and nothing is ready, packets that wait unread before somebody busy are taken back.
"""

from __future__ import annotations

import msgspec

from graphvine.protocol.messages import Resources, TaskOrder
from graphvine.worker.crew import Bundle, Crew, Executor
from graphvine.worker.family import follow, gather, mark_passed
from graphvine.worker.files import STORED, Files
from graphvine.worker.instructions import KillExecutor, RunPacket, SpawnExecutor, TakeBack
from graphvine.worker.nursery import Nursery
from graphvine.worker.outbox import Outbox
from graphvine.worker.packets import Packet, PacketTask
from graphvine.worker.packing import Durations, Load, fill, share_of
from graphvine.worker.settings import Settings
from graphvine.worker.tasks import QUEUED, Job, Lane, Queue

#: Packets an executor may hold: one that it runs, one to go on with.
_PACKETS = 2
#: A packet whose tasks pass values on may take so many times longer than expected before it is relieved: what
#: was passed on has to be made again then.
_PATIENCE = 3.0


def _length(given: bytes | str | int) -> int:
    """Bytes that an input takes in a packet."""
    return 0 if isinstance(given, int) else len(given)


class Codes(msgspec.Struct):
    """What is known of contexts and blobs: a lane's key of each context, and each blob's context."""

    imports: dict[int, str]
    """Number of a context -> the names it imports ahead, in one string."""
    zygotes: dict[int, str]
    """... -> the key of its zygote."""
    context_with: dict[tuple[str, str], int]
    """... and back: some context with this zygote and these imports."""
    of_blob: dict[int, int]


class Dispatcher:
    """Hands ready jobs to executors."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        queue: Queue,
        files: Files,
        crew: Crew,
        codes: Codes,
        nursery: Nursery,
    ) -> None:
        self.inline_bytes = 0
        self.overdue_at: float | None = None
        """When a packet is to be looked at again: what waits behind it may have to be moved."""
        self.durations = Durations()
        self._settings = settings
        self._outbox = outbox
        self._queue = queue
        self._files = files
        self._crew = crew
        self._codes = codes
        self._nursery = nursery
        self._packets = 0
        self._spawned = 0

    def dispatch(self, now: float) -> None:
        """Hand out what is ready, as far as it can be run."""
        queue = self._queue
        queue.tidy()
        passed: list[Lane] = []
        only_light = False
        while lane := queue.first_lane(passed):
            if (lane.light or not only_light) and self._serve(lane, now):
                continue
            # Others need not wait for a light job, nor for a zygote whose executors don't come up.
            if not lane.light and not self._nursery.is_paused(lane.zygote, now):
                only_light = True
            passed.append(lane)

    def warm_up(self) -> None:
        """Ask for the first executors, before there is any work."""
        for _ in range(min(self._settings.warm_executors, self._crew.limit(Resources()))):
            self._spawn(Lane("", Resources()))

    def stop(self, executor: Executor) -> None:
        """Stop an idle executor."""
        self._outbox.instructions.append(KillExecutor(executor.number))
        self._crew.remove(executor.number)

    def _serve(self, lane: Lane, now: float) -> bool:
        """Give one packet of ``lane`` to somebody. False when nobody can take it now."""
        if self._crew.fits(lane.request):
            executor = self._crew.idle_for(lane)
            if executor is not None:
                takers = self._crew.count_idle()
                self._crew.occupy(executor, lane)
                self._give(executor, lane, takers, now)
                return True
            self._start_more(lane, now)
        followers = self._crew.followers(lane, _PACKETS)
        if not followers or self._is_long(lane):
            return False
        self._give(followers[0], lane, len(followers), now)
        return True

    def _is_long(self, lane: Lane) -> bool:
        job = lane.front()
        mean = self.durations.means.get(job.order.category) if job is not None else None
        if job is not None and job.max_s:
            # Its time begins when it is given away: not to somebody who is at something else.
            return True
        return mean is None or mean >= self._settings.ahead_s

    def _start_more(self, lane: Lane, now: float) -> None:
        """Executors for the ready jobs of a lane that nobody idle can take."""
        crew = self._crew
        if self._nursery.is_paused(lane.zygote, now):
            return
        starting = crew.count_starting(lane)
        while starting < lane.size and crew.fits(lane.request, starting + 1):
            if not crew.has_place(lane) and not self._make_place(lane):
                return
            self._spawn(lane)
            starting += 1

    def _make_place(self, lane: Lane) -> bool:
        """End idle executors that are in the way of one for this lane. False: there is no place yet."""
        gpus = lane.request.gpus
        while not gpus or not self._crew.devices.can_take_soon(gpus):
            stranger = self._crew.idle_stranger(lane)
            if stranger is None:
                return False
            self.stop(stranger)
            if not gpus:
                return True
        # Devices are free when those are gone that had them.
        return False

    def _spawn(self, lane: Lane) -> None:
        self._spawned += 1
        zygote, gpus = lane.zygote, lane.request.gpus
        executor = self._crew.add(self._spawned, lane.key, zygote, gpus)
        context = self._codes.context_with[zygote, lane.key]
        self._outbox.instructions.append(SpawnExecutor(self._spawned, context, zygote, executor.devices))

    def _give(self, executor: Executor, lane: Lane, takers: int, now: float) -> None:
        load = fill(lane, share_of(lane, takers), self.durations.means, self._settings)
        head = load.jobs[0] if load.jobs else None
        if head is not None and head.order.uses and not head.max_s:
            self._add_family(load, lane)
        run = self._make_packet(executor, load)
        if not run.packet.tasks:
            if not executor.bundles:
                self._crew.vacate(executor)
            return
        number = run.packet.number
        jobs = [job for job in load.jobs if job.packet == number]
        files = [file for _, _, file in run.files]
        self._files.pin(files)
        bundle = Bundle(number, jobs, load.expected_s, load.long, now, run.blobs, run.contexts, files)
        executor.bundles.append(bundle)
        if jobs[0].max_s:
            executor.expires_at = now + jobs[0].max_s
        self._outbox.instructions.append(run)

    def _add_family(self, load: Load, lane: Lane) -> None:
        """Add what goes with a load, if everybody else who could work for its lane finds a job there."""
        others = self._crew.most_at_once(lane.request) - 1
        if lane.size >= others:
            waiters, means, settings = self._files.waiters, self.durations.means, self._settings
            gather(load, lane, others, self._queue.jobs, waiters, means, settings)
            follow(load, lane, waiters, means, settings)

    def _make_packet(self, executor: Executor, load: Load) -> RunPacket:
        """The packet of a load; jobs that lack an input after all, or are too much for it, go back."""
        self._packets = number = self._packets + 1
        held, room = self._files.held, self._settings.packet_bytes
        tasks: list[PacketTask] = []
        run = RunPacket(executor.number, Packet(number, [], [], tasks, "", self.inline_bytes), [], [], [])
        made: dict[int, int] = {}
        blob, context = -1, 0
        for position, job in enumerate(load.jobs):
            order = job.order
            try:
                inputs: list[bytes | str | int] = []
                if load.followers:
                    inputs = [held[file] if file in held else made[file] for file in order.inputs]
                elif order.inputs:
                    inputs = [held[file] for file in order.inputs]
                if order.blob != blob:
                    context = self._tell(executor, run, order.blob)
                    blob = order.blob
            except KeyError:
                self.queue_again(job)
                continue
            if inputs:
                room -= sum(map(_length, inputs))
                if STORED in inputs:
                    slots = [slot for slot, value in enumerate(inputs) if value == STORED]
                    run.files += [(len(tasks), slot, order.inputs[slot]) for slot in slots]
            job.packet = number
            tasks.append(
                PacketTask(order.task, blob, context, order.index, order.attempt, inputs, shares=order.shares)
            )
            made[order.task] = order.task
            if room < 0:
                for left in load.jobs[position + 1 :]:
                    self.queue_again(left)
                break
        if load.followers:
            mark_passed(tasks, [job for job in load.jobs if job.packet == number])
            run.packet.patience_s = _PATIENCE * load.expected_s
        return run

    def queue_again(self, job: Job) -> None:
        """A job that was to run and did not: it is ready, unless an input was lost or has yet to be made."""
        held, waiters = self._files.held, self._files.waiters
        job.missing = 0
        job.packet = QUEUED
        for file in (*job.order.inputs, job.order.blob):
            if file not in held:
                job.missing += 1
                waiters.setdefault(file, []).append(job)
        if job.missing:
            self.report_unknown([job.order])
        else:
            self._queue.wake([job])

    def report_unknown(self, orders: list[TaskOrder]) -> None:
        """Inputs that are not here, not made here and not coming: the manager is to name holders."""
        files, jobs = self._files, self._queue.jobs
        for order in orders:
            for file in (*order.inputs, order.blob):
                if file not in files.held and file not in jobs and not files.is_coming(file):
                    files.report_missing(file, "this worker neither holds it nor was told where it is")

    def _tell(self, executor: Executor, run: RunPacket, blob: int) -> int:
        """See to it that an executor knows a blob and its context, which is returned. Raises KeyError.

        It knows what packets told that it has finished. What one before this tells may be taken back while
        it reads this one."""
        if self._files.held[blob] != STORED:
            raise KeyError(blob)
        context = self._codes.of_blob.get(blob, 0)
        if blob not in executor.blobs and blob not in run.blobs:
            run.blobs.append(blob)
        if context not in executor.contexts and context not in run.contexts:
            run.contexts.append(context)
        return context

    # -- taking back for the idle ------------------------------------------------------------------------

    def steal(self, now: float) -> None:
        """When somebody is idle and nothing else is ready, take back what waits before somebody busy."""
        self.overdue_at = None
        if self._queue.has_ready():
            return
        rich = [e for e in self._crew.executors.values() if len(e.bundles) > 1]
        if not rich:
            return
        for executor in rich:
            head = executor.bundles[0]
            if executor.stolen == head.number or not self._can_help(executor.lane):
                continue
            waiting_s = sum(bundle.expected_s for bundle in executor.bundles) - (now - head.sent_at)
            overdue_at = head.sent_at + head.expected_s + self._settings.overdue_s
            if waiting_s > self._settings.steal_s or overdue_at <= now:
                executor.stolen = head.number
                executor.taking = True
                self._outbox.instructions.append(TakeBack(executor.number))
            elif self.overdue_at is None or overdue_at < self.overdue_at:
                self.overdue_at = overdue_at

    def _can_help(self, lane: Lane | None) -> bool:
        """Whether somebody idle could run this lane's jobs now: also the resources for it must be free."""
        return lane is not None and self._crew.fits(lane.request) and self._crew.idle_for(lane) is not None
