"""The thread that keeps a cluster's jobs: it stands around `fleet` and `scaling`, and does what they decide.

It alone speaks to the batch system. Others leave it a word (``call``) and read what it published last
(``status``); nobody waits for a batch command but it. It sleeps until somebody has a word for it, or until
the next look at the batch system is due, for which there is no event.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from graphvine.deploy.batch import BatchSystem
from graphvine.deploy.credentials import look_at
from graphvine.deploy.errors import DeployError
from graphvine.deploy.fleet import Fleet, Limits
from graphvine.deploy.inputs import Renewals
from graphvine.deploy.jobs import Ask, Cancel, Instruction, JobInfo, Read, Retire, Say, Submit
from graphvine.deploy.scaling import Policy, Scaler, Size, need_of
from graphvine.deploy.spec import WorkerSpec
from graphvine.deploy.systems import by_hand
from graphvine.protocol.messages import Demand, Wanted, WorkerNews

log = logging.getLogger("graphvine.deploy")

_LOG_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: While it closes, the batch system is asked so soon whether all jobs are over, then less and less often.
_CLOSE_ASK_S = 0.1
_CLOSE_ASK_MOST_S = 2.0
#: It is told that closing takes so long.
_CLOSE_TELL_S = 5.0
#: Names of submissions' directories.
_SUBMISSION = "submission-"


class Employer(Protocol):
    """The manager whose work the jobs do."""

    def retire(self, *workers: str, reason: str) -> object:
        """Have the workers of these batch jobs leave."""
        ...


class ClusterStatus(msgspec.Struct, frozen=True):
    """``target``: how many workers there should be. ``jobs``: those that may live. ``counts``: how many there
    are in each state. ``submitted``: jobs in all so far. ``trouble``: why workers are missing that are not
    submitted now."""

    target: int
    submitted: int
    counts: dict[str, int]
    jobs: list[JobInfo]
    trouble: str = ""

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(self.counts.items())) or "none"
        lines = [f"{self.target} workers wanted; jobs: {counts}"]
        lines += [f"  {self.trouble}"] if self.trouble else []
        for job in self.jobs:
            details = " ".join(part for part in (job.host, job.worker, job.reason) if part)
            lines.append(f"  {job.job:<12} {job.state:<10} {job.since_s:7.0f} s  {details}".rstrip())
        return "\n".join(lines)


class Supervisor:
    """Keeps as many workers as were wished for, until it is closed."""

    def __init__(
        self,
        system: BatchSystem,
        spec: WorkerSpec,
        directory: Path,
        employer: Employer,
        *,
        limits: Limits | None = None,
        tasks_per_worker: int = 0,
        close_s: float = 15.0,
    ) -> None:
        """``directory`` is its own: what submissions leave lies there. ``tasks_per_worker``: see
        ``scaling.Size.tasks``. ``close_s``: how long closing may wait for the batch system to say that all
        jobs are over."""
        self._system = system
        self.token = secrets.token_hex(4)
        self._spec = self._marked(spec)
        self._tasks_per_worker = tasks_per_worker
        self._directory = directory
        self._employer = employer
        self._close_s = close_s
        self._fleet = Fleet(limits or Limits(), spec.idle_s)
        self._count: int | None = 0
        self._scaler: Scaler | None = None
        self._wanted: Sequence[Wanted] = ()
        self._told: set[str] = set()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closing = False
        self._refused = ""
        """Why the last attempt to cancel jobs failed."""
        self._serial = 0
        self._renewals = Renewals()
        self.status = ClusterStatus(0, 0, {}, [])
        """What there was after the last turn."""
        self._thread = threading.Thread(
            target=self._main, name=f"graphvine-{system.name}-supervisor", daemon=True
        )

    # -- any thread ------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def call(self, command: Callable[[], None]) -> None:
        """Have ``command`` called in the supervisor's thread."""
        self._inbox.put(command)

    def scale(self, count: int) -> None:
        """So many workers."""
        self.call(lambda: self._on_wish(count, None))

    def adapt(self, policy: Policy) -> None:
        """As many as the work asks for."""
        self.call(lambda: self._on_wish(None, policy))

    def replan(self, spec: WorkerSpec, limits: Limits, policy: Policy, tasks_per_worker: int = 0) -> None:
        """From now on submit such workers, this patiently, and as many as the work asks for."""
        self.call(lambda: self._on_replan(self._marked(spec), limits, policy, tasks_per_worker))

    def on_demand(self, demand: Demand) -> None:
        """What the manager's work asks for; called in the manager's thread."""
        self.call(lambda: self._on_demand(demand))

    def on_manager_lost(self) -> None:
        """The manager can't be heard: what it says next is all there is."""
        self.call(lambda: self._fleet.on_manager_gone(time.monotonic()))

    def close(self, keep: bool = False) -> None:
        """Cancel all jobs (or leave them where they are: ``keep``), and end the thread. Waits for that, which
        is as long as the batch system takes. Safe to call twice, and from several threads."""
        if self._thread.ident is None or threading.current_thread() is self._thread:
            return
        self.call(lambda: self._on_close(keep))
        self._thread.join(_CLOSE_TELL_S)
        if self._thread.is_alive():
            # Whoever is interrupted here should know what for.
            jobs = "its last command" if keep else "the end of the jobs"
            log.warning("%s: waiting for %s; if that is interrupted, some may stay", self._system.name, jobs)
            self._thread.join()

    # -- the thread ------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            while not self._closing:
                self._hear()
                self._turn()
        except Exception:
            log.exception("the supervisor of %s jobs failed; this is a bug in graphvine", self._system.name)
            self._fleet.on_close(time.monotonic())
            self._carry_out()
            raise

    def _hear(self) -> None:
        """Wait for a word, or until something is due; take all words that are there."""
        try:
            self._inbox.get(timeout=self._timeout_s())()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _timeout_s(self) -> float | None:
        times = [self._fleet.deadline(), self._scaler.deadline() if self._scaler is not None else None]
        due = min((time_s for time_s in times if time_s is not None), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _turn(self) -> None:
        if self._closing:
            return
        now = time.monotonic()
        if self._scaler is not None:
            most = self._scaler.policy.maximum
            target = self._scaler.target(self._fleet.have, now)
        else:
            target = most = self._count or 0
        self._fleet.on_target(target, most, now, self._busy())
        if target != self.status.target:
            self._publish(target)  # a batch command may take minutes
        self._carry_out()
        self._publish(target)

    def _busy(self) -> int:
        """For how many workers there is something to do now."""
        if self._fleet.idle_s is None:
            return 0
        size = self._scaler.size if self._scaler is not None else _size(self._spec, self._tasks_per_worker)
        return math.ceil(need_of(self._wanted, size, 1.0).width)

    def _carry_out(self) -> None:
        # What comes of one instruction may ask for the next.
        while instructions := self._fleet.turn(time.monotonic()):
            for instruction in instructions:
                self._do(instruction)

    def _publish(self, target: int) -> None:
        jobs = self._fleet.describe(time.monotonic())
        counts = dict(Counter(job.state for job in jobs))
        self.status = ClusterStatus(target, self._fleet.submitted, counts, jobs, self._trouble())

    def _trouble(self) -> str:
        lack = self._fleet.lack()
        if lack is None:
            rest = self._fleet.at_rest
            return f"{rest} had nothing to do and left; others come when there is work" if rest else ""
        why, at = lack
        text = "; ".join(line.strip() for line in why.splitlines())
        if at == math.inf:
            return text
        # By the clock: who reads it may do so later.
        due = time.time() + max(0.0, at - time.monotonic())
        return f"{text} (next try at {time.strftime('%H:%M:%S', time.localtime(due))})"

    # -- words -----------------------------------------------------------------------------------------

    def _on_wish(self, count: int | None, policy: Policy | None) -> None:
        self._fleet.on_wish()
        self._count = count
        size = _size(self._spec, self._tasks_per_worker)
        self._scaler = None if policy is None else Scaler(policy, size)
        self._look_at(self._wanted)

    def _on_replan(self, spec: WorkerSpec, limits: Limits, policy: Policy, tasks_per_worker: int) -> None:
        self._spec, self._tasks_per_worker = spec, tasks_per_worker
        self._fleet.on_limits(limits)
        self._fleet.idle_s = spec.idle_s
        self._on_wish(None, policy)

    def _on_demand(self, demand: Demand) -> None:
        ours = self._ours(demand.workers)
        self._fleet.on_workers(ours, time.monotonic())
        if self._scaler is not None:
            self._scaler.on_workers(ours)
        self._look_at(demand.wanted)

    def _look_at(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = wanted
        if self._scaler is None:
            return
        self._scaler.on_demand(wanted)
        for misfit in self._scaler.misfits:
            self._tell_once(describe_misfit(misfit, self._scaler.size))

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)

    def _marked(self, spec: WorkerSpec) -> WorkerSpec:
        """The spec of workers that say that they are ours."""
        return msgspec.structs.replace(spec, worker_options=(*spec.worker_options, "--fleet", self.token))

    def _ours(self, news: Sequence[WorkerNews]) -> list[WorkerNews]:
        """News of our own workers, by the names that the batch system has for their jobs."""
        prefix = self.token + ":"
        return [
            msgspec.structs.replace(worker, job=worker.job[len(prefix) :])
            for worker in news
            if worker.job.startswith(prefix)
        ]

    def _on_close(self, keep: bool) -> None:
        if self._closing:
            return
        self._closing = True
        if keep:
            return
        self._fleet.on_close(time.monotonic())
        self._carry_out()
        self._see_them_end()
        self._publish(0)

    def _see_them_end(self) -> None:
        """Wait until the batch system says that all jobs are over. What could not be cancelled is cancelled
        again: it may be back in a moment."""
        end, pause_s = time.monotonic() + self._close_s, _CLOSE_ASK_S
        while self._fleet.jobs:
            self._do(Ask(tuple(self._fleet.jobs)))
            self._carry_out()
            if not self._fleet.jobs or time.monotonic() + pause_s > end:
                break
            # Nothing tells when a batch job is over.
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _CLOSE_ASK_MOST_S)
            if self._refused:
                self._fleet.on_close(time.monotonic())
                self._carry_out()
        if self._fleet.jobs:
            self._tell_what_is_left(list(self._fleet.jobs))

    def _tell_what_is_left(self, jobs: Sequence[str]) -> None:
        _, remove = by_hand(self._system, jobs)
        number = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
        advice = f": remove what is left with: {remove}" if remove else f": {', '.join(jobs[:20])}"
        if self._refused:
            log.error("%s: %s could not be cancelled%s", self._system.name, number, advice)
        else:
            log.warning(
                "%s has not ended %s yet that it was told to cancel%s", self._system.name, number, advice
            )

    # -- what is to be done ----------------------------------------------------------------------------

    def _do(self, instruction: Instruction) -> None:
        if isinstance(instruction, Submit):
            self._submit(instruction.count)
        elif isinstance(instruction, Cancel):
            self._cancel(instruction.jobs)
        elif isinstance(instruction, Retire):
            names = [f"{self.token}:{job}" for job in instruction.jobs]
            self._employer.retire(*names, reason="there is nothing to do for it")
        elif isinstance(instruction, Ask):
            self._ask(instruction.jobs)
        elif isinstance(instruction, Read):
            self._read(instruction)
        else:
            assert isinstance(instruction, Say)
            log.log(_LOG_LEVELS[instruction.level], "%s: %s", self._system.name, instruction.text)

    def _submit(self, count: int) -> None:
        self._serial += 1
        directory = self._directory / f"{_SUBMISSION}{self._serial}"
        try:
            self._renew()
            for text in look_at(self._spec):
                self._tell_once(text)
            directory.mkdir()
            submission = self._system.submit(self._spec, count, directory)
        except (DeployError, OSError) as error:
            # A manager that closes removes its connection file, and then its clusters' jobs.
            closes = bool(self._spec.connection_file) and not os.path.exists(self._spec.connection_file)
            self._fleet.on_submit_failed(str(error), time.monotonic(), passing=closes)
        else:
            self._fleet.on_submitted(submission.jobs, time.monotonic())

    def _cancel(self, jobs: Sequence[str]) -> None:
        failed = ""
        try:
            self._system.cancel(jobs)
        except (DeployError, OSError) as error:
            failed = str(error)
        self._refused = failed
        self._fleet.on_cancelled(jobs, failed, time.monotonic())

    def _renew(self) -> None:
        """Jobs find what is renewed here, where they see the directories of submissions, or the batch system
        brings it to them."""
        self._renewals.look(self._spec, list(self._directory.glob(f"{_SUBMISSION}*")))

    def _ask(self, jobs: Sequence[str]) -> None:
        # Nobody tells that a proxy was renewed; but this comes again and again.
        self._renew()
        try:
            statuses = self._system.status(jobs)
        except (DeployError, OSError) as error:
            self._fleet.on_status_failed(str(error), time.monotonic())
        else:
            self._fleet.on_status(statuses, time.monotonic())

    def _read(self, read: Read) -> None:
        try:
            text = self._system.output(read.job)
        except (DeployError, OSError) as error:
            text = f"(it can't be read: {error})"
        self._fleet.on_output(read, text, time.monotonic())


