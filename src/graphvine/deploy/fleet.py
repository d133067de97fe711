"""The jobs of one cluster: what is there, what is on its way, what became of the rest. Does no I/O.

Events come in as ``on_*`` with the time; what is to be done comes out of ``turn``; the supervisor does it,
and hands back what came of it. Rules:

- Of all jobs that may live (submitted, not known to be over) there are never more than the limit that came
  with the target. Jobs that are short of the target are submitted in one go.
- A job is *connected* while the manager knows a worker that says it is that job. Nobody asks the batch system
  about a job that is connected more often than about whether it still exists.
- Too many: first those that have not started are cancelled, then those that have not connected, then workers
  that have been idle for longest are retired (the manager has them leave). Busy ones never.
- A job that was held, or was over before it had connected, or soon after, has *failed*; held ones are
  cancelled. After failures in a row the next try waits, twice as long each time, until every other job that
  has not connected has told how it goes, and is a single job, until one connects. And of all that fail in a
  while only so many are replaced. So a black hole costs a bounded number of submissions.
- A submission that was refused is tried again, later and by half, until one is taken; then with more again:
  many sites let a user have only so many jobs in the queue.
- What was cancelled is ours until the batch system says that it is over; it is cancelled again if need be.
  What it can't get rid of (the node is dead) does not keep others from taking its place, once.
- A batch system that knows nothing of a job may be wrong: a tool that prints nothing, a daemon that has just
  been started. So that is believed when it is said twice, or where it was to be expected, and never of a job
  that is connected. A worker that says it is a job of ours is one, even if nobody told of that job.
- Workers that left by themselves, as there was nothing to do for them (``idle_s``), are missed only when
  there is something to do: until then they are *at rest*, and count as if they were there.
- What went wrong is said once for each reason, with the end of the job's own output.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from graphvine.deploy.batch import JobState, JobStatus
from graphvine.deploy.jobs import Ask, Cancel, Instruction, Job, JobInfo, Read, Retire, Say, Submit
from graphvine.protocol.messages import WorkerNews


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    ask_s: float = 5.0
    """The batch system is asked so soon after something changed; then less and less often ..."""
    ask_most_s: float = 60.0
    """... down to this, while jobs are awaited; when all are connected:"""
    ask_calm_s: float = 300.0
    first_wait_s: float = 5.0
    """After the first failure the next try waits so long."""
    longest_wait_s: float = 300.0
    short_s: float = 30.0
    """A worker that was connected for less, and was not sent away, has failed."""
    window_s: float = 600.0
    """In so long at most ``fails`` failed jobs are replaced, or twice as many as are wanted."""
    fails: int = 10
    again_s: float = 30.0
    """What was cancelled and is still there after so long is cancelled again."""
    cancels: int = 4
    """What was cancelled so often, without complaint, is not waited for before others are submitted."""
    leave_s: float = 60.0
    """A retired worker that is still there after so long counts as one of us again."""
    gone_s: float = 60.0
    """A job whose worker the manager has lost is cancelled after so long, if it still runs (or after twice as
    long as it took to connect: it may have been started again)."""
    start_s: float = 120.0
    """After so long without any start there is a warning; the next one after twice as long, and so on."""
    connect_s: float = 60.0
    """A job that runs and has not connected after so long is explained."""
    per_cycle: int = 0
    """In each ``cycle_s`` at most so many jobs are submitted; 0: any number."""
    cycle_s: float = 30.0
    per_submission: int = 1000
    """So many jobs are submitted at once."""


class Fleet:
    """See the module. Times are those of any clock that does not go back."""

    def __init__(self, limits: Limits, idle_s: float | None = None) -> None:
        """``idle_s``: workers that had nothing to do for so long leave by themselves."""
        self._limits = limits
        self.idle_s = idle_s
        self.jobs: dict[str, Job] = {}
        self._target = 0
        self._most = 0
        self._closing = False
        self._submitting = 0
        #: A submission that was refused is tried again by half: there may be a limit for each user.
        self._portion = math.inf
        self.at_rest = 0
        """Workers that have left, and are to come back when there is something to do."""
        #: Workers that said they are jobs that we do not know (yet).
        self._early: dict[str, WorkerNews] = {}
        #: Jobs that are over for certain, and those that are said to be gone.
        self._over: set[str] = set()
        self._gone: set[str] = set()
        self._out: list[Instruction] = []
        self._ask_at: float | None = None
        self._ask_every = limits.ask_s
        self._asking = False
        #: Failures in a row, and until when the next try waits; when each of the last ones was.
        self._row = 0
        self._doubtful = False
        """Jobs failed, and none has connected since."""
        self._not_before = float("-inf")
        self._failures: deque[float] = deque()
        #: Submissions of this cycle: when it began, and how many jobs.
        self._cycle_at = float("-inf")
        self._cycle = 0
        self._trouble = ""
        """What went wrong last, if nothing has gone well since."""
        self._said: dict[str, float] = {}
        self._waiting_since: float | None = None
        self._start_warning_s = limits.start_s
        self.submitted = 0
        """Jobs in all."""
        self._now = 0.0

    # -- what is wanted --------------------------------------------------------------------------------

    @property
    def alive(self) -> int:
        """Jobs that may live, and those being submitted."""
        return len(self.jobs) + self._submitting

    @property
    def have(self) -> int:
        """Jobs that are workers, or are to become some; with those at rest."""
        return sum(job.active for job in self.jobs.values()) + self._submitting + self.at_rest

    @property
    def _room(self) -> int:
        """How many more jobs there may be."""
        stuck = sum(job.cancels >= self._limits.cancels and not job.worker for job in self.jobs.values())
        return min(self._most + stuck, 2 * self._most) - self.alive

    def on_target(self, count: int, most: int, now: float, busy: int = 0) -> None:
        """So many workers are wanted, and there may never be more than ``most`` jobs. ``busy``: for so many
        there is something to do."""
        self._now = now
        self._target, self._most = min(count, most), most
        self.at_rest = min(self.at_rest, max(0, self._target - busy))

    def on_limits(self, limits: Limits) -> None:
        """From now on this patient."""
        self._limits = limits

    def on_wish(self) -> None:
        """The user wants something else now: whatever failed before, try again at once."""
        self._forgive()
        self._portion = math.inf
        self.at_rest = 0
        self._failures.clear()
        self._said.clear()

    def on_close(self, now: float) -> None:
        """Cancel everything; what is being submitted is cancelled as soon as it is known."""
        self._now, self._closing, self._target = now, True, 0
        self._cancel(list(self.jobs.values()))
        if self._gone:
            self._out.append(Cancel(tuple(sorted(self._gone))))

    # -- what the batch system says --------------------------------------------------------------------

    def on_submitted(self, jobs: Sequence[str], now: float) -> None:
        """These jobs are there now."""
        self._now, self._submitting = now, 0
        self._portion *= 2
        self.submitted += len(jobs)
        for name in jobs:
            self.jobs[name] = Job(name, now)
        self._take_in_early()
        self._hurry()
        if self._closing:
            self._cancel(list(self.jobs.values()))

    def on_submit_failed(self, text: str, now: float, *, passing: bool = False) -> None:
        """The batch system took none. ``passing``: probably because all is about to end; that is said when it
        happens again."""
        self._portion = max(1, self._submitting // 2)
        self._now, self._submitting = now, 0
        self._take_in_early()
        self._wait()
        self._trouble = f"workers can't be submitted: {text}"
        if not passing or self._row > 1:
            self._say_once("error", self._trouble, key=_kind(text))

    def on_status(self, statuses: Iterable[JobStatus], now: float) -> None:
        """What the batch system knows of jobs it was asked about."""
        self._now, self._asking = now, False
        changed = False
        for status in statuses:
            job = self.jobs.get(status.job)
            if job is not None:
                changed = self._on_job(job, status) or changed
        self._ask_every = (
            self._limits.ask_s if changed else min(self._ask_every * 1.5, self._limits.ask_most_s)
        )
        self._plan_ask()
        self._warn_if_nothing_starts()

    def on_status_failed(self, text: str, now: float) -> None:
        """The batch system could not be asked."""
        self._now, self._asking = now, False
        self._ask_every = min(self._ask_every * 2, self._limits.ask_most_s)
        self._plan_ask()
        self._say_once("warning", f"the batch system can't be asked about its jobs: {text}", key=_kind(text))

    def on_cancelled(self, jobs: Sequence[str], error: str, now: float) -> None:
        """These were cancelled; ``error``: why not, if it failed."""
        self._now = now
        if error:
            self._say_once("warning", f"jobs can't be cancelled: {error}", key=_kind(error))
        else:
            self._count_cancels(jobs)
        self._hurry()

    def _count_cancels(self, names: Iterable[str]) -> None:
        for job in [self.jobs[name] for name in names if name in self.jobs]:
            job.cancels += 1
            if job.cancels == self._limits.cancels and not job.worker:
                text = f"job {job.name} was cancelled {job.cancels} times and is still there"
                self._say_once("warning", f"{text}; another one may take its place", key="stuck")

    def on_output(self, read: Read, text: str, now: float) -> None:
        """The end of a job's output."""
        self._now = now
        said = text.strip()
        told = f"its output ends with:\n{said}" if said else "it has left no output"
        self._out.append(Say("warning", f"{read.why}; {told}"))

    def _on_job(self, job: Job, status: JobStatus) -> bool:
        """What is known of one job. Returns whether that is new."""
        changed = status.state is not job.state
        job.host = status.host or job.host
        if status.state is JobState.GONE and self._is_doubtful(job):
            return not job.worker  # then it is asked about again soon
        job.reason, job.missing = status.reason, False
        if status.state.is_over:
            self._on_over(job, status)
            return True
        job.state = status.state
        if status.state is JobState.RUNNING:
            if job.running_at is None:
                job.running_at = self._now
            self._look_at_running(job)
        else:
            job.restarts = job.restarts or job.lost_at is not None
            job.running_at = job.lost_at = None
        if status.state is JobState.HELD and changed:
            self._on_held(job)
        if status.state is not JobState.RUNNING and job.leaving_at is not None and not job.worker:
            # It was put back, or aside, as it left.
            self._cancel([job] if job.cancelled_at is None else [])
        return changed

    def _is_doubtful(self, job: Job) -> bool:
        """Whether to wait for another word about a job that is said to be gone."""
        if job.cancelled_at is not None or job.lost_at is not None:
            return False
        said_before, job.missing = job.missing, True
        return bool(job.worker) or not said_before

    def _on_over(self, job: Job, status: JobStatus) -> None:
        """A job has ended."""
        del self.jobs[job.name]
        (self._gone if status.state is JobState.GONE else self._over).add(job.name)
        if job.leaving_at is not None or self._closing:
            return
        if not status.exit_code and self._has_idled(job):
            self.at_rest += 1  # the batch system was quicker to tell than the manager
            return
        since = job.connected_at
        if since is not None and (job.lost_at or self._now) - since >= self._limits.short_s:
            return
        self._failed()
        how = {JobState.FINISHED: "has ended", JobState.REMOVED: "was removed"}.get(status.state, "is gone")
        if status.exit_code:
            how += f" with exit code {status.exit_code}"
        if status.reason and status.reason not in how:
            how += f" ({status.reason})"
        when = "without having joined the manager" if since is None else "soon after it had joined"
        host = f" on {job.host}" if job.host else ""
        self._trouble = f"job {job.name}{host} {how}, {when}"
        if self._news(f"over {status.state} {status.exit_code} {since is None} {_kind(status.reason)}"):
            self._out.append(Read(job.name, self._trouble))

    def _on_held(self, job: Job) -> None:
        """A job was put aside: it is of no use to us."""
        if job.leaving_at is None:
            self._failed()
            reason = job.reason or "no reason given"
            self._trouble = f"job {job.name} is held: {reason}"
            self._say_once("warning", f"{self._trouble}; it is removed", key=_kind(reason))
            self._cancel([job])

    def _look_at_running(self, job: Job) -> None:
        """A job that runs should connect."""
        assert job.running_at is not None
        if job.worker or job.cancelled_at is not None:
            return
        patience_s = max(self._limits.gone_s, 2 * job.start_s)
        if job.lost_at is not None and self._now - max(job.lost_at, job.running_at) >= patience_s:
            self._say_once("warning", f"job {job.name} runs and is no worker any more: it is removed")
            self._cancel([job])
        elif (job.connected_at is None or job.restarts) and not job.explained:
            seconds = self._now - job.running_at
            if seconds >= self._limits.connect_s:
                job.explained = True
                host = f" on {job.host}" if job.host else ""
                if self._news("no join"):
                    why = f"job {job.name} has been running{host} for {seconds:.0f} s and has not joined"
                    self._out.append(Read(job.name, why))

    def _warn_if_nothing_starts(self) -> None:
        """Nothing of what was submitted has started for a while."""
        pending = [job for job in self.jobs.values() if job.state is JobState.PENDING and job.active]
        if not pending or len(pending) < len(self.jobs):
            self._waiting_since, self._start_warning_s = None, self._limits.start_s
            return
        if self._waiting_since is None:
            never = all(job.connected_at is None for job in pending)
            self._waiting_since = min(job.submitted_at for job in pending) if never else self._now
        seconds = self._now - self._waiting_since
        if seconds >= self._start_warning_s:
            self._start_warning_s = 2 * seconds
            reasons = dict.fromkeys(job.reason for job in pending if job.reason)
            why = "; ".join(list(reasons)[:3]) or "the batch system gives no reason"
            text = f"no worker has started for {seconds:.0f} s: {_count(pending)} pending ({why})"
            self._out.append(Say("warning", text))

    # -- what the manager says -------------------------------------------------------------------------

    def on_workers(self, news: Iterable[WorkerNews], now: float) -> None:
        """Workers of ours came, went, or ran out of work. Their jobs are named as the batch system does."""
        self._now = now
        for worker in news:
            job = self.jobs.get(worker.job)
            if job is not None:
                self._on_worker(job, worker)
            elif worker.gone:
                self._early.pop(worker.job, None)
            elif worker.job not in self._over:
                self._early[worker.job] = worker
        if not self._submitting:
            self._take_in_early()

    def _take_in_early(self) -> None:
        """Workers whose jobs were not known when they came: by now they are, or nobody will tell of them."""
        early, self._early = self._early, {}
        for name, worker in early.items():
            self._gone.discard(name)
            self._on_worker(self.jobs.setdefault(name, Job(name, self._now)), worker)

    def _on_worker(self, job: Job, worker: WorkerNews) -> None:
        if not worker.gone:
            if job.worker != worker.worker:
                self._on_connected(job, worker)
            job.idle_since = None if worker.idle_s < 0 else self._now - worker.idle_s
        elif job.worker == worker.worker:
            if self._has_idled(job):
                job.leaving_at = self._now
                self.at_rest += 1
            job.worker, job.idle_since, job.lost_at = 0, None, self._now
            self._hurry()

    def _has_idled(self, job: Job) -> bool:
        """Whether a worker that is gone has left as there was nothing to do (from when it knew of that)."""
        if self.idle_s is None or job.idle_since is None or job.leaving_at is not None:
            return False
        return self._now - job.idle_since >= self.idle_s / 2

    def _on_connected(self, job: Job, worker: WorkerNews) -> None:
        job.worker, job.worker_name, job.host = worker.worker, worker.name, worker.host
        job.state, job.reason, job.lost_at = JobState.RUNNING, "", None
        if job.running_at is None:
            job.running_at = self._now
        if job.connected_at is None:
            job.connected_at, job.start_s = self._now, self._now - job.running_at
            self._forgive()
        job.restarts = False
        self._plan_ask()

    def on_manager_gone(self, now: float) -> None:
        """Nothing is known of any worker any more."""
        self._now = now
        self._early.clear()
        for job in self.jobs.values():
            if job.worker:
                job.worker, job.idle_since, job.lost_at = 0, None, now

    # -- deciding --------------------------------------------------------------------------------------

    def turn(self, now: float) -> list[Instruction]:
        """What is to be done now."""
        self._now = now
        self._cancel([job for job in self.jobs.values() if self._lingers(job)])
        if not self._closing:
            self._take_back()
            surplus = self.have - self._target
            awake = min(self.at_rest, max(0, surplus))
            self.at_rest, surplus = self.at_rest - awake, surplus - awake
            if surplus > 0:
                self._let_go(surplus)
            elif surplus < 0:
                self._submit(-surplus)
        if self._ask_at is not None and now >= self._ask_at and not self._asking and self.jobs:
            self._asking, self._ask_at = True, None
            self._out.append(Ask(tuple(self.jobs)))
        out, self._out = self._out, []
        return out

    def deadline(self) -> float | None:
        """When ``turn`` is next to be called though nothing happened."""
        limits = self._limits
        times = [] if self._ask_at is None or not self.jobs else [self._ask_at]
        if not self._closing and self._may_submit():
            times.append(self._may_submit_at())
        for job in self.jobs.values():
            if job.cancelled_at is not None:
                times.append(job.cancelled_at + limits.again_s)
            elif job.leaving_at is not None and job.worker:
                times.append(job.leaving_at + limits.leave_s)
        return min(times, default=None)

    def _lingers(self, job: Job) -> bool:
        """Whether a job was cancelled, and is still there."""
        return job.cancelled_at is not None and self._now >= job.cancelled_at + self._limits.again_s

    def _take_back(self) -> None:
        """Workers that were to leave and cannot are ours again."""
        for job in self.jobs.values():
            if job.leaving_at is None or job.cancelled_at is not None or not job.worker:
                continue
            if self._now >= job.leaving_at + self._limits.leave_s:
                job.leaving_at = None

    def _let_go(self, surplus: int) -> None:
        """Part with jobs that are not needed, those first that cost least."""
        active = [job for job in self.jobs.values() if job.active]
        fresh = [job for job in active if job.state is JobState.PENDING and not job.worker]
        starting = [job for job in active if job.running_at is not None and job.connected_at is None]
        chosen = (fresh[::-1] + starting[::-1])[:surplus]
        self._cancel(chosen)
        idle = [job for job in active if job.worker and job.idle_since is not None]
        idle.sort(key=lambda job: job.idle_since or 0.0)
        leaving = idle[: surplus - len(chosen)]
        for job in leaving:
            job.leaving_at = self._now
        if leaving:
            self._out.append(Retire(tuple(job.name for job in leaving)))
            self._hurry()

    def _may_submit(self) -> bool:
        """Whether jobs are missing that may be submitted when the time has come."""
        if self._submitting or self.have >= self._target or self._room <= 0:
            return False
        return not self._doubtful or all(
            job.connected_at is not None for job in self.jobs.values() if job.active
        )

    def _may_submit_at(self) -> float:
        """When the next jobs may be submitted."""
        cycle = float("-inf")
        if self._limits.per_cycle and self._cycle >= self._limits.per_cycle:
            cycle = self._cycle_at + self._limits.cycle_s
        return max(self._not_before, self._window_opens(), cycle)

    def _submit(self, count: int) -> None:
        if not self._may_submit():
            return
        if self._now < self._may_submit_at():
            self._warn_if_given_up()
            return
        limits = self._limits
        if self._now >= self._cycle_at + limits.cycle_s:
            self._cycle_at, self._cycle = self._now, 0
        # After a failure one job tries for all.
        most = min(self._room, limits.per_submission, self._portion)
        count = 1 if self._doubtful else math.ceil(min(count, most))
        if limits.per_cycle:
            count = min(count, limits.per_cycle - self._cycle)
        self._cycle += count
        self._submitting = count
        self._out.append(Submit(count))

    def _cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.cancelled_at = self._now
            job.leaving_at = self._now if job.leaving_at is None else job.leaving_at
        if jobs:
            self._out.append(Cancel(tuple(job.name for job in jobs)))
            self._hurry()

    # -- failures --------------------------------------------------------------------------------------

    def _failed(self) -> None:
        """A job was in vain."""
        self._failures.append(self._now)
        self._doubtful = True
        self._wait()

    def _wait(self) -> None:
        """Submit nothing for a while. What fails meanwhile does not make it longer."""
        if self._now >= self._not_before:
            wait_s = min(self._limits.first_wait_s * 2.0 ** min(self._row, 30), self._limits.longest_wait_s)
            self._row += 1
            self._not_before = self._now + wait_s

    def _forgive(self) -> None:
        self._row, self._doubtful, self._not_before, self._trouble = 0, False, float("-inf"), ""

    def _window_opens(self) -> float:
        """When the next failed job may be replaced."""
        while self._failures and self._now >= self._failures[0] + self._limits.window_s:
            self._failures.popleft()
        allowed = max(self._limits.fails, 2 * self._target)
        if len(self._failures) < allowed:
            return float("-inf")
        return self._failures[-allowed] + self._limits.window_s

    def _warn_if_given_up(self) -> None:
        """So much has failed that it will be a while before the next try."""
        opens = self._window_opens()
        if self._now < opens:
            text = (
                f"{len(self._failures)} jobs have failed in {self._limits.window_s:.0f} s: the next one is "
            )
            text += f"submitted in {opens - self._now:.0f} s, or when workers are asked for anew"
            self._say_once("error", text, key="given up")

    # -- asking ----------------------------------------------------------------------------------------

    def _hurry(self) -> None:
        """Something changed: what became of it is known soon."""
        self._ask_every = self._limits.ask_s
        self._plan_ask()

    def _plan_ask(self) -> None:
        calm = all(job.worker and job.leaving_at is None for job in self.jobs.values())
        due = self._now + (self._limits.ask_calm_s if calm else self._ask_every)
        self._ask_at = due if self._ask_at is None or calm else min(self._ask_at, due)

    # -- words -----------------------------------------------------------------------------------------

    def _say_once(self, level: Literal["info", "warning", "error"], text: str, key: str = "") -> None:
        if self._news(key or text):
            self._out.append(Say(level, text))

    def _news(self, key: str) -> bool:
        """Whether this was not said lately."""
        said = self._said.get(key)
        if said is not None and self._now - said < self._limits.window_s:
            return False
        self._said[key] = self._now
        return True

    def lack(self) -> tuple[str, float] | None:
        """Why workers are missing that nobody submits now, and when that is tried again (inf: nobody knows).
        None if nothing is missing, or nothing has gone wrong."""
        if self._closing or self._submitting or self.have >= self._target or not self._trouble:
            return None
        return self._trouble, self._may_submit_at() if self._may_submit() else float("inf")

    def describe(self, now: float) -> list[JobInfo]:
        """All jobs, as the user sees them."""
        return [job.info(now) for job in self.jobs.values()]


def _kind(reason: str) -> str:
    """A reason without what differs from job to job."""
    return "".join(character for character in reason if not character.isdigit())


def _count(jobs: Sequence[Job]) -> str:
    return "1 job is" if len(jobs) == 1 else f"{len(jobs)} jobs are"
