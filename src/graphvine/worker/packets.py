"""What an agent and its executors say to each other, over one SOCK_SEQPACKET pair per executor.

Every message is one packet of the socket. One that would not fit well lies in a file instead, and the socket
carries ``REFERENCE`` and the file's path; whoever reads the message removes the file. Both sides are of one
version and of one user, so nothing here is negotiated.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

#: First byte of a message that is a path: msgpack never uses it.
REFERENCE = b"\xc1"
#: Messages longer than this go by reference (a socket buffer holds about 200 kB where nobody tuned it).
MAX_MESSAGE_BYTES = 96 * 1024

ResultKind = Literal["", "raised", "killed", "unpicklable", "undecodable", "storage", "vanished"]


class ContextRef(msgspec.Struct, array_like=True):
    """A context (see ``messages.Context``); ``path`` is its archive of modules, "" when it has none."""

    context: int
    path: str
    imports: list[str]


class PacketTask(msgspec.Struct, array_like=True, gc=False):
    """Run entry ``index`` of ``blob``. An input is an inline pickle (bytes), the path of a value file, or the
    number of a task before it in the packet, whose value it takes as it is.

    ``passed``: how many inputs of tasks behind it in the packet are its value; without ``kept`` nobody else
    needs that. ``shares``: what it takes and makes may be what others take (see ``recent``)."""

    task: int
    blob: int
    context: int
    index: int
    attempt: int
    inputs: list[Any]
    """bytes | str | int (msgspec has no such union)."""
    passed: int = 0
    kept: bool = True
    shares: bool = False


class Packet(msgspec.Struct, array_like=True):
    """A few tasks for one executor, to be run in that order.

    ``contexts`` and ``blobs`` name only what this executor was not told before (number and path of the
    file). A result whose pickle is longer than ``inline_bytes`` is written to ``directory``/<task>, or, when
    there is no room, to ``fallback``/<task> ("": nowhere else). After ``patience_s`` seconds it may be
    relieved.
    """

    number: int
    contexts: list[ContextRef]
    blobs: list[tuple[int, str]]
    tasks: list[PacketTask]
    directory: str
    inline_bytes: int
    fallback: str = ""
    patience_s: float = 0.0


class PacketHead(msgspec.Struct, array_like=True):
    """The first field of a packet: all that is read of one that is taken back."""

    number: int


class TaskResult(msgspec.Struct, array_like=True, gc=False):
    """What became of one task. ``kind`` "": it ran; "vanished": a file it needs is not there any more (its
    number is ``text``), so it did not run; "killed": it ran in a child of the executor, which died.

    ``value`` is the pickled result when that is small; otherwise the result is the file ``task`` of ``size``
    bytes in one of the packet's directories (0: there is none, the value was passed on and is needed no
    more). ``text`` is a traceback or a reason; ``error`` is the pickled exception of a task that raised, b""
    when it cannot be carried. ``began_s`` is Unix time, ``memory_mb`` the executor's peak resident memory
    during the task (0: too short to be measured).
    """

    task: int
    attempt: int
    kind: ResultKind
    size: int
    value: bytes | None
    text: str
    error: bytes
    began_s: float
    duration_s: float
    memory_mb: float
    note: bytes = b""


class PacketDone(msgspec.Struct, array_like=True, tag=0):
    """Results of a packet, in the order of its tasks; ``finished`` says that no more of it will come.
    ``given_back``: tasks of it that have not run and won't here, as another one takes so long or has failed;
    with them what would have to pass its value on to them, and has run for nothing."""

    number: int
    results: list[TaskResult]
    finished: bool
    given_back: list[int] = []


class ExecutorUp(msgspec.Struct, array_like=True, tag=1):
    """An executor's first message."""

    pid: int


class TaskTold(msgspec.Struct, array_like=True, tag=2):
    """What the running task says on its way (``notes.tell``)."""

    task: int
    attempt: int
    data: bytes


class TaskTurn(msgspec.Struct, array_like=True, tag=3):
    """The running task wants to be let through by a limit, and is answered at ``reply``; "": its turn is over
    (``turns.turn``)."""

    task: int
    limit: str
    reply: str


FromExecutor = PacketDone | ExecutorUp | TaskTold | TaskTurn
