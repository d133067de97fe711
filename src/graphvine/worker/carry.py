"""Carries out what the agent's core says: one method per instruction.

What comes of an instruction at once (packets taken back, a file that is not there) is told to the core before
the next ``turn``, which is asked until it says nothing more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import msgspec
import xxhash

from graphvine.protocol.messages import Context, Piece, ToManager
from graphvine.worker.core import Core
from graphvine.worker.instructions import (
    DropFiles,
    EndZygote,
    FinishPull,
    Instruction,
    KillExecutor,
    Note,
    RunPacket,
    SayToManager,
    SendPiece,
    SpawnExecutor,
    StartFetch,
    StartZygote,
    StoreBlob,
    StoreContext,
    TakeBack,
    WritePiece,
)
from graphvine.worker.packets import ContextRef, PacketDone
from graphvine.worker.pool import Pool
from graphvine.worker.settings import Settings
from graphvine.worker.store import Store
from graphvine.worker.transfer import Fetcher
from graphvine.worker.zygote import Prepare

log = logging.getLogger("graphvine.worker")


class Base(msgspec.Struct):
    """What a zygote is made of: paths of a set-up and of an archive of modules ("": none), and so on."""

    setup: str
    archive: str
    imports: list[str]
    variables: dict[str, str]


class Hands:
    """Holds nothing but open files of pulls and the archives of contexts."""

    def __init__(
        self,
        core: Core,
        store: Store,
        pool: Pool,
        fetcher: Fetcher,
        say: Callable[[list[ToManager]], None],
        settings: Settings,
    ) -> None:
        self._core = core
        self._store = store
        self._pool = pool
        self._fetcher = fetcher
        self._say = say
        self._settings = settings
        self._contexts = {0: ContextRef(0, "", [])}
        self._bases: dict[int, Base] = {}
        """What the zygotes of contexts are made of."""
        self._pulls: dict[int, int] = {}
        """Descriptor of each file that is pulled through the manager."""

    def carry_out(self, now: float) -> None:
        """Let the core decide, and do what it says, until it says nothing more."""
        while instructions := self._core.turn(now):
            for instruction in instructions:
                self._do(instruction, now)

    def _do(self, instruction: Instruction, now: float) -> None:
        match instruction:
            case RunPacket():
                self._run(instruction)
            case SayToManager(messages):
                self._say(messages)
            case DropFiles(files):
                self._drop(files)
            case TakeBack(executor):
                self._core.on_taken_back(executor, self._pool.take_back(executor))
            case StoreBlob(blob, data):
                self._store_blob(blob, data)
            case StoreContext(context):
                self._store_context(context)
            case SpawnExecutor(executor, number, zygote):
                self._pool.spawn(executor, self._contexts[number] if number else None, zygote)
            case StartZygote(zygote, number):
                self._start_zygote(zygote, number, now)
            case EndZygote(zygote):
                self._pool.end(zygote)
            case KillExecutor(executor):
                self._pool.kill(executor)
            case StartFetch():
                self._fetch(instruction)
            case WritePiece():
                self._write_piece(instruction)
            case FinishPull(file, size):
                self._finish_pull(file, size)
            case SendPiece():
                self._send_piece(instruction)
            case Note(level, text):
                log.log(getattr(logging, level.upper()), "%s", text)

    # -- executors -------------------------------------------------------------------------------------

    def _run(self, run: RunPacket) -> None:
        packet = run.packet
        paths = [self._path(blob) for blob in run.blobs]
        packet.blobs.extend(zip(run.blobs, paths, strict=True))
        for position, slot, file in run.files:
            path = self._path(file)
            paths.append(path)
            packet.tasks[position].inputs[slot] = path
        if "" in paths:
            self._core.on_packet_unsent(run.executor, packet.number, can_go_on=True)
            return
        packet.contexts.extend(self._contexts[context] for context in run.contexts)
        packet.directory = self._store.directory_for_results()
        packet.fallback = self._store.fallback_directory
        if not self._pool.send(run.executor, packet):
            self._core.on_packet_unsent(run.executor, packet.number, can_go_on=False)

    def _path(self, file: int) -> str:
        """Path of a stored file; "" when it has vanished, which the core is told."""
        path = self._store.path(file)
        if path is None:
            self._core.on_file_lost(file)
        return path or ""

    def take_results(self, executor: int, done: PacketDone, now: float) -> None:
        """Results came; large ones lie in the store's directories already."""
        vanished = [
            result.task
            for result in done.results
            if result.value is None and not result.kind and not self._store.adopt(result.task, result.size)
        ]
        self._core.on_packet_results(executor, done, now)
        for task in vanished:
            self._core.on_file_lost(task)

    # -- store -----------------------------------------------------------------------------------------

    def _drop(self, files: list[int]) -> None:
        for file in files:
            self._fetcher.cancel(file)
            self._close_pull(file)
        self._store.drop(files)

    def _store_blob(self, blob: int, data: bytes) -> None:
        try:
            self._store.put_bytes(blob, data)
        except OSError as error:
            self._core.on_blob_refused(blob, f"no room for the tasks themselves: {error}")

    def _store_context(self, context: Context) -> None:
        number = context.context
        # Named by content: executors see by the path that they have these modules already.
        archive = self._scratch_file("modules", context.modules, ".zip")
        self._contexts[number] = ContextRef(number, archive, context.imports)
        if context.setup or context.variables:
            setup = self._scratch_file("setup", context.setup)
            self._bases[number] = Base(setup, archive, context.imports, dict(context.variables))

    def _scratch_file(self, kind: str, content: bytes, ending: str = "") -> str:
        """The path of a file with this content; "" when there is none."""
        if not content:
            return ""
        name = f"{kind}-{xxhash.xxh3_128_hexdigest(content)}{ending}"
        path = os.path.join(self._store.scratch, name)
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(content)
        return path

    def _start_zygote(self, zygote: str, context: int, now: float) -> None:
        base = self._bases[context]
        scratch, limit_s = self._store.scratch, self._settings.setup_s
        prepare = Prepare(base.setup, base.archive, base.imports, scratch, limit_s)
        try:
            self._pool.start(zygote, prepare, base.variables)
        except OSError as error:
            self._core.on_zygote_died(zygote, f"no process could be started: {error}", now)

    def take_fetched(self, file: int, size: int) -> None:
        if self._store.adopt(file, size):
            self._core.on_fetched(file, size)
        else:
            self._core.on_fetch_failed(file, -1, "it vanished from the store")

    def _fetch(self, order: StartFetch) -> None:
        try:
            path = self._store.incoming(order.file, order.size)
        except OSError as error:
            self._core.on_fetch_failed(order.file, order.holder, f"no room here: {error}")
            return
        self._fetcher.start(order.file, order.size, order.holder, order.addresses, path)

    # -- through the manager ---------------------------------------------------------------------------

    def _write_piece(self, piece: WritePiece) -> None:
        try:
            descriptor = self._pulls.get(piece.file)
            if descriptor is None:
                path = self._store.incoming(piece.file, piece.size)
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                self._pulls[piece.file] = descriptor
            os.pwrite(descriptor, piece.data, piece.offset)
        except OSError as error:
            self._core.on_pull_failed(piece.file, f"it could not be written here: {error}")

    def _finish_pull(self, file: int, size: int) -> None:
        self._close_pull(file, discard=False)
        if self._store.adopt(file, size):
            self._core.on_fetched(file, size)
        else:
            self._core.on_pull_failed(file, "it vanished from the store")

    def _close_pull(self, file: int, discard: bool = True) -> None:
        descriptor = self._pulls.pop(file, None)
        if descriptor is not None:
            os.close(descriptor)
            if discard:
                self._store.discard(file)

    def _send_piece(self, asked: SendPiece) -> None:
        data, total = b"", -1
        path = self._store.path(asked.file)
        try:
            if path is not None:
                with open(path, "rb", buffering=0) as file:
                    total = os.fstat(file.fileno()).st_size
                    data = os.pread(file.fileno(), asked.length, asked.offset)
        except OSError as error:
            log.warning("file %d could not be read: %s", asked.file, error)
            total = -1
        if total < 0:
            self._core.on_file_lost(asked.file)
        digest = xxhash.xxh3_64_intdigest(data)
        self._say([Piece(asked.file, asked.offset, total, data, digest, asked.requester)])

    def close(self) -> None:
        for file in list(self._pulls):
            self._close_pull(file)
