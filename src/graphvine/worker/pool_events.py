"""What a worker's pool tells of its executors and zygotes."""

from __future__ import annotations

import msgspec

from graphvine.worker.output import Printed
from graphvine.worker.packets import PacketDone, TaskTold, TaskTurn


class ExecutorReady(msgspec.Struct):
    """An executor has begun to read packets (which could be sent to it from ``spawn`` on)."""

    executor: int
    pid: int


class ResultsArrived(msgspec.Struct):
    executor: int
    done: PacketDone


class ExecutorDied(msgspec.Struct):
    """An executor is gone; every result it had sent was delivered before this.

    ``task`` and ``packet`` had begun and were not finished (None: nothing had, nobody is to blame).
    ``cause`` is for the user: signal or exit code, memory, last lines of stderr.
    """

    executor: int
    cause: str
    task: int | None
    packet: int | None
    killed_by_us: bool


class ZygoteDied(msgspec.Struct):
    """A zygote is gone, and its executors with it: an ``ExecutorDied`` of each precedes this event. The
    next ``spawn`` starts another base zygote ("")."""

    cause: str
    zygote: str = ""


class ZygoteReady(msgspec.Struct):
    """A zygote that was started with ``start`` has done its set-up, which took so long."""

    zygote: str
    duration_s: float


class ZygoteFailed(msgspec.Struct):
    """The set-up of a zygote raised; the zygote is gone."""

    zygote: str
    text: str
    error: bytes


PoolEvent = (
    ExecutorReady
    | ResultsArrived
    | TaskTold
    | TaskTurn
    | Printed
    | ExecutorDied
    | ZygoteDied
    | ZygoteReady
    | ZygoteFailed
)
