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

from graphvine.protocol.messages import Context, OnNode, Piece, Pull, ToManager
from graphvine.protocol.pieces import not_held, piece_of
from graphvine.protocol.tree_files import Reader, is_tree, load
from graphvine.protocol.trees import BadTreeError
from graphvine.worker.arrivals import Arrival, Arrivals
from graphvine.worker.core import Core
from graphvine.worker.files import HERE
from graphvine.worker.gpus import Gpus
from graphvine.worker.installation import lay_out
from graphvine.worker.instructions import (
    DropFiles,
    EndZygote,
    FindEnvironment,
    FinishPull,
    Instruction,
    KillExecutor,
    Note,
    ProbePeer,
    ReadHere,
    RunPacket,
    SayToManager,
    SendPiece,
    SpawnExecutor,
    StartFetch,
    StartZygote,
    StopFetch,
    StoreBlob,
    StoreContext,
    TakeBack,
    UnpackEnvironment,
    WritePiece,
)
from graphvine.worker.launch import Inside
from graphvine.worker.packets import ContextRef, PacketDone
from graphvine.worker.pool import Pool
from graphvine.worker.settings import Settings
from graphvine.worker.store import Store
from graphvine.worker.transfer import Fetcher, FetchFailed
from graphvine.worker.unpacking import (
    EnvironmentAbsent,
    EnvironmentFound,
    EnvironmentUnusable,
    HelperDied,
    Unpacking,
    UnpackingEvent,
)
from graphvine.worker.zygote import Prepare

log = logging.getLogger("graphvine.worker")

#: So many trees may be sent piece by piece at a time without each being opened for every piece.
_READERS = 8


class Base(msgspec.Struct):
    """What a zygote is made of: paths of a set-up and of an archive of modules ("": none), and so on."""

    setup: str
    archive: str
    imports: list[str]
    variables: dict[str, str]


