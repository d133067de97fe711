"""One job as its fleet knows it, and what a fleet has its supervisor do about jobs. Does no I/O."""

from __future__ import annotations

from typing import Literal

import msgspec

from graphvine.deploy.batch import JobState


class Job:
    """One job that may live."""

    __slots__ = (
        "cancelled_at",
        "cancels",
        "connected_at",
        "explained",
        "host",
        "idle_since",
        "leaving_at",
        "lost_at",
        "missing",
        "name",
        "reason",
        "restarts",
        "running_at",
        "start_s",
        "state",
        "submitted_at",
        "worker",
        "worker_name",
    )

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.state = JobState.PENDING
        self.reason = ""
        self.host = ""
        self.submitted_at = now
        self.running_at: float | None = None
        self.worker = 0
        """The manager's number of the worker that it is; 0: not connected."""
        self.worker_name = ""
        self.connected_at: float | None = None
        """When it connected first."""
        self.start_s = 0.0
        """How long that took, once it ran."""
        self.restarts = False
        """It was connected, and has been put back to where it waits: then all begins anew."""
        self.idle_since: float | None = None
        self.lost_at: float | None = None
        """When the manager lost the worker."""
        self.leaving_at: float | None = None
        """When it was told to leave, or was cancelled: whatever becomes of it is no failure."""
        self.cancelled_at: float | None = None
        """When that was done last."""
        self.cancels = 0
        """How often that was done without complaint."""
        self.explained = False
        self.missing = False
        """The batch system knew nothing of it when it was asked last."""

    @property
    def active(self) -> bool:
        """It is, or will be, a worker."""
        return self.leaving_at is None and self.state is not JobState.HELD

    def info(self, now: float) -> JobInfo:
        """As its user sees it."""
        state = "connected" if self.worker else self.state.value
        if self.leaving_at is not None:
            state = "leaving"
        # One that was put back is nowhere, and no worker, until it starts again.
        waits = self.state is JobState.PENDING and not self.worker
        host, worker = ("", "") if waits else (self.host, self.worker_name)
        reason = self.reason
        if state == "running" and self.explained and not reason:
            reason = "it should have joined by now: the log has the end of its output"
        return JobInfo(self.name, state, reason, host, worker, now - self.submitted_at)


class JobInfo(msgspec.Struct, frozen=True):
    """A job as its user sees it. ``state``: "pending", "running" (and not connected yet), "connected",
    "held", "leaving". ``since_s``: how long ago it was submitted."""

    job: str
    state: str
    reason: str
    host: str
    worker: str
    since_s: float


# -- what is to be done ---------------------------------------------------------------------------------


class Submit(msgspec.Struct, frozen=True):
    """Answered by ``on_submitted`` or ``on_submit_failed``."""

    count: int


class Cancel(msgspec.Struct, frozen=True):
    """Answered by ``on_cancelled``, also when it failed."""

    jobs: tuple[str, ...]


class Retire(msgspec.Struct, frozen=True):
    """The manager is to have these workers leave."""

    jobs: tuple[str, ...]


class Ask(msgspec.Struct, frozen=True):
    """Answered by ``on_status`` or ``on_status_failed``."""

    jobs: tuple[str, ...]


class Read(msgspec.Struct, frozen=True):
    """Read the end of a job's output; ``why`` is said with it. Answered by ``on_output``."""

    job: str
    why: str


class Say(msgspec.Struct, frozen=True):
    level: Literal["info", "warning", "error"]
    text: str


Instruction = Submit | Cancel | Retire | Ask | Read | Say
