"""Brings wanted results into the user's process.

Three ways, the first that works: a worker on this node left a file that can be mapped; the holder's transfer
server can be reached (what was learned of that is remembered, see ``reach``); else the bytes are pulled piece
by piece over the worker's own connection.

Trees come into ``directory``, each as one of its own, and stay there until whoever has them moves them away
or the manager is closed: as hard links where the holder's disk is this one's, else written. All writing is
done by threads.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from graphvine.manager.instructions import Available
from graphvine.manager.reach import Place, Reach
from graphvine.manager.relay import MANAGER
from graphvine.manager.run import Raw
from graphvine.protocol import tree_files, values
from graphvine.protocol.bulk import BulkError, connect, fetch, link_state
from graphvine.protocol.messages import Address, Hello, LinkState, Piece, Pull
from graphvine.protocol.pieces import Assembler, Damaged
from graphvine.protocol.trees import BadTreeError, NewTree, Tree

_THREADS = 4
_HERE = Place(MANAGER, "the manager's")


class Wish(msgspec.Struct, frozen=True):
    """A wanted result: position ``position`` of plan ``plan`` is file ``file`` of ``size`` bytes."""

    plan: int
    position: int
    file: int
    size: int


class _Pulled(msgspec.Struct):
    """A file on its way through the manager's connection to ``holder``, for everybody who wants it."""

    assembler: Assembler
    holder: int
    wishes: list[Wish]
    path: str
    """Where it is written in case it is a tree."""
    writer: tree_files.Writer | None = None


