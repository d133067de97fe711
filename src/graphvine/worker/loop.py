"""The agent's loop: the thread that stands around the core.

It owns the link to the manager, the executors, the store and the clock. A turn: wait until something is
there, hand all of it to the core, let the core decide, carry out what it says until it says nothing more.
Heartbeats leave from here, so they go on whatever the executors do. Nothing in a turn waits for anybody.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import zmq

import graphvine
from graphvine.protocol.approach import Approach, Patience
from graphvine.protocol.codec import decode_to_worker
from graphvine.protocol.connection import Connection
from graphvine.protocol.link import Link, ProtocolError
from graphvine.protocol.messages import (
    PROTOCOL_VERSION,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    Leaving,
    Refused,
    Rejoin,
    Told,
    ToManager,
    ToWorker,
    Turn,
    TurnGiven,
    Welcome,
)
from graphvine.protocol.node import node_id
from graphvine.worker import turns
from graphvine.worker.arrivals import Arrival, Arrivals
from graphvine.worker.carry import Hands
from graphvine.worker.core import Core
from graphvine.worker.gpus import offered
from graphvine.worker.hearing import hear
from graphvine.worker.node import capacity, resident_mb
from graphvine.worker.output import Allowance, Printed
from graphvine.worker.packets import TaskTold, TaskTurn
from graphvine.worker.pool import Pool
from graphvine.worker.pool_events import (
    ExecutorDied,
    ExecutorReady,
    ResultsArrived,
    ZygoteFailed,
    ZygoteReady,
)
from graphvine.worker.server import TransferServer
from graphvine.worker.settings import Settings
from graphvine.worker.store import SpillFailed, Store
from graphvine.worker.transfer import Fetched, Fetcher, Probed
from graphvine.worker.unpacking import Unpacking

if TYPE_CHECKING:
    from graphvine.worker.rest import Rest

log = logging.getLogger("graphvine.worker")

_MB = 2**20
_HOW_TO_FIND = "Give it the connection file of the manager that runs now, or its password."
#: A connection over which nothing gets through is given up after this, or this share of the time after which
#: the manager gives a silent worker up: then nothing is lost any more by beginning anew.
_GIVE_UP_S = 10.0
_GIVE_UP_SHARE = 1.5


class Offer(msgspec.Struct, frozen=True):
    """What this worker calls itself and offers (None: what the machine has)."""

    name: str = ""
    cores: float | None = None
    memory_mb: float | None = None
    disk_mb: float | None = None
    listen_on: str = ""
    """The address at which other workers may fetch files ("": all of this host)."""
    features: tuple[str, ...] = ()
    job: str = ""
    """The batch job that this worker is."""
    gpus: float | None = None
    place: tuple[int, int] = (0, 1)
    """Which of how many workers of this machine that share what it has."""


class Stay(msgspec.Struct, frozen=True):
    """How long a worker stays, in seconds but for ``until``, a time as ``time.monotonic`` has it."""

    until: float = math.inf
    """When its batch job ends."""
    grace_s: float = 0.0
    """So long it may take to leave; 0: it leaves at once."""
    idle_s: float = math.inf
    """It leaves when it had nothing to do for so long, if the manager can do without it; and when no manager
    could be reached for so long."""

    def leave_at(self, began: float) -> float:
        """When it has to begin to leave. (Of a short time at least three quarters are left for tasks.)"""
        return self.until - min(self.grace_s, (self.until - began) / 4)


class Ending(msgspec.Struct, frozen=True):
    """Why the loop ended. ``clean``: nobody needs to worry. ``alone``: its manager closed, or is gone; it
    might work for another."""

    reason: str
    clean: bool
    alone: bool = False


class Farewell(msgspec.Struct, frozen=True):
    """This worker is leaving, and is gone at ``until`` at the latest."""

    reason: str
    until: float


FOR_EVER = Stay()


class Loop:
    """One worker, from its first ``Hello`` to its end."""

    def __init__(
        self,
        connection: Connection,
        store: Store,
        pool: Pool,
        offer: Offer,
        settings: Settings,
        stay: Stay = FOR_EVER,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._store = store
        self._pool = pool
        self._offer = offer
        gpus = offered(offer.gpus, *offer.place, in_job=bool(offer.job))
        if offer.gpus and offer.gpus > len(gpus):
            log.warning("there are %d gpus for this worker, not %g", len(gpus), offer.gpus)
        self._capacity = capacity(store.scratch, offer.cores, offer.memory_mb, offer.disk_mb, len(gpus))
        self._core = Core(self._capacity, settings)
        self._link = Link(connection, settings.lost_s, decode_to_worker)
        self._arrivals = arrivals = Arrivals()
        # The manager says how links are to be; until then who comes for files has to wait.
        self._server = TransferServer(self._held, connection.secret, offer.listen_on, opened=False)
        self._fetcher = Fetcher(connection.secret, arrivals)
        self._unpacking = Unpacking(pool.log_directory)
        self._hands = Hands(
            self._core, store, pool, self._fetcher, arrivals, self._say, settings, self._unpacking, gpus
        )
        self._allowance = Allowance()
        self._joined = False
        self._worker = 0
        self._heartbeat_s = 0.0
        self._next_heartbeat = 0.0
        now = time.monotonic()
        self._lost_s = settings.lost_s if stay.idle_s == math.inf else stay.idle_s
        patience = Patience(
            connect_s=settings.connect_s,
            answer_s=settings.answer_s,
            refused_s=settings.refused_s,
            rejected_s=settings.rejected_s,
            lost_s=self._lost_s,
        )
        self._approach = Approach(connection.hosts, patience, now)
        self._ending: Ending | None = None
        self._last_words_s = 0.0
        self._stay = stay
        self._leave_at = stay.leave_at(now)
        self._idle_since = now
        self._farewell: Farewell | None = None
        self._watched: dict[int, tuple[str, float]] = {}
        self._signals = -1
        self._rest: Rest | None = None
        self._poller = zmq.Poller()

    # -- from outside ----------------------------------------------------------------------------------

    def watch(self, descriptor: int, reason: str, last_words_s: float = 0.0) -> None:
        """End when ``descriptor`` has something to read or is at its end.

        The goodbye to the manager may take ``last_words_s``."""
        self._watched[descriptor] = (reason, last_words_s)

    def watch_signals(self, descriptor: int) -> None:
        """Leave when a signal's number can be read from ``descriptor``, within the grace time; at once at a
        second one, unless that is SIGTERM, which says the same however often it comes."""
        self._watched[descriptor] = ("stopped by a signal", 1.0)
        self._signals = descriptor

    def wait_for_rest(self, rest: Rest) -> None:
        """Start no process in which code of the user's runs before the rest of the environment is there."""
        self._rest = rest
        self._hands.hold_back()

    def run(self) -> Ending:
        """Run until the end; then everything of this worker is gone but the pool and the store."""
        self._core.start()
        self._hands.carry_out(time.monotonic())
        self._say_hello()
        self._register()
        while self._ending is None:
            self._turn(self._poller.poll(self._timeout_ms()))
        return self._ending

    def _held(self, file: int, timeout_s: float) -> str | Arrival | None:
        """What the transfer server sends, asked by its threads."""
        # In this order: a file that gets into the store between the two is found.
        return self._arrivals.get(file, timeout_s) or self._store.lookup(file)

    def close(self) -> None:
        self._unpacking.close()
        self._fetcher.close()
        self._hands.close()
        self._arrivals.close()
        self._server.close()
        self._link.close(self._last_words_s)

    # -- a turn ----------------------------------------------------------------------------------------

    def _register(self) -> None:
        others = (self._store.descriptor, self._fetcher.descriptor, self._unpacking.descriptor)
        for descriptor in (*self._pool.descriptors(), *others):
            self._poller.register(descriptor, zmq.POLLIN)
        for descriptor in self._watched:
            self._poller.register(descriptor, zmq.POLLIN)
        if self._rest is not None:
            self._poller.register(self._rest.descriptor, zmq.POLLIN)
        self._register_link()

    def _register_link(self) -> None:
        self._poller.register(self._link.socket, zmq.POLLIN)
        self._poller.register(self._link.monitor, zmq.POLLIN)

    def _timeout_ms(self) -> int:
        now = time.monotonic()
        due = self._next_heartbeat if self._joined else min(self._approach.next_at, now + 1.0)
        deadline = self._core.deadline()
        if deadline is not None and deadline < due:
            due = deadline
        due = min(due, self._leave_at if self._farewell is None else self._farewell.until)
        if self._joined and self._core.idle():
            due = min(due, self._idle_since + self._stay.idle_s)
        return max(0, int((due - now) * 1000) + 1)

    def _turn(self, events: list[tuple[object, int]]) -> None:
        now = time.monotonic()
        for source, _ in events:
            self._on_source(source, now)
        deadline = self._core.deadline()
        if deadline is not None and deadline <= now:
            self._core.on_time(now)
        self._hands.carry_out(now)
        if self._joined:
            if self._next_heartbeat <= now:
                self._beat(now)
        else:
            self._wait_for_manager(now)
        if self._ending is None:
            self._leave_in_time(now)

    def _on_source(self, source: object, now: float) -> None:
        if source is self._link.socket:
            self._on_link(now)
        elif source is self._link.monitor:
            self._on_link_news(now)
        elif source in self._watched:
            self._on_watched(int(source), now)
        elif source == self._store.descriptor:
            self._on_store()
        elif source == self._fetcher.descriptor:
            self._on_fetches()
        elif source == self._unpacking.descriptor:
            for event in self._unpacking.completed():
                self._hands.take_environment(event, now)
        elif self._rest is not None and source == self._rest.descriptor:
            self._on_rest(self._rest, now)
        elif isinstance(source, int):
            self._on_pool(source, now)

    # -- the manager -----------------------------------------------------------------------------------

    def _say(self, messages: list[ToManager]) -> None:
        # Also before the answer to Hello: from then on the manager may ask for what this worker holds.
        self._link.say(messages)

    def _say_hello(self) -> None:
        hello = Hello(
            protocol=PROTOCOL_VERSION,
            graphvine=graphvine.__version__,
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            name=self._offer.name,
            host=socket.gethostname(),
            node=node_id(),
            store=self._store.directory,
            pid=os.getpid(),
            capacity=self._capacity,
            addresses=self._server.addresses,
            holds=self._core.holds(),
            features=list(self._offer.features),
            left_s=self._left_s(),
            job=self._offer.job,
        )
        self._link.say([hello])

    def _left_s(self) -> float:
        """How long tasks may take here; 0: as long as they like."""
        return 0.0 if self._leave_at == math.inf else max(0.001, self._leave_at - time.monotonic())

    def _on_link(self, now: float) -> None:
        try:
            for message in self._link.receive():
                self._on_message(message, now)
        except ProtocolError as error:
            log.error("the manager sent what this worker cannot read: %s", error)
            self._ending = Ending(f"the manager's message could not be read: {error}", clean=False)

    def _on_message(self, message: ToWorker, now: float) -> None:
        match hear(self._core, message, now):
            case Welcome() as welcome:
                self._on_welcome(welcome, now)
            case Rejoin():
                self._on_rejoin(now)
            case Refused(reason):
                self._ending = Ending(f"the manager refused this worker: {reason}", clean=False)
            case TurnGiven(replies):
                for reply in replies:
                    turns.answer(reply)
            case Leave(reason, closing):
                text = f"the manager sent this worker away: {reason}"
                if self._farewell is not None:
                    text = f"{self._farewell.reason}; whatever was needed of it lies elsewhere"
                self._ending = Ending(text, clean=True, alone=closing and self._farewell is None)

    def _on_welcome(self, welcome: Welcome, now: float) -> None:
        self._joined = True
        self._worker = welcome.worker
        self._heartbeat_s = welcome.heartbeat_s
        self._next_heartbeat = now + welcome.heartbeat_s
        self._core.on_welcome(welcome)
        self._link.forget_rejections()
        if welcome.silent_s:
            self._link.give_up_after(max(_GIVE_UP_S, _GIVE_UP_SHARE * welcome.silent_s))
        secret = self._connection.secret or welcome.secret
        self._fetcher.open(secret, welcome.encrypted)
        self._server.open(secret, welcome.encrypted)
        where = f"{self._link.host}:{self._connection.port}"
        log.info("joined manager %s at %s as worker %d", self._connection.name, where, welcome.worker)
        if self._farewell is not None:
            self._say([Leaving(self._farewell.reason, self._farewell.until - now)])

    def _on_rejoin(self, now: float) -> None:
        if not self._joined:
            # One of several: each frame that was on its way was answered so. Hello was said already.
            return
        log.warning("the manager had given this worker up; joining again")
        self._begin_anew(now)
        self._say_hello()

    def _on_link_news(self, now: float) -> None:
        if self._ending is not None:
            return  # it was told to leave, and then the manager went
        news = self._link.news()
        if news == "ended" and self._joined:
            log.warning("lost the connection to manager %s; trying again", self._connection.name)
            self._begin_anew(now)
            self._reopen(now)
        elif self._approach.on_news(news, self._link.times_rejected, now):
            port = self._connection.port
            told = "; ".join(f"{host} port {port}: {why}" for host, why in self._link.rejections.items())
            text = f"this is not the way to manager {self._connection.name}: {told}. {_HOW_TO_FIND}"
            self._ending = Ending(text, clean=False, alone=True)

    def _begin_anew(self, now: float) -> None:
        self._joined = False
        self._approach.lost(now)
        self._core.on_rejoin(now)

    def _reopen(self, now: float) -> None:
        self._poller.unregister(self._link.socket)
        self._poller.unregister(self._link.monitor)
        self._link.reopen()
        self._approach.tried(now)
        self._register_link()
        self._say_hello()

    def _wait_for_manager(self, now: float) -> None:
        if self._approach.is_over(now):
            where = f"{', '.join(self._connection.hosts)} port {self._connection.port}"
            text = f"no manager answered at {where} for {self._lost_s:g} s"
            for host, why in self._link.rejections.items():
                text += f"; {host}: {why}"
            self._ending = Ending(text, clean=False, alone=True)
        elif now >= self._approach.next_at:
            self._reopen(now)

    def _beat(self, now: float) -> None:
        self._next_heartbeat = now + self._heartbeat_s
        if not self._core.running():
            self._store.clear_spares()
        usage = self._store.usage()
        store_mb = (usage.memory_bytes + usage.disk_bytes) / _MB
        self._say([*self._allowance.excuse(), Heartbeat(self._core.running(), resident_mb(), store_mb)])

    # -- leaving ---------------------------------------------------------------------------------------

    def _on_watched(self, descriptor: int, now: float) -> None:
        reason, last_words_s = self._watched[descriptor]
        if descriptor != self._signals:
            self._leave(reason, last_words_s)
            return
        number = os.read(descriptor, 1)[0]
        name = signal.Signals(number).name
        if self._farewell is not None and number == signal.SIGTERM:
            # Batch systems signal a job's shell, which hands it on, and all its processes, too.
            until = min(self._farewell.until, now + self._stay.grace_s)
            self._farewell = Farewell(self._farewell.reason, until)
        elif self._farewell is None and self._is_needed():
            self._begin_to_leave(f"it was told to stop ({name})", self._stay.grace_s, now)
        else:
            self._leave(f"stopped by {name}", last_words_s)

    def _is_needed(self) -> bool:
        """Whether there is something to hand over, and time for it."""
        return self._stay.grace_s > 0 and (self._joined or bool(self._core.holds()))

    def _leave_in_time(self, now: float) -> None:
        """See to it that this worker leaves when its time is over, or when nobody needs it."""
        if self._farewell is not None:
            if self._farewell.until <= now:
                self._leave(f"{self._farewell.reason}; the time for leaving is over", 1.0)
        elif self._leave_at <= now:
            if self._is_needed():
                self._begin_to_leave("its wall time ends", max(0.0, self._stay.until - now), now)
            else:
                self._leave("its wall time ends", 1.0)
        elif self._stay.idle_s < math.inf:
            self._look_whether_idle(now)

    def _look_whether_idle(self, now: float) -> None:
        if not self._joined or not self._core.idle():
            self._idle_since = now
        elif now - self._idle_since >= self._stay.idle_s:
            # If it is not sent away, it asks again after as long.
            self._idle_since = now
            reason = f"it had nothing to do for {self._stay.idle_s:g} s"
            self._say([Leaving(reason, 0.0, idle=True)])

    def _begin_to_leave(self, reason: str, grace_s: float, now: float) -> None:
        """Begin nothing more; go when the manager has what it needs, at the latest in ``grace_s``."""
        log.info("leaving within %g s: %s", grace_s, reason)
        self._farewell = Farewell(reason, now + grace_s)
        if self._joined:
            self._say([Leaving(reason, grace_s)])
        self._core.on_leave()

    def _leave(self, reason: str, last_words_s: float) -> None:
        self._link.say([Goodbye(reason)])
        self._last_words_s = last_words_s if self._joined else 0.0
        self._ending = Ending(reason, clean=True)

    # -- executors, store, fetches ---------------------------------------------------------------------

    def _on_pool(self, descriptor: int, now: float) -> None:
        core = self._core
        for event in self._pool.on_readable(descriptor):
            if isinstance(event, ResultsArrived):
                self._hands.take_results(event.executor, event.done, now)
            elif isinstance(event, Printed):
                self._on_printed(event, now)
            elif isinstance(event, TaskTold):
                if self._joined:
                    self._say([Told(event.task, event.attempt, event.data)])
            elif isinstance(event, TaskTurn):
                if self._joined:
                    self._say([Turn(event.task, event.limit, event.reply)])
            elif isinstance(event, ExecutorReady):
                core.on_executor_ready(event.executor)
            elif isinstance(event, ExecutorDied):
                if event.killed_by_us:
                    core.on_executor_gone(event.executor)
                else:
                    core.on_executor_died(event.executor, event.cause, event.task, now)
            elif isinstance(event, ZygoteReady):
                core.on_zygote_ready(event.zygote, event.duration_s)
            elif isinstance(event, ZygoteFailed):
                core.on_zygote_failed(event.zygote, event.text, event.error, now)
            else:
                log.error("%s", event.cause)
                core.on_zygote_died(event.zygote, event.cause, now)

    def _on_printed(self, printed: Printed, now: float) -> None:
        # Before the results that are reported in this turn.
        if self._joined and (said := self._allowance.pass_on(printed, now)):
            self._say([*said])

    def _on_store(self) -> None:
        for event in self._store.completed():
            if isinstance(event, SpillFailed):
                log.warning(
                    "file %d stays in memory, it could not be moved to disk: %s", event.file, event.reason
                )

    def _on_rest(self, rest: Rest, now: float) -> None:
        self._poller.unregister(rest.descriptor)
        self._rest = None
        if rest.failure:
            self._leave(rest.failure, 1.0)
            self._ending = Ending(rest.failure, clean=False)
        else:
            self._hands.go_on(now)

    def _on_fetches(self) -> None:
        for event in self._fetcher.completed():
            if isinstance(event, Fetched):
                self._hands.take_fetched(event.file, event.size)
            elif isinstance(event, Probed):
                self._core.on_link(event.holder, event.state)
            else:
                self._hands.give_up_fetch(event)
