"""The fetcher brings files that this worker needs, from other workers (``worker.server``) or from this node.

It has its own threads. A link is greeted once and then used for any number of files; idle links are kept.
Bounds (fetches per source and in total) are waited for, not errors. The agent's loop learns of finished
fetches through ``Fetcher.descriptor``.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from graphvine.protocol.bulk import (
    BulkError,
    DamagedError,
    Link,
    LinkLostError,
    UnreachableError,
    connect,
    link_state,
)
from graphvine.protocol.given_files import UNREADABLE, why
from graphvine.protocol.messages import Address, LinkState, OnNode
from graphvine.protocol.trees import BadTreeError
from graphvine.worker.arrivals import Arrival, Arrivals
from graphvine.worker.files import HERE
from graphvine.worker.mailbox import Mailbox
from graphvine.worker.receiving import read_here, receive

#: Whom a fetch could not reach, those that were asked for at the same time don't try. Later, it is for the
#: core to say whom to try.
_UNREACHABLE_S = 5.0
_UNREACHABLE_REMEMBERED = 1000
_IDLE_LINKS = 32
#: Links that were kept for longer are not used again: who knows whether the other side still has its end.
_KEPT_S = 100.0
_CLOSE_S = 2.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Fetched(msgspec.Struct):
    """The whole file is at the path that was given (a tree at the one for trees), and was right."""

    file: int
    size: int
    holder: int


class Probed(msgspec.Struct):
    """What became of a link to a peer."""

    holder: int
    state: LinkState


class FetchFailed(msgspec.Struct):
    """``link``: no link could be made (firewall, NAT, gone), or nothing came over it (None: that was not it).
    ``no_room``: it was here that it failed, for want of space. ``kept``: what came before the link broke is
    kept for another holder; otherwise it is removed."""

    file: int
    holder: int
    reason: str
    link: LinkState | None = None
    no_room: bool = False
    kept: bool = False


class _Job(msgspec.Struct):
    file: int
    size: int
    holder: int
    addresses: tuple[Address, ...]
    arrival: Arrival
    coming: bool
    on_node: OnNode | None = None
    """It is read on this node, from nobody."""
    cancelled: bool = False
    """Nothing of it is reported any more."""
    link: Link | None = None
    counted: bool = False
    """Whether it counts against the bounds: not while its holder has nothing to send yet."""


class Fetcher:
    """``arrivals``: where a file is found while it is on its way."""

    def __init__(
        self,
        secret: str,
        arrivals: Arrivals | None = None,
        *,
        total: int = 8,
        per_source: int = 2,
        timeout_s: float = 20.0,
        encrypted: bool = False,
    ) -> None:
        self._secret = secret
        self._encrypted = encrypted
        self._arrivals = arrivals or Arrivals()
        self._per_source = per_source
        self._timeout_s = timeout_s
        self._total = total
        self._done: Mailbox[tuple[_Job | None, Fetched | FetchFailed | Probed]] = Mailbox()
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._jobs: dict[int, _Job] = {}
        self._active: dict[tuple[Address, ...], int] = {}
        self._idle: deque[tuple[tuple[Address, ...], Link, float]] = deque()
        """Links that nobody uses, and since when."""
        self._unreachable: dict[tuple[Address, ...], tuple[float, UnreachableError]] = {}
        self._probes: deque[tuple[int, tuple[Address, ...]]] = deque()
        self._probing = False
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._parked = 0
        self._closing = False

    def open(self, secret: str, encrypted: bool) -> None:
        """What links prove, and whether they are encrypted: where it becomes known before the first fetch."""
        self._secret, self._encrypted = secret, encrypted

    @property
    def descriptor(self) -> int:
        """Readable when ``completed`` has something."""
        return self._done.descriptor

    def completed(self) -> list[Fetched | FetchFailed | Probed]:
        events = []
        for job, event in self._done.take_all():
            if job is not None:
                with self._changed:
                    if job.cancelled:
                        continue
                    del self._jobs[job.file]
            events.append(event)
        return events

    def probe(self, holder: int, addresses: Sequence[Address]) -> None:
        """See whether a link can be made; one that was made is kept. Ends in Probed, one after the other."""
        with self._changed:
            self._probes.append((holder, tuple(addresses)))
            if not self._probing:
                self._probing = True
                threading.Thread(target=self._probe_all, name="graphvine-probe", daemon=True).start()

    def start(
        self,
        file: int,
        size: int,
        holder: int,
        addresses: Sequence[Address],
        path: str,
        tree_path: str = "",
        *,
        coming: bool = False,
    ) -> None:
        """Fetch ``file`` (``size`` bytes expected) from worker ``holder`` into ``path`` (made, or
        overwritten; give ``Store.incoming``, which is another each time), a tree into ``tree_path``.
        ``coming``: the holder is perhaps about to get it itself. Ends in exactly one of Fetched, FetchFailed,
        or ``cancel``."""
        arrival = self._arrivals.add(Arrival(file, size, path, tree_path))
        self._begin(_Job(file, size, holder, tuple(addresses), arrival, coming))

    def go_on(
        self, file: int, size: int, holder: int, addresses: Sequence[Address], *, coming: bool = False
    ) -> bool:
        """As ``start``, from where a fetch of this file that failed has come to. False when nothing of it was
        kept."""
        arrival = self._arrivals.get(file)
        if arrival is None or arrival.size != size:
            return False
        self._begin(_Job(file, size, holder, tuple(addresses), arrival, coming))
        return True

    def read(self, file: int, what: OnNode, path: str, tree_path: str) -> None:
        """As ``start``, from a file of this node; the holder that is reported is ``HERE``."""
        arrival = self._arrivals.add(Arrival(file, what.size, path, tree_path))
        self._begin(_Job(file, what.size, HERE, (), arrival, False, what))

    def _begin(self, job: _Job) -> None:
        with self._changed:
            self._jobs[job.file] = job
            self._waiting.append(job)
            self._add_thread()
            self._changed.notify()

    def _add_thread(self) -> None:
        if self._busy + len(self._waiting) > len(self._threads) - self._parked < self._total:
            thread = threading.Thread(target=self._work, name="graphvine-fetch", daemon=True)
            self._threads.append(thread)
            thread.start()

    def cancel(self, file: int) -> None:
        """Stop a fetch; nothing is reported about it (any more), and what came is removed."""
        with self._changed:
            job = self._jobs.pop(file, None)
            if job is None:
                # What a fetch that failed has left.
                self._give_up(self._arrivals.get(file))
                return
            job.cancelled = True
            self._arrivals.forget(file, job.arrival)
            if job in self._waiting:
                self._waiting.remove(job)
                job.arrival.remove()
            elif job.link is not None:
                job.link.abort()

    def close(self) -> None:
        """Stop everything; unfinished fetches are not reported."""
        for file in list(self._jobs):
            self.cancel(file)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            # One that is just connecting may take longer; it has nothing left to report.
            thread.join(_CLOSE_S)
        with self._changed:
            for _, link, _ in self._idle:
                link.close()
            self._idle.clear()
        self._done.close()

    # -- in the threads --------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            event = self._run(job)
            with self._changed:
                if job.counted:
                    self._count(job, -1)
                else:
                    self._parked -= 1
                if job.cancelled:
                    job.arrival.remove()
                else:
                    self._done.put((job, event))
                self._changed.notify_all()

    def _count(self, job: _Job, change: int) -> None:
        job.counted = change > 0
        self._busy += change
        active = self._active.pop(job.addresses, 0) + change
        if active:
            self._active[job.addresses] = active

    def _park(self, job: _Job) -> None:
        """The holder has nothing to send yet: others may go first. Or two that wait for each other's files
        would wait for ever."""
        if not job.counted:
            return
        with self._changed:
            self._count(job, -1)
            self._parked += 1
            self._add_thread()
            self._changed.notify_all()

    def _unpark(self, job: _Job) -> None:
        with self._changed:
            self._parked -= 1
            self._count(job, 1)

    def _give_up(self, arrival: Arrival | None) -> None:
        if arrival is not None:
            self._arrivals.forget(arrival.file, arrival)
            arrival.remove()

    def _next_job(self) -> _Job | None:
        with self._changed:
            while not self._closing:
                for job in self._waiting if self._busy < self._total else ():
                    if self._active.get(job.addresses, 0) < self._per_source:
                        self._waiting.remove(job)
                        self._count(job, 1)
                        return job
                self._changed.wait()
            return None

    def _run(self, job: _Job) -> Fetched | FetchFailed:
        if job.on_node is not None:
            return self._run_here(job, job.on_node)
        try:
            self._fetch(job)
        except DamagedError as error:
            return self._spoiled(job, str(error))
        except BulkError as error:
            reason = f"it cannot be reached: {error}" if isinstance(error, UnreachableError) else str(error)
            return FetchFailed(job.file, job.holder, reason, link_state(error), kept=True)
        except BadTreeError as error:
            return self._spoiled(job, str(error))
        except OSError as error:
            reason = f"it cannot be written here: {error.strerror or error}"
            return self._spoiled(job, reason, error.errno in _NO_ROOM)
        return Fetched(job.file, job.size, job.holder)

    def _run_here(self, job: _Job, what: OnNode) -> Fetched | FetchFailed:
        try:
            job.size = read_here(what, job.arrival)
        except UNREADABLE as error:
            no_room = isinstance(error, OSError) and error.errno in _NO_ROOM
            return self._spoiled(job, why(error, what.path), no_room)
        return Fetched(job.file, job.size, HERE)

    def _spoiled(self, job: _Job, reason: str, no_room: bool = False) -> FetchFailed:
        """What came is of no use: another holder sends all of it."""
        self._give_up(job.arrival)
        return FetchFailed(job.file, job.holder, reason, no_room=no_room)

    def _fetch(self, job: _Job) -> None:
        link = self._take_idle(job.addresses)
        if link is not None:
            try:
                self._fetch_over(job, link)
            except LinkLostError:
                # The holder may have closed it while it was idle.
                if job.cancelled:
                    raise
            else:
                return
        self._fetch_over(job, self._connect(job.addresses))

    def _fetch_over(self, job: _Job, link: Link) -> None:
        try:
            with self._changed:
                if job.cancelled:
                    raise LinkLostError("cancelled")
                job.link = link
            arrival = job.arrival
            at = arrival.written
            tree = link.ask(job.file, job.size, at, job.coming, lambda: self._park(job))
            if not job.counted:
                self._unpark(job)
            arrival.begin(tree)
            arrival.complete(receive(link, arrival))
        except BaseException:
            link.close()
            raise
        finally:
            job.link = None
        self._keep_idle(job.addresses, link)

    def _connect(self, addresses: tuple[Address, ...]) -> Link:
        with self._changed:
            until, failure = self._unreachable.get(addresses, (0.0, None))
        if failure is not None and time.monotonic() < until:
            raise UnreachableError(str(failure), failure.silent)
        try:
            link = connect(addresses, self._secret, self._timeout_s, encrypted=self._encrypted)
        except UnreachableError as error:
            with self._changed:
                if len(self._unreachable) >= _UNREACHABLE_REMEMBERED:
                    self._unreachable.clear()
                self._unreachable[addresses] = (time.monotonic() + _UNREACHABLE_S, error)
            raise
        with self._changed:
            self._unreachable.pop(addresses, None)
        return link

    def _probe_all(self) -> None:
        while True:
            with self._changed:
                if self._closing or not self._probes:
                    self._probing = False
                    return
                holder, addresses = self._probes.popleft()
            self._probe(holder, addresses)

    def _probe(self, holder: int, addresses: tuple[Address, ...]) -> None:
        try:
            link = connect(addresses, self._secret, self._timeout_s, encrypted=self._encrypted)
        except BulkError as error:
            state: LinkState = link_state(error) or "refused"
        else:
            state = "made"
            with self._changed:
                self._unreachable.pop(addresses, None)
            self._keep_idle(addresses, link)
        with self._changed:
            if not self._closing:
                self._done.put((None, Probed(holder, state)))

    def _take_idle(self, addresses: tuple[Address, ...]) -> Link | None:
        found: Link | None = None
        with self._changed:
            since = time.monotonic() - _KEPT_S
            for kept in [kept for kept in self._idle if kept[0] == addresses]:
                self._idle.remove(kept)
                if kept[2] > since and not kept[1].is_dead():
                    found = kept[1]
                    break
                kept[1].close()
        return found

    def _keep_idle(self, addresses: tuple[Address, ...], link: Link) -> None:
        with self._changed:
            self._idle.append((addresses, link, time.monotonic()))
            too_many = self._closing or len(self._idle) > _IDLE_LINKS
            oldest = self._idle.popleft()[1] if too_many else None
        if oldest is not None:
            oldest.close()
