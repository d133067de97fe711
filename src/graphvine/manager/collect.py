"""Brings wanted results into the user's process.

Three ways, the first that works: a worker on this node left a file that can be mapped; the holder's transfer
server can be reached; else the bytes are pulled piece by piece over the worker's own connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from graphvine.manager.instructions import Available
from graphvine.manager.run import Raw
from graphvine.protocol import values
from graphvine.protocol.bulk import BulkError, fetch
from graphvine.protocol.messages import Address, Hello, Piece, Pull, ToWorker
from graphvine.protocol.pieces import Assembler, Damaged

_THREADS = 4
#: The number under which the manager itself asks for pieces.
MANAGER = 0


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


class Collector:
    """Lives in the manager's thread; direct links are read in threads that report through ``call``."""

    def __init__(
        self,
        node: str,
        secret: str,
        call: Callable[[Callable[[], None]], None],
        say: Callable[[int, list[ToWorker]], None],
        on_result: Callable[[Wish, Raw], None],
        on_unreachable: Callable[[Wish, int, str], None],
    ) -> None:
        self._node = node
        self._secret = secret
        self._call = call
        self._say = say
        self._on_result = on_result
        self._on_unreachable = on_unreachable
        self._hellos: dict[int, Hello] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._unreachable: set[int] = set()
        """Workers whose transfer server could not be reached: asked by relay from then on."""
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
        for holder in holders:
            if hellos[holder].node == self._node:
                raw = map_here(os.path.join(hellos[holder].store, str(wish.file)))
                if raw is not None:
                    self._on_result(wish, raw)
                    return
        if not holders:
            self._on_unreachable(wish, 0, "no holder is left")
            return
        direct = [
            holder for holder in holders if holder not in self._unreachable and hellos[holder].addresses
        ]
        if direct:
            self._fetch(wish, direct[0], hellos[direct[0]].addresses)
        else:
            self._pull(wish, holders[0])

    def on_piece(self, worker: int, piece: Piece) -> None:
        """A piece of a pulled file came (late ones of a given-up pull are ignored)."""
        pulled = self._pulled.get(piece.file)
        if pulled is None or pulled.holder != worker:
            return
        outcome = pulled.assembler.on_piece(piece)
        if isinstance(outcome, Pull):
            self._say(worker, [outcome])
        elif isinstance(outcome, Damaged):
            self._give_up(piece.file, outcome.reason)
        elif pulled.assembler.complete:
            del self._pulled[piece.file]
            for wish in pulled.wishes:
                self._on_result(wish, pulled.assembler.into)

    def on_worker_parted(self, worker: int) -> None:
        self._unreachable.discard(worker)
        for file in [file for file, pulled in self._pulled.items() if pulled.holder == worker]:
            self._give_up(file, "the worker was lost")

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # -- direct links ----------------------------------------------------------------------------------

    def _fetch(self, wish: Wish, holder: int, addresses: list[Address]) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="graphvine-collect")
        self._threads.submit(self._fetch_in_thread, wish, holder, addresses)

    def _fetch_in_thread(self, wish: Wish, holder: int, addresses: list[Address]) -> None:
        raw = memoryview(bytearray(wish.size))
        try:
            fetch(addresses, wish.file, self._secret, raw)
        except (BulkError, OSError):
            self._call(lambda: self._on_no_link(wish, holder))
        else:
            self._call(lambda: self._on_result(wish, raw))

    def _on_no_link(self, wish: Wish, holder: int) -> None:
        if holder not in self._hellos:
            self._on_unreachable(wish, holder, "the worker was lost")
            return
        self._unreachable.add(holder)
        self._pull(wish, holder)

    # -- relay -----------------------------------------------------------------------------------------

    def _pull(self, wish: Wish, holder: int) -> None:
        pulled = self._pulled.get(wish.file)
        if pulled is not None:
            pulled.wishes.append(wish)
            return
        assembler = Assembler(wish.file, memoryview(bytearray(wish.size)), MANAGER)
        self._pulled[wish.file] = _Pulled(assembler, holder, [wish])
        self._say(holder, list(assembler.first_pulls()))

    def _give_up(self, file: int, reason: str) -> None:
        pulled = self._pulled.pop(file)
        for wish in pulled.wishes:
            self._on_unreachable(wish, pulled.holder, reason)


def map_here(path: str) -> memoryview | None:
    """A map of a value file of a worker on this node, or None when it can't be had (it lies elsewhere by
    now, or in another format)."""
    try:
        return values.map_file(path)
    except (OSError, values.DamagedValueError):
        return None