class Collector:
    """Lives in the manager's thread; direct links are read in threads that report through ``call``."""

    def __init__(
        self,
        node: str,
        secret: str,
        directory: str,
        call: Callable[[Callable[[], None]], None],
        ask: Callable[[int, Pull], None],
        place: Callable[[int], Place | None],
        reach: Reach,
        clock: Callable[[], float],
        on_result: Callable[[Wish, Raw], None],
        on_unreachable: Callable[[Wish, int, str], None],
        *,
        encrypted: bool = False,
    ) -> None:
        """``ask``: has a worker asked for a piece; ``place``: of a worker, None when it is gone.
        ``encrypted``: direct links are."""
        self._node = node
        self._secret = secret
        self._encrypted = encrypted
        self._directory = directory
        self._numbers = itertools.count(1)
        self._call = call
        self._ask = ask
        self._place = place
        self._reach = reach
        self._clock = clock
        self._on_result = on_result
        self._on_unreachable = on_unreachable
        self._hellos: dict[int, Hello] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="graphvine-collect")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="graphvine-write")
        """Writes what comes in pieces, in their order."""
        self._pulled: dict[int, _Pulled] = {}

    def collect(self, wanted: Available, hellos: dict[int, Hello]) -> None:
        """Get a result that exists; ends in ``on_result`` or ``on_unreachable``. ``hellos``: the workers that
        are there, now and whenever it is looked at."""
        self._hellos = hellos
        wish = Wish(wanted.plan, wanted.position, wanted.file, wanted.size)
        if wanted.value is not None:
            self._on_result(wish, wanted.value)
            return
        holders = [holder for holder in wanted.holders if holder in hellos]
        if wanted.path and not holders:
            self._copy(wish, wanted.path, wanted.tree)
            return
        for holder in holders:
            if hellos[holder].node == self._node:
                path = os.path.join(hellos[holder].store, str(wish.file))
                if tree_files.is_tree(path):
                    self._threads.submit(self._share_in_thread, wish, path, holders)
                    return
                raw = map_here(path)
                if raw is not None:
                    self._on_result(wish, raw)
                    return
        self._collect_over_links(wish, holders)

    def _collect_over_links(self, wish: Wish, holders: list[int]) -> None:
        hellos = self._hellos
        holders = [holder for holder in holders if holder in hellos]
        if not holders:
            self._on_unreachable(wish, 0, "no holder is left")
            return
        for holder in holders:
            if hellos[holder].addresses and self._may_fetch(holder):
                self._fetch(wish, holder, hellos[holder].addresses)
                return
        self._pull(wish, holders[0])

    def on_piece(self, worker: int, piece: Piece) -> None:
        """A piece of a pulled file came (late ones of a given-up pull are ignored)."""
        pulled = self._pulled.get(piece.file)
        if pulled is None or pulled.holder != worker:
            return
        outcome = pulled.assembler.on_piece(piece)
        if pulled.assembler.tree and not isinstance(outcome, Damaged):
            self._disk.submit(self._write_in_thread, pulled, pulled.assembler.take_flat(), outcome)
        elif isinstance(outcome, Pull):
            self._ask(worker, outcome)
        elif isinstance(outcome, Damaged):
            self._give_up(piece.file, outcome.reason)
        elif pulled.assembler.complete:
            self._finish_pull(pulled)

    def on_worker_parted(self, worker: int) -> None:
        for file in [file for file, pulled in self._pulled.items() if pulled.holder == worker]:
            self._give_up(file, "the worker was lost")

    def close(self) -> None:
        for threads in (self._threads, self._disk):
            threads.shutdown(wait=False, cancel_futures=True)

    # -- trees -----------------------------------------------------------------------------------------

    def _new_directory(self, file: int) -> str:
        """A path at which nothing is yet."""
        return os.path.join(self._directory, f"{file}-{next(self._numbers)}")

    def _share_in_thread(self, wish: Wish, stored: str, holders: list[int]) -> None:
        path = self._new_directory(wish.file)
        try:
            tree_files.copy_stored(stored, path)
            tree = tree_files.load(path)
        except (OSError, BadTreeError):
            # It lies elsewhere by now.
            self._call(lambda: self._collect_over_links(wish, holders))
        else:
            self._call(lambda: self._on_result(wish, tree))

    def _copy(self, wish: Wish, source: str, is_tree: bool) -> None:
        self._threads.submit(self._copy_in_thread, wish, source, is_tree)

    def _copy_in_thread(self, wish: Wish, source: str, is_tree: bool) -> None:
        """A file of this machine that no worker has."""
        path = self._new_directory(wish.file)
        raw: Raw
        try:
            if is_tree:
                tree_files.take_in(NewTree(source), path, lambda _: "copy")
                raw = tree_files.load(path)
            else:
                raw = values.map_file(source)
        except (OSError, BadTreeError, values.DamagedValueError) as error:
            reason = str(error)
            self._call(lambda: self._on_unreachable(wish, 0, reason))
        else:
            self._call(lambda: self._on_result(wish, raw))

    def _write_in_thread(self, pulled: _Pulled, parts: list[bytes], outcome: Pull | None) -> None:
        """The next parts of a tree; only then is more asked for."""
        try:
            pulled.writer = pulled.writer or tree_files.Writer(pulled.path)
            for part in parts:
                pulled.writer.feed(part)
            complete = pulled.writer.received == pulled.assembler.size
            if complete:
                pulled.writer.finish()
        except (OSError, BadTreeError) as error:
            reason = f"it could not be written: {error}"
            self._call(lambda: self._give_up_pull(pulled, reason))
            return
        if complete:
            tree = tree_files.load(pulled.path)
            self._call(lambda: self._finish_pull(pulled, tree))
        elif outcome is not None:
            self._call(lambda: self._ask(pulled.holder, outcome))

    def _finish_pull(self, pulled: _Pulled, tree: Tree | None = None) -> None:
        if self._pulled.get(pulled.assembler.file) is not pulled:
            return
        del self._pulled[pulled.assembler.file]
        for wish in pulled.wishes:
            self._on_result(wish, tree or pulled.assembler.value)

    # -- direct links ----------------------------------------------------------------------------------

    def _fetch(self, wish: Wish, holder: int, addresses: list[Address]) -> None:
        self._threads.submit(self._fetch_in_thread, wish, holder, addresses)

    def _fetch_in_thread(self, wish: Wish, holder: int, addresses: list[Address]) -> None:
        path = self._new_directory(wish.file)
        try:
            encrypted = self._encrypted
            value = fetch(addresses, wish.file, self._secret, wish.size, path, encrypted=encrypted)
            raw: Raw = tree_files.load(path) if value is None else value
        except (BulkError, OSError) as error:
            state = link_state(error)
            self._call(lambda: self._on_not_fetched(wish, holder, state))
        else:
            self._call(lambda: self._on_fetched(wish, holder, raw))

    def _on_fetched(self, wish: Wish, holder: int, raw: Raw) -> None:
        self._note(holder, "made")
        self._on_result(wish, raw)

    def _on_not_fetched(self, wish: Wish, holder: int, state: LinkState | None) -> None:
        if holder not in self._hellos:
            self._on_unreachable(wish, holder, "the worker was lost")
            return
        if state is not None:
            self._note(holder, state)
        self._pull(wish, holder)

    def _note(self, holder: int, state: LinkState) -> None:
        place = self._place(holder)
        if place is None:
            return
        if state == "made":
            self._reach.note_made(_HERE, place, self._clock())
        else:
            self._reach.note_failed(_HERE, place, state == "silent", self._clock())

    def _may_fetch(self, holder: int) -> bool:
        place = self._place(holder)
        if place is None:
            return False
        advice = self._reach.advise(_HERE, place, self._clock())
        if advice == "probe":
            self._probe(holder, self._hellos[holder].addresses)
        return advice == "try"

    def _probe(self, holder: int, addresses: list[Address]) -> None:
        self._threads.submit(self._probe_in_thread, holder, addresses)

    def _probe_in_thread(self, holder: int, addresses: list[Address]) -> None:
        state: LinkState = "made"
        try:
            connect(addresses, self._secret).close()
        except BulkError as error:
            state = link_state(error) or "refused"
        self._call(lambda: self._note(holder, state))

    # -- relay -----------------------------------------------------------------------------------------

    def _pull(self, wish: Wish, holder: int) -> None:
        pulled = self._pulled.get(wish.file)
        if pulled is not None:
            pulled.wishes.append(wish)
            return
        assembler = Assembler(wish.file, wish.size, MANAGER)
        self._pulled[wish.file] = _Pulled(assembler, holder, [wish], self._new_directory(wish.file))
        for pull in assembler.first_pulls():
            self._ask(holder, pull)

    def _give_up(self, file: int, reason: str) -> None:
        self._give_up_pull(self._pulled[file], reason)

    def _give_up_pull(self, pulled: _Pulled, reason: str) -> None:
        if self._pulled.get(pulled.assembler.file) is not pulled:
            return
        del self._pulled[pulled.assembler.file]
        self._disk.submit(_discard, pulled)
        for wish in pulled.wishes:
            self._on_unreachable(wish, pulled.holder, reason)


def _discard(pulled: _Pulled) -> None:
    """What came of a tree that will not be whole. After what writes it."""
    if pulled.writer is not None:
        pulled.writer.close()
        tree_files.remove(pulled.path)


def map_here(path: str) -> memoryview | None:
    """A map of a value file of a worker on this node, or None when it can't be had (it lies elsewhere by
    now, or in another format)."""
    try:
        return values.map_file(path)
    except (OSError, values.DamagedValueError):
        return None
