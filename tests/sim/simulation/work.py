"""What the simulated tasks are, do and make.

The value of a task is a digest of its name and of the values of its inputs, so a wrong, missing or stale
input anywhere shows in the result. Values are padded to the size the task is to have; a stored one begins
like a real value file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from graphvine.manager.plan import Plan
from graphvine.protocol.values import MAGIC

DIGEST_BYTES = 16

Behaviour = Literal["", "raised", "killed", "unpicklable", "undecodable", "storage", "fatal"]
"""How a task misbehaves: as in ``TaskFailed.kind``; "fatal" takes its whole worker down."""


class TaskSpec(msgspec.Struct):
    """How one task behaves: ``times`` runs of it misbehave, then it succeeds."""

    duration_s: float = 0.01
    size: int = DIGEST_BYTES
    behaviour: Behaviour = ""
    times: int = 0


class Work:
    """A plan, how its tasks behave, and the values they must have.

    ``externals``: the values of ``plan.externals``."""

    def __init__(
        self, serial: int, plan: Plan, specs: list[TaskSpec], externals: Sequence[bytes] = ()
    ) -> None:
        self.serial = serial
        self.plan = plan
        self.specs = specs
        self.expected = expected_values(serial, plan, externals)
        #: How often each task was begun, ended well, and killed its executor or its worker.
        self.begun = [0] * len(plan)
        self.ended = [0] * len(plan)
        self.killed = [0] * len(plan)


def expected_values(serial: int, plan: Plan, externals: Sequence[bytes]) -> list[bytes]:
    """The digest of each task's value. Inputs come before their consumers in the numbering."""
    values: list[bytes] = []
    for task, names in enumerate(plan.inputs):
        values.append(digest(serial, task, [values[n] if n >= 0 else externals[-1 - n] for n in names]))
    return values


def digest(serial: int, task: int, inputs: Sequence[bytes]) -> bytes:
    """The value of a task."""
    return hashlib.blake2b(
        serial.to_bytes(4, "big") + task.to_bytes(4, "big") + b"".join(inputs), digest_size=DIGEST_BYTES
    ).digest()


def make_blobs(serial: int, count: int, per_blob: int) -> tuple[list[bytes], list[int], list[int]]:
    """Blobs whose entries name the work and the task, and blob and index of each task."""
    blobs = [
        msgspec.msgpack.encode([(serial, task) for task in range(begin, min(begin + per_blob, count))])
        for begin in range(0, count, per_blob)
    ]
    return blobs, [t // per_blob for t in range(count)], [t % per_blob for t in range(count)]


class Content(msgspec.Struct, frozen=True):
    """A stored file: a value of ``size`` bytes, or the bytes of a blob. ``gone``: a file of the manager's
    machine that is not what it was."""

    digest: bytes
    size: int
    raw: bytes | None = None
    gone: bool = False

    def read(self, offset: int, length: int) -> bytes:
        """A piece of its bytes."""
        whole = self.raw if self.raw is not None else stored(self.digest, self.size)
        return whole[offset : offset + length]


def inline(value: bytes, size: int) -> bytes:
    """An inline value."""
    return value.ljust(size, b"\0")


def stored(value: bytes, size: int) -> bytes:
    """The bytes of a value file."""
    return (MAGIC + value).ljust(size, b"\0")


def value_in(data: bytes | memoryview) -> bytes:
    """The digest in an inline or stored value."""
    data = bytes(data[: len(MAGIC) + DIGEST_BYTES])
    return data[len(MAGIC) :] if data.startswith(MAGIC) else data[:DIGEST_BYTES]
