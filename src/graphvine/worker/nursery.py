"""The zygotes of a worker as its core sees them: which are ready, which are to be started or ended. No I/O.

- Contexts that state the same variables, environment and set-up share a zygote, named by a key. "" is the
  base zygote, which is always there; contexts that state nothing of that kind are served from it.
- A zygote is started when a context comes that needs it, or ready jobs of one that has none. Until it is
  ready, its lanes are held back; others run.
- A set-up that raises fails the jobs that wait for it, at once. One that takes its zygote down is tried a few
  times. For a while such a failure is the answer to all jobs that come; then it is tried again.
- A zygote in an environment needs that to be unpacked on this node. Is it not, then its archive is fetched
  like any file; the manager is asked for it, so that nothing moves where it is there already.
- The manager is told which are ready, and which are not any more, so that it gives this worker other work
  for as long.
- When there are more than a few, those that nobody needs are ended, the least recently used first.
"""

from __future__ import annotations

import msgspec

from graphvine.protocol.messages import Context, ContextNews, FailureKind, TaskFailed
from graphvine.protocol.zygotes import zygote_key
from graphvine.worker.crew import Crew
from graphvine.worker.files import STORED, Files
from graphvine.worker.instructions import EndZygote, FindEnvironment, Note, StartZygote, UnpackEnvironment
from graphvine.worker.outbox import Outbox
from graphvine.worker.settings import Settings
from graphvine.worker.tasks import Lane, Queue

#: States of a zygote: its environment is looked for, its archive fetched and unpacked; what its set-up needs
#: is fetched; it does its set-up.
ABSENT = 0
FINDING = 1
FETCHING = 2
UNPACKING = 3
GATHERING = 4
STARTING = 5
READY = 6


_LIBRARY = "library"


class Failure(msgspec.Struct, frozen=True):
    """Why a zygote could not be started, and until when that is the answer to whoever needs it."""

    kind: FailureKind
    text: str
    error: bytes
    until: float


class Zygote(msgspec.Struct):
    """One zygote. ``context``: one of those that need it, so that the loop finds what makes it."""

    key: str
    context: int
    title: str
    environment: int
    """The file that is its environment's archive, 0 when it needs none."""
    environment_name: str
    inputs: list[int]
    """The files that its set-up is given."""
    state: int = ABSENT
    used: int = 0
    """When it was last needed, as a count of all needs."""
    deaths: int = 0
    """How often in a row it died before it was ready."""
    false_starts: int = 0
    """How many of its executors in a row died before they were ready."""
    not_before: float = 0.0
    """Neither it nor an executor of it is started before this: the last ones did not come up."""
    unpacked: int = 0
    """The archive that is being unpacked."""
    failure: Failure | None = None
    told: bool = False
    """Whether the manager was told that it is ready."""


