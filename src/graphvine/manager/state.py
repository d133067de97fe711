"""All that the manager's core knows, in one place: what its other modules read and write.

Nothing here decides anything. ``tell`` and ``mark`` are the only ways to the outside: an instruction for the
loop, and a worker to which something is to be said or given in this turn.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

from graphvine.manager.instructions import Instruction, Note
from graphvine.manager.plan import Code, TaskOptions
from graphvine.manager.pools import ORDINARY, Pool, PoolKey
from graphvine.manager.reach import Reach
from graphvine.manager.settings import Settings
from graphvine.manager.tasks import PlanTable, UnknownFileError
from graphvine.manager.workers import Worker
from graphvine.protocol.messages import Context

if TYPE_CHECKING:
    from graphvine.manager.demand import Watch
    from graphvine.manager.departures import Departure
    from graphvine.manager.limits import Limit


class State:
    """The tables of one core."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = 0.0
        self.next_number = 1
        self.plans: dict[int, PlanTable] = {}
        #: First numbers of the plans, ascending, and their tables.
        self.bases: list[int] = []
        #: Plans that were freed lately: until the instructions that say so were carried out, one may ask
        #: about them.
        self.leaving: dict[int, PlanTable] = {}
        self.gone: dict[int, PlanTable] = {}
        self.tables: list[PlanTable] = []
        self.workers: dict[int, Worker] = {}
        self.cores = 0.0
        #: Workers that ever joined, that were sent away, and that were gone without a word.
        self.joined = 0
        self.released = 0
        self.lost = 0
        #: Workers that are about to leave.
        self.departures: dict[int, Departure] = {}
        #: Workers by name and by host.
        self.named: dict[str, dict[int, Worker]] = {}
        #: When each worker was last heard of; who was not heard of for longest comes first.
        self.heard: OrderedDict[int, float] = OrderedDict()
        self.pools: dict[PoolKey, Pool] = {}
        #: Whether workers fetch files from each other.
        self.peers = True
        #: Named limits, and hosts (or names) whose workers get no tasks, until when.
        self.limits: dict[str, Limit] = {}
        self.blocked: dict[str, float | None] = {}
        #: No worker gets any before so many are there.
        self.awaited_workers = 0
        self.category_numbers: dict[str, int] = {}
        #: Per category of the manager: tasks measured, seconds in all, and the mean that is expected.
        self.category_count: list[int] = []
        self.category_time: list[float] = []
        self.category_mean: list[float] = []
        #: Contexts by number, and the numbers of equal code.
        self.contexts: dict[int, Context] = {}
        self.context_numbers: dict[Code, int] = {}
        #: The zygote that each context needs, and the numbers of equal ones; 0 is the base zygote.
        self.zygote_of: dict[int, int] = {0: 0}
        self.zygote_numbers: dict[str, int] = {"": 0}
        #: Files that are environments, and workers that wait for one to be made.
        self.environments: set[int] = set()
        self.awaited: dict[int, set[int]] = {}
        #: Tasks that became ready since the last turn and are not placed.
        self.fresh: list[int] = []
        #: Workers to be looked at in this turn.
        self.marked: dict[int, Worker] = {}
        #: How many tasks are given ahead in the place of one, as families are given whole.
        self.ahead = 1.0
        #: Tasks called back: for which worker (0: for none in particular).
        self.recalled: dict[int, int] = {}
        #: Files of which a worker was told to fetch through the manager.
        self.relayed: dict[int, set[int]] = {}
        #: Who can fetch from whom.
        self.reach = Reach(settings.retry_link_s, settings.retry_link_most_s, settings.links_remembered)
        #: Workers from which work may be had, the longest wait first, by an old measure: (-seconds, number).
        self.victims: list[tuple[float, int]] = []
        #: How many workers found nothing to steal in this turn.
        self.in_vain = 0
        #: Plans of which something changed since somebody looked; None while nobody does (see ``demand``).
        self.touched: dict[int, PlanTable] | None = None
        self.watch: Watch | None = None
        #: Keys of tasks that must run alone.
        self.suspects: list[int] = []
        #: Workers that run such a task, or wait to be empty for one.
        self.lonely: set[int] = set()
        self.out: list[Instruction] = []

    # -- lookups ------------------------------------------------------------------------------------------

    def table_of(self, number: int) -> PlanTable | None:
        """The plan a task, file or blob belongs to; None when it is gone or never was."""
        position = bisect_right(self.bases, number) - 1
        if position < 0:
            return None
        table = self.tables[position]
        return table if number < table.end else None

    def plan(self, base: int) -> PlanTable | None:
        """The plan of this number, also when it ended with the last instructions; None when it is gone."""
        return self.plans.get(base) or self.leaving.get(base) or self.gone.get(base)

    def file(self, number: int) -> tuple[PlanTable, int]:
        """Table and index of a result. Raises UnknownFileError."""
        table = self.table_of(number)
        if table is None or number - table.base >= table.size:
            raise UnknownFileError(f"file {number} is not there: it was released, or never made")
        return table, number - table.base

    def has_staying(self) -> bool:
        """Whether there is a worker that is not about to leave."""
        return len(self.workers) > len(self.departures)

    def pool_for(self, options: TaskOptions, zygote: int = 0) -> Pool:
        """The pool of tasks with these options that need this zygote, made if need be."""
        names: tuple[str, ...] = () if options.allow_other_workers else options.workers
        key = (options.request, names, options.features, options.limit, zygote)
        found = self.pools.get(key)
        if found is None:
            found = self.pools[key] = Pool(*key)
            for worker in self.workers.values():
                if found.admits(worker):
                    found.join(worker)
                    found.hungry[worker.number] = worker
        return found

    def leave_pools(self, table: PlanTable) -> None:
        """A plan is gone: a pool that no plan uses goes with it, but for that of ordinary tasks."""
        for pool in {id(pool): pool for pool in (table.pool, *table.pools.values())}.values():
            pool.users -= 1
            if not pool.users and pool.key != ORDINARY:
                del self.pools[pool.key]
                for worker in pool.members.values():
                    worker.pools.remove(pool)

    def category(self, name: str) -> int:
        """The manager's number of a category."""
        number = self.category_numbers.setdefault(name, len(self.category_count))
        if number == len(self.category_count):
            self.category_count.append(0)
            self.category_time.append(0.0)
            self.category_mean.append(self.settings.window_s)
        return number

    def forget_gone(self) -> None:
        """The instructions of the last turn were carried out: nobody asks about the plans they ended."""
        self.gone, self.leaving = self.leaving, {}

    # -- what goes out ------------------------------------------------------------------------------------

    def mark(self, worker: Worker) -> None:
        """Something is to be said to this worker, or it may have room."""
        self.marked[worker.number] = worker

    def touch(self, table: PlanTable) -> None:
        """Tasks of a plan are not in the states any more in which they were."""
        if self.touched is not None:
            self.touched[table.base] = table

    def tell(self, instruction: Instruction) -> None:
        """Hand an instruction to the loop, at the end of this turn."""
        self.out.append(instruction)

    def note(self, level: Literal["debug", "info", "warning", "error"], text: str) -> None:
        """A line for the log."""
        self.out.append(Note(level, text))

    # -- plans --------------------------------------------------------------------------------------------

    def add_table(self, table: PlanTable) -> None:
        """A plan is there; its numbers are the highest so far."""
        self.plans[table.base] = table
        self.bases.append(table.base)
        self.tables.append(table)
        self.next_number = table.end
        self.touch(table)

    def remove_table(self, table: PlanTable) -> None:
        """A plan is gone: from now on its numbers are unknown."""
        self.leaving[table.base] = self.plans.pop(table.base)
        self.touch(table)
        if not self.plans:
            self.ahead = 1.0
        position = bisect_right(self.bases, table.base) - 1
        del self.bases[position]
        del self.tables[position]
