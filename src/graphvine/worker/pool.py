"""The executors of a worker, as the agent's loop sees them. Nothing here waits.

The pool starts the zygote, asks it for executors, sends packets, and turns what the zygote and the executors
say into events. The agent polls ``descriptors()`` together with its own sockets and calls ``on_readable``.
"""

from __future__ import annotations

import msgspec

from graphvine.worker.packets import ContextRef, Packet, PacketDone


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
    """The zygote is gone, and its executors with it: an ``ExecutorDied`` of each precedes this event. The
    next ``spawn`` starts another zygote."""

    cause: str


PoolEvent = ExecutorReady | ResultsArrived | ExecutorDied | ZygoteDied


class Pool:
    """``scratch``: a directory for large messages (not removed here). ``log_directory``: each executor's
    output goes to ``executor-<number>.log`` there."""

    def __init__(
        self,
        scratch: str,
        log_directory: str,
        *,
        watched: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """``watched``: directories the zygote removes when this process dies without ``close``.
        ``environment``: variables of the executors, on top of this process's own."""
        raise NotImplementedError

    def start_zygote(self) -> None:
        """Start it now, so that it is warm when the first ``spawn`` comes. Otherwise ``spawn`` does."""
        raise NotImplementedError

    def spawn(self, executor: int, context: ContextRef | None = None) -> None:
        """Ask for executor number ``executor`` (never used before). ``send`` may follow at once. With a
        context, its modules are imported in the zygote first. Ends in ExecutorReady or ExecutorDied."""
        raise NotImplementedError

    def send(self, executor: int, packet: Packet) -> bool:
        """Put a packet into an executor's inbox. False: no room, or no such executor (any more); nothing
        was sent. Room comes when results arrive."""
        raise NotImplementedError

    def take_back(self, executor: int) -> list[int]:
        """Remove the packets an executor has not read yet; their numbers. What they told (contexts, blobs)
        must be told again."""
        raise NotImplementedError

    def kill(self, executor: int) -> None:
        """Kill an executor and its process group (SIGKILL). ExecutorDied follows."""
        raise NotImplementedError

    def descriptors(self) -> list[int]:
        """What to poll for reading. The list never changes."""
        raise NotImplementedError

    def on_readable(self, descriptor: int) -> list[PoolEvent]:
        """Read whatever came. Never waits; may return an empty list."""
        raise NotImplementedError

    def close(self) -> None:
        """Kill everything, wait for it (below a second), release descriptors."""
        raise NotImplementedError
