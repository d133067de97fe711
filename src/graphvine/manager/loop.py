"""The manager's loop: the thread that stands around the core.

It owns the sockets and the clock. A turn: wait until something is there, hand all of it to the core, let the
core decide once, carry out what it says. Other threads reach it through ``call`` only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import zmq

import graphvine
from graphvine.manager.audience import Audience, Listener
from graphvine.manager.calls import Calls
from graphvine.manager.collect import Collector, Wish
from graphvine.manager.core import Core
from graphvine.manager.descriptors import no_room
from graphvine.manager.engine import Progress, Stats
from graphvine.manager.gate import Gate
from graphvine.manager.giving import Giver
from graphvine.manager.instructions import (
    Asked,
    Available,
    Instruction,
    Note,
    PartWorker,
    PlanDone,
    PlanFailed,
    Say,
    SendAway,
    Settled,
    Stage,
    Unstage,
)
from graphvine.manager.peers import Peer, Peers, refusal, with_seen
from graphvine.manager.plan import Plan
from graphvine.manager.reach import Reach
from graphvine.manager.relay import Relay
from graphvine.manager.run import NOTHING_KNOWN, ManagedRun, Raw
from graphvine.manager.runs import Runs
from graphvine.manager.staging import STAGING, Staging
from graphvine.protocol.codec import ProtocolError, decode_to_manager, encode, encode_frames
from graphvine.protocol.errors import ManagerClosedError, check_process
from graphvine.protocol.messages import (
    Attend,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    Leaving,
    Output,
    Piece,
    Pull,
    Refused,
    Rejoin,
    Report,
    Retire,
    Taken,
    Told,
    ToManager,
    ToWorker,
    Turn,
)

log = logging.getLogger("graphvine.manager")

T = TypeVar("T")


class Loop:
    """One thread, one core, one gate."""

    def __init__(self, gate: Gate, core: Core, node: str, secret: str, trees: str) -> None:
        """``trees``: the directory into which results come that are files or directories (made here)."""
        os.makedirs(trees, exist_ok=True)
        self._gate = gate
        self._core = core
        self._calls = Calls()
        self.call = self._calls.call
        self._pid = os.getpid()
        self._closing = False
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._node = node
        self._peers = Peers()
        self._runs = Runs(core)
        settings = core.settings
        self._collector = Collector(
            node,
            secret,
            trees,
            self.call,
            lambda worker, pull: self._relay.ask(worker, pull),
            core.place,
            Reach(settings.retry_link_s, settings.retry_link_most_s, settings.links_remembered),
            time.monotonic,
            self._on_result,
            self._on_unreachable,
            encrypted=settings.encrypted,
        )
        self._staging = Staging(os.path.join(trees, "staged"), self._collector, self.call, core)
        self._relay = Relay(
            core.holders,
            self._peers.__contains__,
            self._say,
            core.blob,
            self._give,
            self._collector.on_piece,
            time.monotonic,
            settings.relayed_pieces,
        )
        self._giver = Giver(self.call, self._relay.on_given, self._on_given_read, self._on_given_lost)
        self._audience = Audience(core, self._send, self.retire)
        self.on_worker_joined: Callable[[int, Hello], None] = lambda worker, hello: None
        self.on_output: Callable[[Output], None] = lambda output: None
        """Must not wait."""
        self.flush_output: Callable[[], None] = lambda: None
        """Called by who has waited for results; may wait for what was printed to be seen."""
        self._thread = threading.Thread(target=self._main, name="graphvine-manager", daemon=True)

    # -- any thread ------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def check_process(self) -> None:
        """Raises ManagerClosedError in a forked child, where waiting would never end."""
        check_process(self._pid)

    def ask(self, question: Callable[[], T]) -> T:
        """The answer of ``question``, called in the loop's thread. Raises ManagerClosedError."""
        self.check_process()
        if threading.current_thread() is self._thread:
            return question()
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(question())
            except Exception as error:  # noqa: BLE001 -- handed to the asking thread
                answer.set_exception(error)

        with self._lock:
            if self._closing:
                raise ManagerClosedError("this manager is closed; make a new one")
            self.call(run)
        return answer.result()

    def run_plan(self, plan: Plan, keep: bool) -> ManagedRun:
        """Hand a plan over. Raises ManagerClosedError."""
        run = ManagedRun(self, len(plan.wanted), keep)
        self._submit(run, lambda: self._runs.take(plan, run))
        return run

    def fetch(self, files: Sequence[int]) -> ManagedRun:
        """Bring kept files here. Raises ManagerClosedError."""
        run = ManagedRun(self, len(files), keep=False)
        self._submit(run, lambda: self._runs.take_wanted(list(files), run))
        return run

    def close(self, reason: str) -> None:
        """Tell the workers to leave, fail what goes on, and end the thread. Safe to call twice."""
        with self._lock:
            first = not self._closing
            self._closing = True
        if first and self._thread.is_alive():
            self.call(lambda: self._say_goodbye(reason))
        if threading.current_thread() is not self._thread and self._thread.ident is not None:
            self._closed.wait()
            self._thread.join()

    # -- questions and orders, in the loop's thread ------------------------------------------------------

    def cancel(self, run: ManagedRun) -> None:
        self._runs.cancel(run)

    def forget(self, run: ManagedRun, positions: list[int]) -> None:
        self._runs.forget(run, positions)

    def release(self, files: list[int]) -> None:
        self._core.on_release(files, time.monotonic())

    def cancel_tasks(self, files: list[int]) -> None:
        self._core.on_cancel_tasks(files, time.monotonic())

    def prune(self, files: list[int]) -> None:
        self._core.on_prune(files, time.monotonic())

    def limit(self, name: str, count: int | None) -> None:
        self._core.on_limit(name, count, time.monotonic())

    def peer_transfers(self, allowed: bool) -> None:
        self._core.on_peer_transfers(allowed)

    def block_host(self, host: str, seconds: float | None) -> None:
        self._core.on_block_host(host, seconds, time.monotonic())

    def unblock_host(self, host: str | None) -> None:
        self._core.on_unblock_host(host, time.monotonic())

    def await_workers(self, count: int) -> None:
        self._core.on_await_workers(count, time.monotonic())

    def watch_demand(self, listener: Listener) -> None:
        self._audience.add(listener)

    def unwatch_demand(self, listener: Listener) -> None:
        self._audience.remove(listener)

    def replace_gate(self, make: Callable[[], Gate]) -> None:
        """Shut the door and open another one; nobody must have come in. Raises what ``make`` raises: then the
        manager can't go on."""
        self._gate.close()
        try:
            self._gate = make()
        except BaseException:
            self._closing = True
            raise
        self._poller = self._make_poller()

    def _send(self, identity: bytes, frame: bytes) -> bool:
        return self._gate.send(identity, frame)

    def retire(self, names: Sequence[str], reason: str) -> int:
        return self._core.on_retire(names, reason, time.monotonic())

    def retire_some(self, count: int, reason: str) -> int:
        return self._core.on_retire_some(count, reason, time.monotonic())

    def replicas(self, file: int) -> int:
        return len(self._core.holders(file))

    def stats(self) -> Stats:
        return self._core.stats()

    def progress(self, run: ManagedRun) -> Progress:
        return run.last or self._core.progress(run.plan, time.monotonic()) or NOTHING_KNOWN

    def has_work(self) -> bool:
        return bool(self._runs.of_plan)

    def workers(self) -> list[Peer]:
        return list(self._peers)

    def lose_process(self, pid: int, reason: str) -> None:
        """A worker process of this host has ended."""
        for peer in self._peers:
            if peer.hello.pid == pid and peer.hello.node == self._node:
                self._part(peer.worker, reason)
                return

    def fail_all(self, error: BaseException) -> None:
        """Nothing that goes on can be finished."""
        self._runs.fail_all(error)

    # -- the loop --------------------------------------------------------------------------------------

    def _main(self) -> None:
        crash: BaseException | None = None
        try:
            self._poller = self._make_poller()
            while not self._closing:
                self._poller.poll(self._timeout_ms())
                self._turn()
        except BaseException as error:
            crash = error
            log.exception("the manager's loop failed; this is a bug in graphvine")
            raise
        finally:
            self._end(crash)

    def _make_poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        self._gate.register(poller)
        poller.register(self._calls.descriptor, zmq.POLLIN)
        return poller

    def _turn(self) -> None:
        for descriptor in self._gate.answer_knocks():
            worker = self._peers.at_descriptor(descriptor)
            if worker is not None:
                self._part(worker, "its connection ended")
            else:
                self._audience.on_ended(descriptor)
        for identity, frame, descriptor in self._gate.receive():
            self._on_frame(identity, frame, descriptor)
        self._calls.make()
        now = time.monotonic()
        deadline = self._core.deadline()
        if deadline is not None and deadline <= now:
            self._core.on_time(now)
        # Carrying out one decision (a result brought here, a worker that is gone) may ask for the next.
        while instructions := self._core.turn(now):
            self._carry_out(instructions)

    def _timeout_ms(self) -> int | None:
        if self._calls:
            return 0
        deadlines = [due for due in (self._core.deadline(), self._gate.deadline()) if due is not None]
        if not deadlines:
            return None
        return max(0, int((min(deadlines) - time.monotonic()) * 1000) + 1)

    # -- what workers say ------------------------------------------------------------------------------

    def _on_frame(self, identity: bytes, frame: memoryview, descriptor: int) -> None:
        peer = self._peers.at_identity(identity)
        try:
            batch = decode_to_manager(frame)
        except ProtocolError as error:
            self._on_rubbish(identity, peer, str(error))
            return
        for message in batch:
            if identity in self._audience:
                self._audience.on_message(identity, message)
            elif isinstance(message, Hello):
                self._on_hello(identity, message, descriptor)
                peer = self._peers.at_identity(identity)
            elif peer is None and isinstance(message, Attend):
                self._audience.on_attend(identity, descriptor, message, graphvine.__version__)
            elif peer is None:
                if not isinstance(message, Goodbye):
                    self._gate.send(identity, encode([Rejoin()]))
                return
            elif isinstance(message, Attend | Retire):
                self._on_rubbish(identity, peer, "that is not for a worker to say")
                return
            else:
                self._on_message(peer.worker, message)

    def _on_rubbish(self, identity: bytes, peer: Peer | None, why: str) -> None:
        if identity in self._audience:
            self._audience.send_away(identity, why)
            return
        who = peer.hello.name if peer else "a stranger"
        self._gate.refusals.note(who, f"refused a message of {who}: {why}")
        self._gate.send(
            identity, encode([Refused(f"the manager could not read this worker's message: {why}")])
        )
        if peer is not None:
            self._part(peer.worker, "it sent what cannot be read")

    def _on_hello(self, identity: bytes, hello: Hello, descriptor: int) -> None:
        known = self._peers.at_identity(identity)
        if known is not None:
            self._part(known.worker, "it began anew")
        reason = refusal(hello, graphvine.__version__) or no_room(len(self._peers))
        if reason is not None:
            text = f"refused worker {hello.name} on {hello.host}: {reason}"
            self._gate.refusals.note(f"worker on {hello.host}", text)
            self._gate.send(identity, encode([Refused(reason)]))
            return
        peer = self._peers.add(identity, descriptor, hello)
        seen_at = self._gate.address_of(descriptor)
        self._core.on_worker_joined(peer.worker, hello, time.monotonic(), seen_at)
        hello.addresses = with_seen(hello.addresses, seen_at)
        self.on_worker_joined(peer.worker, hello)

    def _on_message(self, worker: int, message: ToManager) -> None:
        if isinstance(message, Pull | Piece | Taken | Told | Output):
            # A worker that is heard is not silent, whatever waits behind.
            self._core.on_heard(worker, time.monotonic())
            self._pass_on(worker, message)
        else:
            assert isinstance(message, Report | Heartbeat | Turn | Leaving | Goodbye)
            self._core.on_message(worker, message, time.monotonic())
            if isinstance(message, Goodbye):
                self._part(worker, message.reason)

    def _pass_on(self, worker: int, message: Pull | Piece | Taken | Told | Output) -> None:
        if isinstance(message, Pull):
            self._relay.on_pull(worker, message)
        elif isinstance(message, Piece):
            self._relay.on_piece(worker, message)
        elif isinstance(message, Taken):
            self._relay.on_taken(worker, message.pieces)
        elif isinstance(message, Told):
            self._runs.on_told(worker, message)
        else:
            self.on_output(message)

    def _part(self, worker: int, reason: str) -> None:
        """Forget a worker here and in the core."""
        if self._peers.remove(worker) is not None:
            self._core.on_worker_lost(worker, reason, time.monotonic())
            self._collector.on_worker_parted(worker)
            self._relay.on_worker_parted(worker)

    def _forget(self, worker: int) -> bool:
        """Forget a worker that the core has forgotten; False when that was done."""
        if self._peers.remove(worker) is None:
            return False
        self._collector.on_worker_parted(worker)
        self._relay.on_worker_parted(worker)
        return True

    # -- what the core says ----------------------------------------------------------------------------

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Say):
                self._say(instruction.worker, instruction.messages)
            elif isinstance(instruction, Available):
                self._on_available(instruction)
            elif isinstance(instruction, Settled):
                run = self._runs.of_plan.get(instruction.plan)
                if run is not None:
                    run.on_outcome(instruction.outcome)
            elif isinstance(instruction, PlanDone):
                self._runs.finish(instruction.plan, None)
            elif isinstance(instruction, PlanFailed):
                self._runs.on_plan_failed(instruction)
            elif isinstance(instruction, Asked):
                self._audience.tell(instruction.demand)
            elif isinstance(instruction, Note):
                log.log(getattr(logging, instruction.level.upper()), "%s", instruction.text)
            elif isinstance(instruction, Stage):
                self._staging.bring(instruction, self._peers.hellos)
            elif isinstance(instruction, Unstage):
                self._staging.remove(instruction.path)
            elif isinstance(instruction, SendAway):
                self._say(instruction.worker, [Leave(instruction.reason)])
                self._forget(instruction.worker)
            else:
                assert isinstance(instruction, PartWorker)
                if self._forget(instruction.worker):
                    log.warning("worker %d is given up: %s", instruction.worker, instruction.reason)

    def _say(self, worker: int, messages: list[ToWorker]) -> None:
        identity = self._peers.identity(worker)
        if identity is not None and not all(
            self._gate.send(identity, frame) for frame in encode_frames(messages)
        ):
            self._part(worker, "its connection ended")

    def _on_available(self, available: Available) -> None:
        run = self._runs.of_plan.get(available.plan)
        if run is not None and not run.keep:
            self._collector.collect(available, self._peers.hellos)

    def _on_result(self, wish: Wish, raw: Raw) -> None:
        if wish.plan == STAGING:
            self._staging.on_brought(wish, raw)
            return
        run = self._runs.of_plan.get(wish.plan)
        if run is None:
            return
        run.on_result(wish.position, raw)
        if not isinstance(raw, bytes):
            # Inline values come with the news that they exist; the core waits for no word about them.
            self._core.on_result_fetched(wish.plan, wish.position, time.monotonic())

    def _on_unreachable(self, wish: Wish, worker: int, reason: str) -> None:
        if wish.plan == STAGING:
            self._core.on_unstageable(wish.file, reason, time.monotonic())
            return
        if wish.plan not in self._runs.of_plan:
            return
        if not worker and self._core.given_file(wish.file) is not None:
            self._core.on_given_lost(wish.file, reason, time.monotonic())
        else:
            self._core.on_result_unreachable(wish.file, worker, reason, time.monotonic())

    # -- files of this machine -------------------------------------------------------------------------

    def _give(self, question: Pull) -> bool:
        given = self._core.given_file(question.file)
        if given is not None:
            self._giver.give(given, question)
        return given is not None

    def _on_given_read(self, file: int, size: int) -> None:
        self._core.on_given_read(file, size, time.monotonic())

    def _on_given_lost(self, file: int, reason: str) -> None:
        self._core.on_given_lost(file, reason, time.monotonic())

    # -- runs ------------------------------------------------------------------------------------------

    def _submit(self, run: ManagedRun, command: Callable[[], None]) -> None:
        self.check_process()
        with self._lock:
            if self._closing:
                raise ManagerClosedError("this manager is closed; make a new one")
            self._runs.expect(run)
            self.call(command)

    def _say_goodbye(self, reason: str) -> None:
        for peer in list(self._peers):
            self._say(peer.worker, [Leave(reason, closing=True)])
        self._audience.say_goodbye(reason)

    def _end(self, crash: BaseException | None) -> None:
        with self._lock:
            self._closing = True
        with contextlib.suppress(Exception) if crash else contextlib.nullcontext():
            self._calls.make()  # whoever asked before closing gets an answer
        why = "the manager's loop failed (its log says how)" if crash else "the manager was closed"
        self._runs.end(why, crash)
        self._collector.close()
        self._giver.close()
        self._staging.close()
        self._gate.close()
        self._calls.close()
        self._closed.set()