class Hands:
    """Holds nothing but what is pulled, what is read for others, and the archives of contexts."""

    def __init__(
        self,
        core: Core,
        store: Store,
        pool: Pool,
        fetcher: Fetcher,
        arrivals: Arrivals,
        say: Callable[[list[ToManager]], None],
        settings: Settings,
        unpacking: Unpacking,
        gpus: Gpus,
    ) -> None:
        self._core = core
        self._store = store
        self._pool = pool
        self._fetcher = fetcher
        self._arrivals = arrivals
        self._say = say
        self._settings = settings
        self._unpacking = unpacking
        self._gpus = gpus
        self._found: dict[str, EnvironmentFound] = {}
        """Environments in which zygotes are to be started next."""
        self._contexts = {0: ContextRef(0, "", [])}
        self._bases: dict[int, Base] = {}
        """What the zygotes of contexts are made of."""
        self._pulls: dict[int, Pulled] = {}
        """What comes through the manager."""
        self._readers: dict[int, Reader] = {}
        """Trees that were read last, for the manager."""
        self._held_back: list[StartZygote | FindEnvironment] | None = None
        """What waits for the rest of this worker's own environment."""

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
            case SpawnExecutor(executor, number, zygote, devices):
                self._spawn(executor, number, zygote, devices)
            case StartZygote() | FindEnvironment() if self._held_back is not None:
                self._held_back.append(instruction)
            case StartZygote():
                self._start_zygote(instruction, now)
            case FindEnvironment(zygote, name):
                self._find_environment(zygote, name, now)
            case UnpackEnvironment(zygote, file):
                self._unpack(zygote, file, now)
            case EndZygote(zygote):
                self._forget_held_back(zygote)
                self._pool.end(zygote)
            case KillExecutor(executor):
                self._pool.kill(executor)
            case StartFetch():
                self._fetch(instruction)
            case ProbePeer(holder, addresses):
                self._fetcher.probe(holder, addresses)
            case ReadHere(file, what):
                self._read_here(file, what)
            case StopFetch(file):
                self._stop_fetch(file)
            case WritePiece():
                self._write_piece(instruction)
            case FinishPull(file, size):
                self._finish_pull(file, size)
            case SendPiece():
                self._send_piece(instruction)
            case Note(level, text):
                log.log(getattr(logging, level.upper()), "%s", text)

    def hold_back(self) -> None:
        """Start nothing that runs code of the user's, or what only users' code needs of the environment."""
        self._held_back = []

    def go_on(self, now: float) -> None:
        """All of the environment is there."""
        held, self._held_back = self._held_back or [], None
        for instruction in held:
            self._do(instruction, now)

    def _forget_held_back(self, zygote: str) -> None:
        if self._held_back is not None:
            self._held_back = [one for one in self._held_back if one.zygote != zygote]

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

    def _spawn(self, executor: int, number: int, zygote: str, devices: tuple[int, ...]) -> None:
        context = self._contexts[number] if number else None
        own = self._bases[number].variables if number in self._bases else {}
        # Who sets such a variable for his tasks means it.
        shown = {name: text for name, text in self._gpus.variables(devices).items() if name not in own}
        self._pool.spawn(executor, context, zygote, shown)

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
            if result.value is None
            and not result.kind
            and result.size
            and not self._store.adopt(result.task, result.size)
        ]
        self._core.on_packet_results(executor, done, now)
        for task in vanished:
            self._core.on_file_lost(task)

    # -- store -----------------------------------------------------------------------------------------

    def _drop(self, files: list[int]) -> None:
        for file in files:
            self._stop_fetch(file)
            if file in self._readers:
                self._readers.pop(file).close()
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
        if context.setup or context.variables or context.environment:
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

    def _start_zygote(self, start: StartZygote, now: float) -> None:
        zygote, base = start.zygote, self._bases[start.context]
        scratch, limit_s = self._store.scratch, self._settings.setup_s
        found = self._found.pop(zygote, None)
        try:
            inputs = [self._path_of_input(file, value) for file, value in start.inputs]
            prepare = Prepare(base.setup, base.archive, base.imports, scratch, limit_s, inputs)
            inside = None
            if found is not None:
                installation = lay_out(os.path.join(scratch, "installation"))
                inside = Inside(found.found.prefix, found.found.variables, found.hold, installation)
            self._pool.start(zygote, prepare, base.variables, inside)
        except (OSError, ModuleNotFoundError) as error:
            self._core.on_zygote_died(zygote, f"no process could be started: {error}", now)
        finally:
            if found is not None:
                os.close(found.hold)

    def _path_of_input(self, file: int, value: bytes | str) -> tuple[str, bool]:
        """Where a zygote reads what its set-up is given; whether it is an inline pickle. Raises OSError."""
        if isinstance(value, bytes):
            return self._scratch_file("input", value), True
        path = self._path(file)
        if not path:
            raise FileNotFoundError(f"file {file}, which its set-up needs, vanished from the store")
        return path, False

    # -- environments ----------------------------------------------------------------------------------

    def _find_environment(self, zygote: str, name: str, now: float) -> None:
        try:
            self._unpacking.start(zygote, name)
        except OSError as error:
            self._core.on_zygote_died(zygote, f"no process could be started to unpack {name}: {error}", now)

    def _unpack(self, zygote: str, file: int, now: float) -> None:
        path = self._path(file)
        try:
            archive = load(path).path if is_tree(path) else path
        except (OSError, BadTreeError) as error:
            log.warning("file %d could not be read: %s", file, error)
            archive = ""
        if archive:
            self._unpacking.unpack(zygote, archive)
        else:
            self._core.on_zygote_died(zygote, "the archive of its environment vanished", now)

    def take_environment(self, event: UnpackingEvent, now: float) -> None:
        """A helper found something out."""
        match event:
            case EnvironmentFound(zygote, found):
                self._found[zygote] = event
                self._core.on_environment_found(zygote, found.unpacked_s)
            case EnvironmentAbsent(zygote):
                self._core.on_environment_absent(zygote)
            case EnvironmentUnusable(zygote, reason):
                self._core.on_environment_unusable(zygote, reason, now)
            case HelperDied(zygote, cause):
                self._core.on_zygote_died(zygote, f"the process that unpacks its environment {cause}", now)

    def take_fetched(self, file: int, size: int) -> None:
        taken = self._adopt(file, size)
        self._arrivals.forget(file)
        if taken:
            self._core.on_fetched(file, size)
        else:
            self._core.on_fetch_failed(file, HERE, "it vanished from the store")

    def give_up_fetch(self, failed: FetchFailed) -> None:
        """A fetch came to nothing; what came may be kept for the next holder."""
        if not failed.kept:
            self._store.discard(failed.file)
        if failed.link:
            self._core.on_link(failed.holder, failed.link)
        self._core.on_fetch_failed(failed.file, failed.holder, failed.reason)

    def _adopt(self, file: int, size: int) -> bool:
        try:
            return self._store.adopt(file, size)
        except OSError as error:
            log.warning("file %d could not be taken in: %s", file, error)
            return False

    def _fetch(self, order: StartFetch) -> None:
        where = (order.file, order.size, order.holder, order.addresses)
        if self._fetcher.go_on(*where, coming=order.coming):
            return
        try:
            path = self._store.incoming(order.file, order.size)
        except OSError as error:
            self._core.on_fetch_failed(order.file, order.holder, f"no room here: {error}")
            return
        self._fetcher.start(*where, path, self._store.incoming_tree(order.file), coming=order.coming)

    def _read_here(self, file: int, what: OnNode) -> None:
        try:
            path = self._store.incoming(file, what.size)
        except OSError as error:
            self._core.on_fetch_failed(file, HERE, f"no room here: {error}")
            return
        self._fetcher.read(file, what, path, self._store.incoming_tree(file))

    def _stop_fetch(self, file: int) -> None:
        self._pulls.pop(file, None)
        # First, so that a large directory is removed in the background.
        self._store.discard(file)
        self._fetcher.cancel(file)

    # -- through the manager ---------------------------------------------------------------------------

    def _write_piece(self, piece: WritePiece) -> None:
        try:
            pulled = self._pulls.get(piece.file)
            if pulled is None:
                # What a fetch may have left is of no use to pieces, which begin at the beginning.
                self._stop_fetch(piece.file)
                pulled = self._pulls[piece.file] = self._begin_pull(piece)
            pulled.take(piece.offset, piece.data)
        except (OSError, BadTreeError) as error:
            self._core.on_pull_failed(piece.file, f"it could not be written here: {error}")

    def _begin_pull(self, piece: WritePiece) -> Pulled:
        path = self._store.incoming(piece.file, piece.size)
        arrival = Arrival(piece.file, piece.size, path, self._store.incoming_tree(piece.file))
        self._arrivals.add(arrival).begin(piece.tree)
        return Pulled(arrival)

    def _finish_pull(self, file: int, size: int) -> None:
        pulled = self._pulls.pop(file, None)
        try:
            if pulled is not None:
                pulled.finish()
        except (OSError, BadTreeError) as error:
            self._core.on_pull_failed(file, f"it could not be written here: {error}")
            return
        taken = self._adopt(file, size)
        self._arrivals.forget(file)
        if taken:
            self._core.on_fetched(file, size)
        else:
            self._core.on_pull_failed(file, "it vanished from the store")

    def _send_piece(self, asked: SendPiece) -> None:
        pull = Pull(asked.file, asked.offset, asked.length, asked.requester)
        path = self._store.path(asked.file)
        piece = not_held(pull)
        try:
            if path is not None:
                piece = self._read_tree(path, pull) if is_tree(path) else _read_value(path, pull)
        except (OSError, BadTreeError) as error:
            log.warning("file %d could not be read: %s", asked.file, error)
        if piece.total < 0:
            self._core.on_file_lost(asked.file)
        self._say([piece])

    def _read_tree(self, path: str, pull: Pull) -> Piece:
        reader = self._readers.pop(pull.file, None) or Reader(path)
        # The last one stands last.
        self._readers[pull.file] = reader
        if len(self._readers) > _READERS:
            self._readers.pop(next(iter(self._readers))).close()
        return piece_of(pull, reader.read(pull.offset, pull.length), reader.size, tree=True)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        for file in list(self._pulls):
            self._stop_fetch(file)
        for found in self._found.values():
            os.close(found.hold)
        self._found.clear()


def _read_value(path: str, pull: Pull) -> Piece:
    with open(path, "rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        return piece_of(pull, os.pread(file.fileno(), pull.length, pull.offset), total, tree=False)


class Pulled:
    """Puts the pieces of one arrival in their order: those that came damaged come once more, late."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._early: dict[int, bytes] = {}

    def take(self, offset: int, data: bytes) -> None:
        """Raises BadTreeError, OSError."""
        self._early[offset] = data
        while (following := self._early.pop(self._arrival.written, None)) is not None:
            self._arrival.hashed.update(following)
            self._arrival.write(following)

    def finish(self) -> None:
        """All pieces came. Raises BadTreeError, OSError."""
        self._arrival.complete(self._arrival.hashed.intdigest())
