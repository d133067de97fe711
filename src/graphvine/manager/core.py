"""The manager's core: owns the graph, the whereabouts of every file, and every decision. Does no I/O.

The rules, each written down in the module that keeps it:

- Events come in as ``on_*`` with the time; what is to be done comes out of ``turn``. Events only change
  tables; all placing and dispatching happens in ``turn``, once for however many events, and says at most
  one batch to each worker.                                                                   [core]
- A task goes waiting -> ready -> dispatched -> done -> released, and back only as the table allows. [tasks]
- A file is held by whom we say, needed by whom we count; at zero it is released at once.     [files]
- Workers come for work; nothing loops over all workers or all tasks.                [placement, pools]
- A worker has a little more than it can run, also tasks whose inputs are being made there.   [dispatch]
- What a worker says counts only for what it was given.                                       [reports]
- What is lost and still needed is made again, once; nobody is blamed for a neighbour.       [recovery]
- What only a worker holds that is about to leave goes elsewhere, before it leaves.         [departures]
- A wanted result holds its file until it was handed over, a kept one until it is released.   [results]
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from graphvine.manager import (
    blocking,
    demand,
    departures,
    environments,
    files,
    limits,
    orders,
    placement,
    readiness,
    recovery,
    reports,
    results,
    returning,
    separate,
    starving,
    suspects,
)
from graphvine.manager.dispatch import fill
from graphvine.manager.engine import CategoryProgress, Progress, Stats
from graphvine.manager.instructions import Instruction, PartWorker, Say
from graphvine.manager.plan import GivenFile, Plan
from graphvine.manager.plans import admit
from graphvine.manager.reach import Place
from graphvine.manager.settings import Settings
from graphvine.manager.state import State
from graphvine.manager.tasks import DISPATCHED, DONE, UnknownFileError
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import (
    Demand,
    Goodbye,
    Heartbeat,
    Hello,
    Leaving,
    Report,
    ToManager,
    Turn,
    Welcome,
)


def _second(item: tuple[int, float]) -> float:
    return item[1]


class Core:
    """The deciding part of a manager. See the module, and ``docs/architecture.md`` for the calls."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State(settings)

    # -- workers ------------------------------------------------------------------------------------------

    def on_worker_joined(self, worker: int, hello: Hello, now: float, seen_at: str = "") -> None:
        """A checked ``Hello`` came from a worker that is to have this number, never used before. ``seen_at``:
        the address from which it came, as the manager sees it."""
        state = self.state
        joined = Worker(worker, hello, seen_at)
        joined.until = now + hello.left_s if hello.left_s else 0.0
        state.now = now
        if not state.has_staying():
            starving.on_first_worker(state)
        state.workers[worker] = joined
        state.cores += joined.cores
        state.joined += 1
        state.heard[worker] = now
        for name in {hello.name, hello.host}:
            state.named.setdefault(name, {})[worker] = joined
        blocking.on_joined(state)
        joined.blocked = blocking.is_blocked(state, joined)
        blocking.enter(state, joined)
        joined.outbox.also().first.append(
            Welcome(
                worker,
                self.settings.heartbeat_s,
                self.settings.inline_bytes,
                self.settings.encrypted,
                self.settings.told_secret,
                silent_s=self.settings.silent_s,
            )
        )
        returning.on_held(state, joined, hello.holds)
        demand.note_joined(state, joined)
        state.mark(joined)

    def on_worker_lost(self, worker: int, reason: str, now: float) -> None:
        """It was seen to end, or to be gone. Unknown workers are none of our business any more."""
        self.state.now = now
        lost = self.state.workers.get(worker)
        if lost is not None:
            recovery.lose_worker(self.state, lost, blame=True)

    def on_heard(self, worker: int, now: float) -> None:
        """A worker said something that is none of the core's business: it lives."""
        if worker in self.state.workers:
            self.state.heard[worker] = now
            self.state.heard.move_to_end(worker)

    def on_message(self, worker: int, message: ToManager, now: float) -> None:
        """A worker spoke."""
        speaker = self.state.workers.get(worker)
        if speaker is None:
            return
        self.state.now = now
        heard = self.state.heard
        heard[worker] = now
        heard.move_to_end(worker)
        if type(message) is Report:
            reports.on_report(self.state, speaker, message)
        elif type(message) is Heartbeat:
            speaker.stored = message.store_mb * 2**20
        elif type(message) is Turn:
            limits.on_turn(self.state, speaker, message)
        elif type(message) is Leaving:
            departures.on_leaving(self.state, speaker, message)
        elif type(message) is Goodbye:
            self.state.note("info", f"worker {speaker.hello.name} leaves: {message.reason}")
            recovery.lose_worker(self.state, speaker, blame=False)
        else:
            self.state.note(
                "warning", f"worker {speaker.hello.name} said {type(message).__name__} to the core"
            )

    # -- plans --------------------------------------------------------------------------------------------

    def on_plan(self, plan: Plan, keep: bool, now: float) -> int:
        """A plan is handed over. Returns its first task's number, which names the plan.

        The plan fails at once when an external is not there."""
        return admit(self.state, plan, keep=keep, now=now)

    def on_wanted(self, wanted: Sequence[int], now: float) -> int:
        """Kept files should be fetched (again). Returns the number of a plan without tasks, whose results
        they are; it fails at once when one is not there (any more)."""
        plan = Plan([], [], [], [], [], [], [], [], externals=list(wanted), label="fetch")
        return admit(self.state, plan, keep=False, now=now)

    def on_cancel_plan(self, plan: int, now: float) -> None:
        """Nobody wants the plan any more. What a living plan needs of it goes on."""
        self.state.now = now
        table = self.state.plans.get(plan)
        if table is not None:
            results.abandon(self.state, table)

    def on_result_fetched(self, plan: int, position: int, now: float) -> None:
        """The loop has the bytes of a wanted result."""
        self.state.now = now
        table = self.state.plans.get(plan)
        if table is None or table.over:
            return
        origin, index = results.wanted_of(table)[position]
        results.handed_over(self.state, table, position, origin, index)
        if not table.left:
            results.finish(self.state, table)

    def on_unwanted(self, plan: int, position: int, now: float) -> None:
        """Nobody wants this result of a plan any more (another plan may). What only it needed, and has not
        been done, is not done, and is stopped where it runs."""
        self.on_result_fetched(plan, position, now)

    def on_result_unreachable(self, file: int, worker: int, reason: str, now: float) -> None:
        """The loop could not get a file from a holder: another, else it is made again."""
        state = self.state
        table = state.table_of(file)
        if table is None or file - table.base >= table.size:
            return
        index = file - table.base
        if table.state[index] != DONE or worker not in files.holders(table, index):
            return
        state.note("warning", f"file {file} can't be had from worker {worker}: {reason}")
        files.drop(state, worker, file)
        recovery.lose_replica(state, table, index, worker)

    def on_given_read(self, file: int, size: int, now: float) -> None:
        """How many bytes of a given file travel is known: those of its flat form."""
        self.state.now = now
        files.note_given_size(self.state, file, size)

    def on_given_lost(self, file: int, reason: str, now: float) -> None:
        """A given file can't be read (any more), or is not what it was. No harm while workers have it."""
        self.state.now = now
        table = self.state.table_of(file)
        index = file - table.base if table is not None else 0
        if table is not None and index in table.staged:
            self.state.note("warning", f"what was kept of a worker that left can't be read: {reason}")
            recovery.lose_staged(self.state, table, index)
            return
        if table is None or type(table.given.get(index)) is not int or table.state[index] != DONE:
            return
        if files.holders(table, index):
            self.state.note("warning", f"{reason}; what the workers have of it counts")
            return
        separate.fail(self.state, table, index, "missing", reason)

    def on_staged(self, file: int, staged: GivenFile, now: float) -> None:
        """A file that was to be brought here lies here."""
        self.state.now = now
        departures.on_staged(self.state, file, staged)

    def on_unstageable(self, file: int, reason: str, now: float) -> None:
        """It can't be brought here."""
        self.state.now = now
        departures.on_unstageable(self.state, file, reason)

    def on_release(self, released: Sequence[int], now: float) -> None:
        """Kept files are no longer needed. Files that are not kept (any more) don't matter."""
        self.state.now = now
        for number in released:
            table = self.state.table_of(number)
            if table is None or number - table.base not in table.kept:
                continue
            results.release_kept(self.state, table, number - table.base)

    def on_cancel_tasks(self, tasks: Sequence[int], now: float) -> None:
        """Tasks of separate plans, by their files, are not wanted any more."""
        self.state.now = now
        orders.cancel_tasks(self.state, tasks)

    def on_prune(self, pruned: Sequence[int], now: float) -> None:
        """Copies of kept files take room; the files are made again when they are needed."""
        self.state.now = now
        orders.prune(self.state, pruned)

    def on_limit(self, name: str, count: int | None, now: float) -> None:
        """At most so many tasks of a name are to run at once (None: any number)."""
        self.state.now = now
        limits.change(self.state, name, count)

    def on_peer_transfers(self, allowed: bool) -> None:
        """From now on workers are told to fetch files from each other, or through the manager only."""
        self.state.peers = allowed

    def on_block_host(self, host: str, seconds: float | None, now: float) -> None:
        """Workers of a host, or of a name, are to get no tasks for so long (None: until they are
        unblocked)."""
        self.state.now = now
        blocking.block(self.state, host, None if seconds is None else now + seconds)

    def on_unblock_host(self, host: str | None, now: float) -> None:
        """Workers of a host, or of a name, get tasks again (None: all)."""
        self.state.now = now
        blocking.unblock(self.state, host)

    def on_await_workers(self, count: int, now: float) -> None:
        """No worker is to get tasks before so many are there."""
        self.state.now = now
        blocking.await_workers(self.state, count)

    def on_watch(self, now: float) -> Demand:
        """Somebody wants to hear what the work asks for (``Asked``). Returns all there is to know now."""
        self.state.now = now
        return demand.watch(self.state)

    def on_unwatch(self) -> None:
        """Nobody wants to hear that any more."""
        demand.unwatch(self.state)

    def on_retire(self, names: Sequence[str], reason: str, now: float) -> int:
        """Workers of these names, or that are these batch jobs, are to leave once what they have begun is
        done. Returns how many there are."""
        self.state.now = now
        return departures.retire(self.state, names, reason)

    def on_retire_some(self, count: int, reason: str, now: float) -> int:
        """So many workers are to leave, idle ones first. Returns how many do."""
        self.state.now = now
        return departures.retire_some(self.state, count, reason)

    # -- time ---------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """``deadline()`` has come: part from silent workers, see to what nobody can run."""
        state = self.state
        state.now = now
        self._part_silent(now)
        blocking.on_time(state)
        starving.on_time(state)

    def _part_silent(self, now: float) -> None:
        state, settings = self.state, self.settings
        silent: dict[int, float] = {}
        for number, heard in state.heard.items():
            if now - heard < settings.silent_s:
                break
            silent[number] = now - heard
        if silent and max(silent.values()) - settings.silent_s > settings.heartbeat_s:
            # It is we who were late (a suspended process, a laptop asleep): what they said may lie unread.
            patience = now - settings.silent_s + 2 * settings.heartbeat_s
            others = {number: heard for number, heard in state.heard.items() if number not in silent}
            state.heard = OrderedDict(
                sorted({**dict.fromkeys(silent, patience), **others}.items(), key=_second)
            )
            return
        for number, seconds in silent.items():
            state.tell(PartWorker(number, f"nothing was heard of it for {seconds:.1f} s"))
            recovery.lose_worker(state, state.workers[number], blame=True)

    def deadline(self) -> float | None:
        """When ``on_time`` is next needed."""
        starved = starving.deadline(self.state)
        for other in (
            blocking.deadline(self.state) if self.state.blocked else None,
            demand.deadline(self.state),
        ):
            if other is not None:
                starved = other if starved is None else min(starved, other)
        for heard in self.state.heard.values():
            silent = heard + self.settings.silent_s
            return silent if starved is None else min(silent, starved)
        return starved

    def turn(self, now: float) -> list[Instruction]:
        """Place and dispatch what the events since the last turn made possible; hand over all
        instructions."""
        state = self.state
        state.now = now
        if state.departures:
            departures.turn(state)
        if state.fresh:
            placement.place_fresh(state)
        if state.limits:
            limits.release(state)
            placement.place_fresh(state)
        state.in_vain = 0
        said: dict[int, Worker] = {}
        self._serve_marked(said)
        self._feed_hungry(said)
        self._serve_marked(said)
        if state.suspects:
            for worker in suspects.reserve(state):
                recovery.call_back_queue(state, worker)
            self._serve_marked(said)
        if state.awaited:
            environments.tell(state)
        starving.look(state)
        said.update(state.marked)
        state.marked = {}
        if state.watch is not None:
            for worker in said.values():
                if worker.number in state.workers:
                    demand.note_worker(state, worker)
            demand.tell(state)
        for worker in said.values():
            messages = worker.outbox.take()
            if messages and worker.number in state.workers:
                state.out.append(Say(worker.number, messages))
        state.forget_gone()
        out, state.out = state.out, []
        return out

    def _serve_marked(self, said: dict[int, Worker]) -> None:
        state = self.state
        while state.marked:
            marked, state.marked = state.marked, {}
            said.update(marked)
            for worker in marked.values():
                self._serve(worker)

    def _serve(self, worker: Worker) -> None:
        """Give a worker what it has room for."""
        state = self.state
        number = worker.number
        if number not in state.workers or worker.blocked:
            return
        if fill(state, worker):
            for pool in worker.pools:
                if number in pool.hungry:
                    del pool.hungry[number]
        else:
            for pool in worker.pools:
                if not pool.zygote or readiness.room(state, worker, pool.zygote):
                    pool.hungry[number] = worker
                else:
                    pool.hungry.pop(number, None)
        if worker.queue and not worker.listed:
            placement.list_victim(state, worker)

    def _feed_hungry(self, said: dict[int, Worker]) -> None:
        """Give what lies about to workers that ran dry in an earlier turn."""
        state = self.state
        for pool in state.pools.values():
            failures = 0
            while pool.hungry and (pool or (state.victims and failures < 2)):
                # Whoever gets nothing goes to the end of the line.
                number, worker = pool.hungry.popitem(last=False)
                said[number] = worker
                given = len(worker.queue)
                self._serve(worker)
                failures += len(worker.queue) == given

    # -- queries ------------------------------------------------------------------------------------------

    def holders(self, file: int) -> list[int]:
        """Workers that hold a file now."""
        table = self.state.table_of(file)
        if table is None:
            return []
        index = file - table.base
        if index >= table.size:
            return [worker for worker, held in table.blob_at[index - table.size].items() if held]
        return files.holders(table, index)

    def place(self, worker: int) -> Place | None:
        """From where a worker speaks; None when it is gone."""
        known = self.state.workers.get(worker)
        return known.place if known is not None else None

    def runner(self, task: int) -> tuple[int, int] | None:
        """Plan and worker of a task that was given away; None for others."""
        table = self.state.table_of(task)
        index = task - table.base if table is not None else 0
        if table is None or index >= table.size or table.state[index] != DISPATCHED:
            return None
        return table.base, table.where[index]

    def stats(self) -> Stats:
        """What there is now."""
        return orders.stats(self.state)

    def blob(self, file: int) -> bytes | None:
        """The bytes of a blob of a plan that goes on; None for any other file."""
        table = self.state.table_of(file)
        index = file - table.base - table.size if table is not None else -1
        return table.plan.blobs[index] if table is not None and index >= 0 else None

    def given_file(self, file: int) -> GivenFile | None:
        """The file of the manager's machine that a number stands for; None when it stands for no such one."""
        table = self.state.table_of(file)
        index = file - table.base if table is not None else 0
        if table is not None and index in table.staged:
            return table.staged[index]
        if table is None or type(table.given.get(index)) is not int:
            return None
        given = table.plan.given[index]
        return given if isinstance(given, GivenFile) else None

    def worker(self, number: int) -> Hello | None:
        """How a worker introduced itself; None when it is gone."""
        known = self.state.workers.get(number)
        return known.hello if known is not None else None

    def task_key(self, plan: int, task: int) -> object:
        """How the user knows a task; of a negative one, an external's task. None when the plan is gone."""
        table = self.state.plan(plan)
        if table is None:
            return None
        if task < 0:
            if -task > len(table.origins):
                return None
            table, task = table.origins[-1 - task]
        return table.plan.keys[task]

    def progress(self, plan: int, now: float) -> Progress:
        """Where a plan stands. Raises UnknownFileError when it has been gone for longer than a turn."""
        table = self.state.plan(plan)
        if table is None:
            raise UnknownFileError(f"plan {plan} is gone")
        state = self.state
        rows = zip(
            table.plan.categories,
            table.totals,
            table.done_of,
            table.running_of,
            table.failed_of,
            strict=True,
        )
        return Progress(
            label=table.plan.label,
            total=table.size,
            done=sum(table.done_of),
            running=sum(table.running_of),
            failed=sum(table.failed_of),
            recomputed=table.recomputed,
            workers=len(state.workers),
            cores=state.cores,
            elapsed_s=(table.ended if table.over else now) - table.start,
            finished=table.over,
            categories=[CategoryProgress(*row) for row in rows],
        )
