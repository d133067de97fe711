"""A make-believe batch system and manager around a fleet: jobs that do what a test makes them do."""

from __future__ import annotations

from graphvine.deploy.batch import JobState, JobStatus
from graphvine.deploy.fleet import Fleet, Limits
from graphvine.deploy.jobs import Ask, Cancel, Instruction, Read, Retire, Say, Submit
from graphvine.protocol.messages import WorkerNews


class BatchJob:
    """What the batch system knows of one job."""

    def __init__(self) -> None:
        self.state = JobState.PENDING
        self.reason = ""
        self.exit_code: int | None = None
        self.worker = 0
        self.busy = False
        self.idle_since = 0.0
        self.cancelled = False


class MakeBelieve:
    """Carries out what a fleet wants; keeps what it said. Looks at its invariants after every turn."""

    def __init__(self, limits: Limits | None = None, idle_s: float | None = None) -> None:
        self.fleet = Fleet(limits or Limits(), idle_s)
        self.now = 0.0
        self.jobs: dict[str, BatchJob] = {}
        self.most = 0
        self.target = 0
        self.said: list[Say] = []
        self.submissions: list[tuple[float, int]] = []
        self.retired: list[str] = []
        self.asked = 0
        self.refuses = False
        """It takes no jobs."""
        self.room = 1_000_000
        """It takes no more jobs of one user."""
        self.deaf = False
        """It answers no questions and cancels nothing."""
        self.slow_to_cancel = False
        self._serial = 0
        self._workers = 0

    # -- what is wanted --------------------------------------------------------------------------------

    def want(self, count: int, most: int | None = None, busy: int = 0) -> None:
        self.target, self.most = count, max(count if most is None else most, 0)
        self.fleet.on_target(count, self.most, self.now, busy)
        self.turn()

    def turn(self) -> None:
        for _ in range(1000):
            instructions = self.fleet.turn(self.now)
            if not instructions:
                break
            for instruction in instructions:
                self._do(instruction)
        else:
            raise AssertionError("it never has enough")
        self.check()

    def wait(self, seconds: float) -> None:
        """Time passes; whatever is due happens when it is due."""
        end = self.now + seconds
        for _ in range(10_000):
            due = self.fleet.deadline()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.turn()
        else:
            raise AssertionError("it is never at rest")
        self.now = end

    def settle(self) -> None:
        """So long that every question that may come has come."""
        self.wait(1000.0)

    # -- what jobs do ----------------------------------------------------------------------------------

    @property
    def alive(self) -> dict[str, BatchJob]:
        return {name: job for name, job in self.jobs.items() if not job.state.is_over}

    def in_state(self, state: JobState) -> list[str]:
        return [name for name, job in self.jobs.items() if job.state is state]

    def start(self, name: str) -> None:
        if self.jobs[name].state is JobState.PENDING:
            self.jobs[name].state = JobState.RUNNING

    def connect(self, name: str, busy: bool = False) -> None:
        """The job starts, and its worker joins."""
        job = self.jobs[name]
        job.state = JobState.RUNNING
        if not job.worker:
            self._workers += 1
            job.worker = self._workers
        self.rest(name, busy)

    def rest(self, name: str, busy: bool = False) -> None:
        """A worker has nothing to do, or something."""
        job = self.jobs[name]
        job.busy, job.idle_since = busy, self.now
        self._tell(name, gone=False)

    def disconnect(self, name: str) -> None:
        """The manager loses a worker."""
        if self.jobs[name].worker:
            self._tell(name, gone=True)
            self.jobs[name].worker = 0

    def end(self, name: str, code: int = 0, state: JobState = JobState.FINISHED, reason: str = "") -> None:
        """The job ends, and with it its worker."""
        self.disconnect(name)
        job = self.jobs[name]
        job.state, job.exit_code, job.reason = state, code, reason

    def hold(self, name: str, reason: str) -> None:
        self.disconnect(name)
        self.jobs[name].state, self.jobs[name].reason = JobState.HELD, reason

    def evict(self, name: str) -> None:
        """It waits again, as the same job."""
        self.disconnect(name)
        self.jobs[name].state = JobState.PENDING

    def _tell(self, name: str, gone: bool) -> None:
        job = self.jobs[name]
        idle_s = -1.0 if job.busy else self.now - job.idle_since
        news = WorkerNews(job.worker, name, f"worker-{name}", f"node-{name}", 1.0, idle_s, gone)
        self.fleet.on_workers([news], self.now)

    # -- what the fleet has done -----------------------------------------------------------------------

    def _do(self, instruction: Instruction) -> None:
        if isinstance(instruction, Submit):
            self._submit(instruction.count)
        elif isinstance(instruction, Cancel):
            self._cancel(instruction.jobs)
        elif isinstance(instruction, Retire):
            for name in instruction.jobs:
                assert not self.jobs[name].busy, "a busy worker was sent away"
                self.retired.append(name)
        elif isinstance(instruction, Ask):
            self._answer(instruction.jobs)
        elif isinstance(instruction, Read):
            self.fleet.on_output(instruction, f"output of {instruction.job}", self.now)
        else:
            self.said.append(instruction)

    def _submit(self, count: int) -> None:
        assert count > 0
        self.submissions.append((self.now, count))
        if self.refuses or len(self.alive) + count > self.room:
            self.fleet.on_submit_failed("the queue is closed", self.now)
            return
        names = [f"{self._serial + index}.0" for index in range(count)]
        self._serial += count
        self.jobs.update({name: BatchJob() for name in names})
        self.fleet.on_submitted(names, self.now)

    def _cancel(self, names: tuple[str, ...]) -> None:
        if self.deaf:
            self.fleet.on_cancelled(names, "no answer", self.now)
            return
        for name in names:
            self.jobs[name].cancelled = True
            if not self.slow_to_cancel and not self.jobs[name].state.is_over:
                self.end(name, state=JobState.REMOVED)
        self.fleet.on_cancelled(names, "", self.now)

    def _answer(self, names: tuple[str, ...]) -> None:
        self.asked += 1
        if self.deaf:
            self.fleet.on_status_failed("no answer", self.now)
            return
        statuses = [
            JobStatus(name, self.jobs[name].state, self.jobs[name].reason, self.jobs[name].exit_code)
            for name in names
        ]
        self.fleet.on_status(statuses, self.now)

    # -- what must always hold -------------------------------------------------------------------------

    def check(self) -> None:
        known = set(self.fleet.jobs)
        lost = set(self.alive) - known
        assert not lost, f"nobody keeps track of {lost}"
        told = {name for name, job in self.jobs.items() if job.worker}
        assert {job.name for job in self.fleet.jobs.values() if job.worker} == told & known

    def texts(self, level: str = "") -> list[str]:
        return [said.text for said in self.said if level in ("", said.level)]