class Nursery:
    """All zygotes of a worker."""

    def __init__(self, settings: Settings, outbox: Outbox, queue: Queue, crew: Crew, files: Files) -> None:
        self._settings = settings
        self._outbox = outbox
        self._queue = queue
        self._files = files
        self._crew = crew
        self._uses = 0
        self._coming: list[str] = []
        """Zygotes whose contexts came in this turn."""
        self._fetching: list[Zygote] = []
        """Zygotes that wait for an archive."""
        self._gathering: list[Zygote] = []
        """Zygotes whose set-ups wait for what they are given."""
        self._zygotes = {"": Zygote("", 0, "the base zygote", 0, "", [], READY)}

    def __getitem__(self, key: str) -> Zygote:
        return self._zygotes[key]

    def learn(self, context: Context) -> str:
        """The key of the zygote that a context needs."""
        key = zygote_key(context)
        if key:
            self._coming.append(key)
            known = self._zygotes.get(key)
            if known is None:
                name = context.environment_name
                self._zygotes[key] = Zygote(
                    key, context.context, title_of(context), context.environment, name, context.inputs
                )
            else:
                # The same archive may have come with another plan, and the earlier one be gone.
                known.context, known.environment = context.context, context.environment
                self._tell(known)
        return key

    def lane_of(self, lane: Lane) -> Lane:
        """An order came for this lane."""
        if lane.zygote:
            self._uses += 1
            zygote = self._zygotes[lane.zygote]
            zygote.used = self._uses
            lane.held = zygote.state != READY
        return lane

    def is_paused(self, key: str, now: float) -> bool:
        """Whether no executor may be started from a zygote now."""
        return self._zygotes[key].not_before > now

    # -- what happens ----------------------------------------------------------------------------------

    def on_rejoin(self) -> None:
        """The manager knows nothing of this worker. What it needs, it says anew, and then it is told."""
        for zygote in self._zygotes.values():
            zygote.told = False

    def on_ready(self, key: str, duration_s: float) -> None:
        """A zygote has done its set-up."""
        zygote = self._zygotes[key]
        self._outbox.instructions.append(Note("info", f"{zygote.title} is ready, after {duration_s:.3f} s"))
        self._leave_inputs(zygote)
        zygote.state = READY
        zygote.deaths = 0
        zygote.not_before = 0.0
        self._tell(zygote)
        self._queue.hold(key, held=False)

    def on_failed(self, key: str, text: str, error: bytes, now: float) -> None:
        """The set-up of a zygote raised; the zygote is gone."""
        zygote = self._zygotes[key]
        self._set_absent(zygote)
        self._fail(zygote, "library", f"{zygote.title} could not be started: {text}", error, now)

    def on_died(self, key: str, cause: str, now: float) -> None:
        """A zygote is gone, and its executors with it, which was told before."""
        zygote = self._zygotes[key]
        if not key or zygote.state == ABSENT:
            return
        was_ready = zygote.state == READY
        self._end_unpacking(zygote)
        self._set_absent(zygote)
        zygote.not_before = now + self._settings.start_delay_s
        if was_ready:
            return
        zygote.deaths += 1
        if zygote.deaths >= self._settings.setup_tries:
            kind: FailureKind = "library" if zygote.title.startswith(_LIBRARY) else "environment"
            self._fail(zygote, kind, f"{zygote.title} could not be started: {cause}", b"", now)

    def on_environment_found(self, key: str, unpacked_s: float) -> None:
        """A zygote's environment is unpacked, which took so long (-1: it was already)."""
        zygote = self._zygotes[key]
        self._end_unpacking(zygote)
        if unpacked_s >= 0:
            text = f"unpacked environment {zygote.environment_name} in {unpacked_s:.1f} s"
        else:
            text = f"environment {zygote.environment_name} is unpacked on this node already"
        self._outbox.instructions.append(Note("info", text))
        self._start(zygote)

    def on_environment_absent(self, key: str) -> None:
        """A zygote's environment is to be unpacked first."""
        zygote = self._zygotes[key]
        zygote.state = FETCHING
        self._fetching.append(zygote)

    def on_environment_unusable(self, key: str, reason: str, now: float) -> None:
        """A zygote's environment cannot be used on this node."""
        zygote = self._zygotes[key]
        self._end_unpacking(zygote)
        self._set_absent(zygote)
        text = f"environment {zygote.environment_name} cannot be used: {reason}"
        self._fail(zygote, "environment", text, b"", now)

    def _end_unpacking(self, zygote: Zygote) -> None:
        if zygote.state == UNPACKING:
            self._files.unpin([zygote.unpacked])

    def _leave_inputs(self, zygote: Zygote) -> None:
        """Its set-up does not read them any more."""
        if zygote.state == STARTING:
            self._files.unpin(zygote.inputs)

    def _set_absent(self, zygote: Zygote) -> None:
        for waiting in (self._fetching, self._gathering):
            if zygote in waiting:
                waiting.remove(zygote)
        self._leave_inputs(zygote)
        zygote.state = ABSENT
        self._tell(zygote)
        self._queue.hold(zygote.key, held=True)

    def _tell(self, zygote: Zygote) -> None:
        """Have the manager know whether it is ready."""
        ready = zygote.state == READY
        if zygote.told != ready:
            zygote.told = ready
            self._outbox.contexts.append(ContextNews(zygote.context, ready))

    def _fail(self, zygote: Zygote, kind: FailureKind, text: str, error: bytes, now: float) -> None:
        zygote.failure = Failure(kind, text, error, now + self._settings.failure_kept_s)
        zygote.deaths = 0
        self._outbox.instructions.append(Note("error", text))

    # -- what is to be done ----------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Start what held jobs wait for, or fail them."""
        held = self._queue.held
        if self._fetching:
            self._unpack_what_came(now)
        if self._gathering:
            waiting, self._gathering = self._gathering, []
            for zygote in waiting:
                self._start(zygote)
        if not held and not self._coming:
            return
        for key in self._coming:
            self._bring(self._zygotes[key], now)
        self._coming.clear()
        for lane in held:
            if lane.size:
                self._bring(self._zygotes[lane.zygote], now)
        for lane in held:
            failure = self._zygotes[lane.zygote].failure
            if lane.size and failure is not None:
                self._fail_jobs(lane, failure)
            lane.listed = lane.size > 0
        self._queue.held = [lane for lane in held if lane.listed]

    def _bring(self, zygote: Zygote, now: float) -> None:
        if zygote.failure is not None and zygote.failure.until <= now:
            zygote.failure = None
        if zygote.state == ABSENT and zygote.failure is None and zygote.not_before <= now:
            self._uses += 1
            zygote.used = self._uses
            if zygote.environment:
                zygote.state = FINDING
                self._outbox.instructions.append(FindEnvironment(zygote.key, zygote.environment_name))
            else:
                self._start(zygote)

    def _start(self, zygote: Zygote) -> None:
        """Start it, as soon as all is here that its set-up is given."""
        held = self._files.held
        lacking = [file for file in zygote.inputs if file not in held]
        for file in lacking:
            if not self._files.is_coming(file):
                self._files.report_missing(file, f"it is not here, and {zygote.title} needs it")
        if lacking:
            zygote.state = GATHERING
            self._gathering.append(zygote)
            return
        zygote.state = STARTING
        self._files.pin(zygote.inputs)
        given = [(file, held[file]) for file in zygote.inputs]
        self._outbox.instructions.append(StartZygote(zygote.key, zygote.context, given))
        self._end_idle()

    def _unpack_what_came(self, now: float) -> None:
        """Have archives unpacked that are here, and ask for those that are not coming."""
        files, waiting = self._files, self._fetching
        self._fetching = []
        for zygote in waiting:
            file = zygote.environment
            if files.held.get(file) == STORED:
                zygote.state, zygote.unpacked = UNPACKING, file
                files.pin([file])
                self._outbox.instructions.append(UnpackEnvironment(zygote.key, file))
                continue
            if file in files.held:
                self.on_environment_unusable(zygote.key, "it is a value, not a file", now)
                continue
            self._fetching.append(zygote)
            if not files.is_coming(file):
                files.report_missing(file, f"environment {zygote.environment_name} is not unpacked here")

    def _fail_jobs(self, lane: Lane, failure: Failure) -> None:
        for job in self._queue.drain(lane):
            order = job.order
            failed = TaskFailed(order.task, order.attempt, failure.kind, failure.text, failure.error)
            self._outbox.failed.append(failed)

    def _end_idle(self) -> None:
        """End zygotes that nobody needs, when there are too many."""
        alive = [zygote for zygote in self._zygotes.values() if zygote.key and zygote.state == READY]
        excess = len(alive) + 1 - self._settings.zygotes
        if excess <= 0:
            return
        needed = {job.lane.zygote for job in self._queue.jobs.values()}
        needed.update(executor.zygote for executor in self._crew.executors.values() if executor.bundles)
        idle = sorted((zygote for zygote in alive if zygote.key not in needed), key=lambda z: z.used)
        for zygote in idle[:excess]:
            self._set_absent(zygote)
            self._queue.forget_lanes(zygote.key)
            for number in [e.number for e in self._crew.executors.values() if e.zygote == zygote.key]:
                self._crew.remove(number)
            self._outbox.instructions.append(EndZygote(zygote.key))

    def deadline(self) -> float | None:
        """When something is to be tried again."""
        return min((z.not_before for z in self._zygotes.values() if z.not_before), default=None)

    def on_time(self, now: float) -> None:
        """``deadline()`` has come."""
        for zygote in self._zygotes.values():
            if zygote.not_before <= now:
                zygote.not_before = 0.0


def title_of(context: Context) -> str:
    """How messages call what a context's zygote brings."""
    if context.setup:
        return f"{_LIBRARY} {context.setup_name}"
    return (
        f"environment {context.environment_name}" if context.environment else "a process with its variables"
    )