def _size(spec: WorkerSpec, tasks_per_worker: int) -> Size:
    memory = None if spec.memory_mb is None else float(spec.memory_mb)
    disk = None if spec.disk_mb is None else float(spec.disk_mb)
    return Size(spec.cores, memory, disk, float(spec.gpus), spec.features, tasks_per_worker)


def describe_misfit(wanted: Wanted, size: Size) -> str:
    """Why these tasks will never run on workers of this kind."""
    asked = wanted.request
    parts = [f"{asked.cores:g} cores"] if asked.cores else []
    parts += [f"{asked.memory_mb:.0f} MB of memory"] if asked.memory_mb else []
    parts += [f"{asked.disk_mb:.0f} MB of disk"] if asked.disk_mb else []
    parts += [f"{asked.gpus:g} gpus"] if asked.gpus else []
    parts += [f"the feature {name}" for name in wanted.features]
    there = [f"{size.cores:g} cores"]
    there += [f"{size.memory_mb:.0f} MB of memory"] if size.memory_mb is not None else []
    there += [f"{size.disk_mb:.0f} MB of disk"] if size.disk_mb is not None else []
    there += [f"{size.gpus:g} gpus"]
    there += [f"the feature {name}" for name in size.features]
    return (
        f"tasks ask for {', '.join(parts)}, and a worker of this cluster has {', '.join(there)}: "
        "no worker is started for them; ask for larger ones (cores=, memory=, disk=, gpus=, features=)"
    )
