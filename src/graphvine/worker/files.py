"""Files on this worker, and files on their way to it. Part of the agent's core: no I/O.

- A file is held inline (its pickle, in the agent's memory) or stored (in the store; the loop knows where).
- A file that is not held has at most one fetch, whatever number of jobs wait for it. Its holders are tried
  one after the other; when none is left it is reported missing and waits for the manager's word.
- A file of this node (``Source.on_node``) is read here; only if that fails, it is got as any other.
- Whom this worker could not reach lately it does not try (see ``links``).
- A file whose list of holders is empty is pulled through the manager: over all files together, as many pieces
  are asked for at a time as come without waiting for each other (see ``protocol.pace``).
- Files are immutable: a second copy that arrives is the same as the first.
- A file that an executor may be about to read stays in the store until it is done, whatever the manager says:
  the manager may have learned of a loss while the replica that mends it was arriving here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec
import xxhash

from graphvine.protocol.messages import Address, Missing, Piece, Pull, Source, Taken
from graphvine.protocol.pace import Pace
from graphvine.protocol.pieces import make_piece, not_held
from graphvine.protocol.values import MAGIC
from graphvine.worker.instructions import (
    DropFiles,
    FinishPull,
    Note,
    ProbePeer,
    ReadHere,
    SendPiece,
    StartFetch,
    StopFetch,
    WritePiece,
)
from graphvine.worker.links import Links
from graphvine.worker.outbox import Outbox
from graphvine.worker.settings import Settings
from graphvine.worker.tasks import Job

#: How a stored file stands in ``Files.held`` (an inline one stands there with its bytes).
STORED = ""
#: In place of a holder: the file is being read on this node.
HERE = -1


class Fetch(msgspec.Struct):
    """A file on its way. ``holder`` is being asked now (0: nobody, the manager is to name others; or
    ``HERE``)."""

    file: int
    size: int
    holder: int
    left: list[int]
    tried: list[int]
    reasons: list[str]
    coming: int = 0
    """One of the holders, which perhaps does not have it yet."""


class Relay(msgspec.Struct):
    """A file pulled through the manager. ``tries`` has the offsets asked for and not answered, how often and
    when last."""

    file: int
    size: int
    next: int = 0
    received: int = 0
    tries: dict[int, tuple[int, float]] = {}


class Files:
    """The table of files. Methods that make a file available return the jobs that became ready."""

    def __init__(self, settings: Settings, outbox: Outbox, links: Links) -> None:
        self.held: dict[int, bytes | str] = {}
        self.waiters: dict[int, list[Job]] = {}
        self.sizes: dict[int, int] = {}
        """Sizes of the stored files that are values (no blobs)."""
        self.worker = 0
        """This worker's number."""
        self.now = 0.0
        self._settings = settings
        self._outbox = outbox
        self._links = links
        self._blobs: set[int] = set()
        self._peers: dict[int, list[Address]] = {}
        self._fetches: dict[int, Fetch] = {}
        self._relays: dict[int, Relay] = {}
        self._relays_with_more: deque[Relay] = deque()
        self._pieces_out = 0
        self._pace = Pace(settings.pieces_ahead)
        self._taken = 0
        """Pieces that came since the manager was told how many."""
        self._pins: dict[int, int] = {}
        """Files that packets read, which executors were given: how many packets."""
        self._doomed: set[int] = set()
        """Those of them that are not wanted any more."""

    # -- holding ---------------------------------------------------------------------------------------

    def hold(self, file: int, value: bytes | str) -> list[Job]:
        """A file is here. Returns the jobs that waited for nothing else."""
        self.held[file] = value
        self._doomed.discard(file)
        if file in self._fetches:
            self._stop_fetch(file)
        waiting = self.waiters.pop(file, None)
        if waiting is None:
            return []
        ready = []
        for job in waiting:
            job.missing -= 1
            if job.missing == 0:
                ready.append(job)
        return ready

    def take_value(self, file: int, value: bytes) -> list[Job]:
        """The manager sent a small file. It is what counts: where its task was cancelled while the news of a
        large result was under way, that result is dropped; also one that somebody still reads."""
        stored = self.held.get(file) == STORED or file in self._doomed
        ready = self.hold(file, value)
        if stored:
            self.sizes.pop(file, None)
            self.drop_stray(file)
        return ready

    def note_made(self, file: int, size: int) -> None:
        """A task ran here, and its result is in the store."""
        self.sizes[file] = size
        self._doomed.discard(file)

    def is_blob(self, file: int) -> bool:
        return file in self._blobs

    def note_blob(self, blob: int) -> None:
        """A file whose content is a blob, never a value."""
        self._blobs.add(blob)

    def drop(self, files: Iterable[int]) -> None:
        """Forget files, and stop those that are on their way."""
        stored = []
        for file in files:
            if self.held.pop(file, b"") == STORED:
                if file in self._pins:
                    self._doomed.add(file)
                else:
                    stored.append(file)
            self.sizes.pop(file, None)
            self._blobs.discard(file)
            self._stop_fetch(file)
            if file in self._relays:
                self._forget_relay(file)
                stored.append(file)
        if stored:
            self._outbox.instructions.append(DropFiles(stored))
        self._ask_pieces()

    def _stop_fetch(self, file: int) -> None:
        if self._fetches.pop(file, None) is not None:
            self._outbox.instructions.append(StopFetch(file))

    def drop_stray(self, file: int) -> None:
        """A file turned up in the store that nobody wants (there)."""
        if self.held.get(file) == STORED:
            return
        if file in self._pins:
            self._doomed.add(file)
        else:
            self._outbox.instructions.append(DropFiles([file]))

    def pin(self, files: Iterable[int]) -> None:
        """An executor was given a packet that reads these files."""
        for file in files:
            self._pins[file] = self._pins.get(file, 0) + 1

    def unpin(self, files: Iterable[int]) -> None:
        """A packet that reads these files is no longer with an executor."""
        for file in files:
            self._pins[file] -= 1
            if not self._pins[file]:
                del self._pins[file]
                if file in self._doomed:
                    self._doomed.discard(file)
                    self._outbox.instructions.append(DropFiles([file]))

    def on_lost(self, file: int) -> None:
        """A stored file is not there any more."""
        if self.held.pop(file, None) is not None and self.sizes.pop(file, None) is not None:
            self._outbox.lost.append(file)

    def on_rejoin(self) -> None:
        """The manager knows of nothing here but the stored values (``sizes``): forget the rest."""
        self.drop([*self._fetches, *self._relays])
        self.drop([file for file in self.held if file not in self.sizes])
        self.waiters.clear()
        self._taken = 0

    # -- fetching --------------------------------------------------------------------------------------

    def is_coming(self, file: int) -> bool:
        return file in self._fetches or file in self._relays

    def note_peers(self, peers: dict[int, list[Address]]) -> None:
        self._peers.update(peers)

    def tell_taken(self) -> None:
        """Say how many pieces came since the last turn."""
        if self._taken:
            self._outbox.messages.append(Taken(self._taken))
            self._taken = 0

    def on_probe(self, peers: list[int]) -> None:
        """Links that may work by now are to be tried."""
        known = [(peer, self._peers[peer]) for peer in peers if peer in self._peers]
        self._outbox.instructions += [ProbePeer(peer, addresses) for peer, addresses in known]

    def on_source(self, source: Source) -> None:
        """The manager names holders of a file."""
        file = source.file
        if file in self.held or file in self._relays:
            return
        fetch = self._fetches.get(file)
        if fetch is not None and fetch.holder:
            fetch.left += [h for h in source.holders if h not in fetch.left and h not in fetch.tried]
            return
        self._fetches.pop(file, None)
        if source.on_node is not None:
            self._fetches[file] = Fetch(file, source.size, HERE, list(source.holders), [], [], source.coming)
            self._outbox.instructions.append(ReadHere(file, source.on_node))
            return
        if not source.holders:
            self._start_relay(source)
            return
        # The manager must come to know everybody who was tried, or it names the same ones in turn for ever.
        tried = fetch.tried if fetch is not None else []
        holders = list(source.holders)
        self._fetches[file] = fetch = Fetch(file, source.size, 0, holders, tried, [], source.coming)
        self._ask_next(fetch)

    def on_fetched(self, file: int, size: int) -> list[Job]:
        """A fetch or a relay is complete and in the store."""
        fetch = self._fetches.pop(file, None)
        known = fetch is not None or file in self._relays
        if fetch is not None and fetch.holder > 0:
            self._links.note(fetch.holder, "made")
        if fetch is not None and fetch.holder == HERE and fetch.size != size:
            self._outbox.sizes[file] = size
        if file in self._relays:
            # Perhaps a fetch that had been given up came to its end while pieces are on their way.
            self._forget_relay(file)
            self._ask_pieces()
        if not known:
            self.drop_stray(file)
            return []
        if file not in self._blobs:
            self.sizes[file] = size
        self._outbox.fetched.append(file)
        return self.hold(file, STORED)

    def on_fetch_failed(self, file: int, holder: int, reason: str) -> None:
        fetch = self._fetches.get(file)
        if fetch is None and file not in self._relays:
            self._outbox.instructions.append(StopFetch(file))
        if fetch is None or fetch.holder != holder:
            return
        if holder == HERE:
            self._on_unread(fetch, reason)
            return
        fetch.reasons.append(f"worker {holder}: {reason}")
        self._ask_next(fetch)

    def _on_unread(self, fetch: Fetch, reason: str) -> None:
        """A file could not be read on this node."""
        self._outbox.instructions.append(Note("info", f"file {fetch.file} is not read here: {reason}"))
        if fetch.left:
            self._ask_next(fetch)
        else:
            del self._fetches[fetch.file]
            self._start_relay(Source(fetch.file, fetch.size, []))

    def report_missing(self, file: int, reason: str) -> None:
        """A job needs a file that is not here, not made here and not coming."""
        self._fetches[file] = Fetch(file, 0, 0, [], [], [])
        self._outbox.missing.append(Missing(file, [], reason))

    def _ask_next(self, fetch: Fetch) -> None:
        while fetch.left:
            holder = fetch.left.pop(0)
            fetch.tried.append(holder)
            addresses = self._peers.get(holder)
            if self._links.is_barred(holder):
                fetch.reasons.append(f"worker {holder}: it could not be reached just before")
                continue
            if holder != self.worker and addresses:
                fetch.holder = holder
                coming = holder == fetch.coming
                ask = StartFetch(fetch.file, fetch.size, holder, addresses, coming)
                self._outbox.instructions.append(ask)
                return
            fetch.reasons.append(f"worker {holder}: no address known")
        fetch.holder = 0
        self._outbox.missing.append(Missing(fetch.file, fetch.tried, "; ".join(fetch.reasons)))

    # -- pulling through the manager -------------------------------------------------------------------

    def _start_relay(self, source: Source) -> None:
        relay = Relay(source.file, source.size)
        self._relays[source.file] = relay
        self._relays_with_more.append(relay)
        self._ask_pieces()

    def _ask_pieces(self) -> None:
        queue, length = self._relays_with_more, self._settings.piece_bytes
        while queue and self._pieces_out < self._pace.limit:
            relay = queue[0]
            if self._relays.get(relay.file) is not relay or (relay.next and relay.next >= relay.size):
                queue.popleft()
                continue
            self._ask_piece(relay, relay.next)
            relay.next += length

    def _ask_piece(self, relay: Relay, offset: int) -> None:
        relay.tries[offset] = relay.tries.get(offset, (0, 0.0))[0] + 1, self.now
        self._pieces_out += 1
        self._outbox.messages.append(Pull(relay.file, offset, self._settings.piece_bytes, self.worker))

    def on_piece(self, piece: Piece) -> list[Job]:
        """A piece of a relayed file came through the manager."""
        self._taken += 1
        relay = self._relays.get(piece.file)
        if relay is None or piece.offset not in relay.tries:
            return []
        self._pieces_out -= 1
        self._pace.note(self.now - relay.tries[piece.offset][1])
        ready: list[Job] = []
        if piece.total < 0:
            self._fail_relay(relay, "no worker that holds it could send it")
        elif self._is_damaged(piece):
            self._ask_again(relay, piece.offset)
        else:
            ready = self._take_piece(relay, piece)
        self._ask_pieces()
        return ready

    def _is_damaged(self, piece: Piece) -> bool:
        expected = min(self._settings.piece_bytes, piece.total - piece.offset)
        return len(piece.data) != expected or xxhash.xxh3_64_intdigest(piece.data) != piece.checksum

    def _ask_again(self, relay: Relay, offset: int) -> None:
        tries = relay.tries[offset][0]
        if tries < self._settings.piece_tries:
            self._ask_piece(relay, offset)
        else:
            self._fail_relay(relay, f"the piece at byte {offset} came damaged {tries} times")

    def _take_piece(self, relay: Relay, piece: Piece) -> list[Job]:
        file = relay.file
        if piece.total > relay.size and relay not in self._relays_with_more:
            # The manager did not know how many bytes travel of a file of its own machine.
            self._relays_with_more.append(relay)
        relay.size = piece.total
        del relay.tries[piece.offset]
        if relay.received == 0 and len(piece.data) == piece.total and self._is_inline(piece):
            # With the pieces that were asked for beyond its end.
            self._forget_relay(file)
            self._outbox.fetched.append(file)
            return self.hold(file, piece.data)
        relay.received += len(piece.data)
        write = WritePiece(file, piece.offset, piece.data, piece.total, piece.tree)
        self._outbox.instructions.append(write)
        if relay.received >= relay.size:
            self._outbox.instructions.append(FinishPull(file, relay.size))
        return []

    def _is_inline(self, piece: Piece) -> bool:
        """A value that its maker held inline is sent as its bare pickle."""
        return piece.file not in self._blobs and not piece.tree and not piece.data.startswith(MAGIC)

    def on_pull_failed(self, file: int, reason: str) -> None:
        """A relayed file could not be written here."""
        relay = self._relays.get(file)
        if relay is not None:
            self._fail_relay(relay, reason)
            self._ask_pieces()

    def _fail_relay(self, relay: Relay, reason: str) -> None:
        self._forget_relay(relay.file)
        self._outbox.instructions.append(DropFiles([relay.file]))
        self._outbox.instructions.append(Note("warning", f"file {relay.file} could not be pulled: {reason}"))
        self.report_missing(relay.file, reason)

    def _forget_relay(self, file: int) -> None:
        relay = self._relays.pop(file)
        # The piece being answered was counted off already.
        self._pieces_out = sum(len(r.tries) for r in self._relays.values())
        relay.tries.clear()

    # -- answering pulls -------------------------------------------------------------------------------

    def on_pull(self, pull: Pull) -> None:
        """The manager asks for a piece, for itself or for another worker."""
        value = self.held.get(pull.file)
        if isinstance(value, bytes):
            self._outbox.messages.append(make_piece(pull, memoryview(value)))
        elif value is None:
            self._outbox.messages.append(not_held(pull))
        else:
            self._outbox.instructions.append(SendPiece(pull.file, pull.offset, pull.length, pull.requester))
