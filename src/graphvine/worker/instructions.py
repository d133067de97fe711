"""What the agent's core tells its loop to do."""

from __future__ import annotations

from typing import Literal

import msgspec

from graphvine.protocol.messages import Address, Context, OnNode, ToManager
from graphvine.worker.packets import Packet


class RunPacket(msgspec.Struct):
    """Send ``packet`` to an executor, after filling in the paths: of ``contexts`` and ``blobs`` that the
    executor is told of for the first time, and of the inputs named in ``files`` as (position in
    ``packet.tasks``, slot, file). When one of them is not in the store, call ``on_packet_unsent``."""

    executor: int
    packet: Packet
    contexts: list[int]
    blobs: list[int]
    files: list[tuple[int, int, int]]


class TakeBack(msgspec.Struct):
    """Remove the packets an executor has not read; answer with ``on_taken_back``."""

    executor: int


class StartZygote(msgspec.Struct):
    """Start the zygote that ``context`` needs, to be known as ``zygote``; answer with ``on_zygote_ready``,
    ``on_zygote_failed`` or ``on_zygote_died``. ``inputs``: what its set-up is given, each the file's number,
    and its inline pickle or ``files.STORED``."""

    zygote: str
    context: int
    inputs: list[tuple[int, bytes | str]] = []


class FindEnvironment(msgspec.Struct):
    """Look for an environment that a zygote needs; answer with ``on_environment_found``, ``_absent``,
    ``_unusable``, or ``on_zygote_died`` when it is not known."""

    zygote: str
    name: str


class UnpackEnvironment(msgspec.Struct):
    """Unpack the environment that was found to be absent, from its archive, a stored file; answer as to
    ``FindEnvironment``, but for ``_absent``."""

    zygote: str
    file: int


class EndZygote(msgspec.Struct):
    """End a zygote, and its executors with it; the core has forgotten them already. Answer with
    ``on_executor_gone`` for each."""

    zygote: str


class SpawnExecutor(msgspec.Struct):
    """Start executor number ``executor`` (never used before), with the imports of ``context`` (0: plain),
    from the zygote of that key, which is ready. ``devices``: the gpus that it is to see."""

    executor: int
    context: int
    zygote: str = ""
    devices: tuple[int, ...] = ()


class KillExecutor(msgspec.Struct):
    """End an executor; the core has forgotten it already. Answer with ``on_executor_gone`` when it is."""

    executor: int


class StoreBlob(msgspec.Struct):
    blob: int
    data: bytes


class StoreContext(msgspec.Struct):
    context: Context


class StartFetch(msgspec.Struct):
    """Fetch a file from a peer; answer with ``on_fetched`` or ``on_fetch_failed``. ``coming``: the peer is
    perhaps about to get it itself."""

    file: int
    size: int
    holder: int
    addresses: list[Address]
    coming: bool = False


class ProbePeer(msgspec.Struct):
    """See whether a peer can be reached; answer with ``on_link``."""

    holder: int
    addresses: list[Address]


class ReadHere(msgspec.Struct):
    """Take in a file that lies on this node; answer with ``on_fetched``, or ``on_fetch_failed`` with
    ``files.HERE`` as the holder."""

    file: int
    what: OnNode


class StopFetch(msgspec.Struct):
    """Nobody waits for this file any more: end its fetch, and remove what came of it."""

    file: int


class WritePiece(msgspec.Struct):
    """Write a piece of a file of ``size`` bytes that is pulled through the manager."""

    file: int
    offset: int
    data: bytes
    size: int
    tree: bool = False


class FinishPull(msgspec.Struct):
    """All pieces are there: put the file into the store; answer with ``on_fetched`` or ``on_pull_failed``."""

    file: int
    size: int


class SendPiece(msgspec.Struct):
    """Read a piece of a stored file and send it to the manager for ``requester``."""

    file: int
    offset: int
    length: int
    requester: int


class DropFiles(msgspec.Struct):
    files: list[int]


class SayToManager(msgspec.Struct):
    messages: list[ToManager]


class Note(msgspec.Struct):
    """A line for the log."""

    level: Literal["debug", "info", "warning", "error"]
    text: str


Instruction = (
    RunPacket
    | TakeBack
    | FindEnvironment
    | UnpackEnvironment
    | StartZygote
    | EndZygote
    | SpawnExecutor
    | KillExecutor
    | StoreBlob
    | StoreContext
    | StartFetch
    | ProbePeer
    | ReadHere
    | StopFetch
    | WritePiece
    | FinishPull
    | SendPiece
    | DropFiles
    | SayToManager
    | Note
)
