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

from graphvine.manager.plan import Plan, TaskOptions
from graphvine.protocol.values import MAGIC
from simulation.graphs import Graph, sinks

DIGEST_BYTES = 16

#: What stands for the value of a task that failed for good, where tasks stand alone.
FAILED = b"failed for good!"

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
        self,
        serial: int,
        plan: Plan,
        specs: list[TaskSpec],
        externals: Sequence[bytes] = (),
        origin: Work | None = None,
    ) -> None:
        self.serial = serial
        self.origin = origin
        #: Some values depend on which tasks fail, and that on chance.
        self.loose: bool = plan.separate or (origin is not None and origin.loose)
        #: Of such work: the values each task had, and the tasks that failed for good.
        self.made: list[set[bytes]] = [set() for _ in range(len(plan))]
        self.failed: set[int] = set()
        self.cancelled: set[int] = set()
        self.plan = plan
        self.specs = specs
        self.expected = expected_values(serial, plan, externals)
        #: How often each task was begun, ended well, and killed its executor or its worker.
        self.begun = [0] * len(plan)
        self.ended = [0] * len(plan)
        self.killed = [0] * len(plan)

    def accepts(self, task: int, value: bytes) -> bool:
        """Whether this may be the value of a task."""
        if not self.loose:
            return value == self.expected[task]
        given = task in self.plan.given and value == self.expected[task]
        return given or value in self.made[task] or (value == FAILED and task in self.failed)

    def accepts_input(self, name: int, value: bytes) -> bool:
        """Whether this may be the value of an input, as ``plan.inputs`` names it."""
        if name >= 0:
            return self.accepts(name, value)
        assert self.origin is not None
        return self.origin.accepts(self.origin.plan.wanted[-1 - name], value)


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


def plain_work(graph: Graph, duration_s: Sequence[float], size: int = 100) -> Work:
    """Tasks that behave, each of its own duration."""
    return behaving_work(0, graph, [TaskSpec(duration, size) for duration in duration_s])


def behaving_work(
    serial: int, graph: Graph, specs: list[TaskSpec], options: dict[int, TaskOptions] | None = None
) -> Work:
    """Tasks of one category that behave; the sinks are wanted."""
    blobs, blob_of, blob_index = make_blobs(serial, len(graph), 500)
    plan = Plan(
        keys=range(len(graph)),
        inputs=graph,
        blobs=blobs,
        blob_of=blob_of,
        blob_index=blob_index,
        categories=["work"],
        category_of=[0] * len(graph),
        wanted=sinks(graph),
        options=options or {},
    )
    return Work(serial, plan, specs)


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
    if data[:2] == b"\x80\x05" and b"graphvine.protocol.outcomes" in bytes(data[:80]):
        return FAILED
    data = bytes(data[: len(MAGIC) + DIGEST_BYTES])
    return data[len(MAGIC) :] if data.startswith(MAGIC) else data[:DIGEST_BYTES]
