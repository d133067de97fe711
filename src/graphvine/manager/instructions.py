"""What the manager's core tells its loop to do, and what it tells the user's threads."""

from __future__ import annotations

from typing import Literal

import msgspec

from graphvine.manager.engine import Outcome
from graphvine.protocol.messages import Demand, ToWorker
from graphvine.protocol.outcomes import OutcomeKind


class Say(msgspec.Struct, gc=False):
    """Send ``messages`` to a worker, as one batch."""

    worker: int
    messages: list[ToWorker]


class Stage(msgspec.Struct):
    """Bring a file to the manager's own machine: there is no worker to which it could go, and those that hold
    it are about to leave."""

    file: int
    size: int
    holders: list[int]


class Unstage(msgspec.Struct):
    """Remove a staged file: nobody needs it any more."""

    path: str


class SendAway(msgspec.Struct):
    """Tell a worker to leave, and forget it: nothing of it is needed any more."""

    worker: int
    reason: str


class PartWorker(msgspec.Struct):
    """Forget a worker and close what leads to it: it was lost, or must not go on."""

    worker: int
    reason: str


class Available(msgspec.Struct):
    """A wanted result exists (again). ``position`` counts in ``plan.wanted``; ``value`` is its pickle when
    small, otherwise ``holders`` have it as file ``file``, or it is a file or directory of the manager's
    machine at ``path`` (without ``tree``: a file of values)."""

    plan: int
    position: int
    file: int
    size: int
    value: bytes | None
    holders: list[int]
    path: str = ""
    tree: bool = True


class PlanDone(msgspec.Struct):
    """Every wanted result of the plan was fetched, or, for a kept plan, exists."""

    plan: int


class Settled(msgspec.Struct):
    """A wanted task of a separate plan is done, or has failed for good."""

    plan: int
    outcome: Outcome


class Death(msgspec.Struct):
    """One try of a task that did not succeed."""

    worker: str
    attempt: int
    kind: str
    text: str


class PlanFailed(msgspec.Struct):
    """The plan can't be finished: ``task`` (number within the plan) failed for good. ``tries`` are all its
    tries, ``error`` is the pickled exception of the last one when it raised. The plan is over."""

    plan: int
    task: int
    kind: OutcomeKind
    text: str
    error: bytes
    tries: list[Death]


class Asked(msgspec.Struct):
    """What the work asks for has changed, or a worker came, went, or ran out of work."""

    demand: Demand


class Note(msgspec.Struct):
    """A line for the log."""

    level: Literal["debug", "info", "warning", "error"]
    text: str


Instruction = (
    Say | SendAway | Stage | Unstage | PartWorker | Available | Settled | PlanDone | PlanFailed | Asked | Note
)
