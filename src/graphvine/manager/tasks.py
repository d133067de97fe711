"""The tasks of one plan: their states, the table of legal transitions, and what is known of each.

Rules:

- A task is an index ``i`` into the lists of its plan; its number, and that of its result, is ``base + i``.
- ``waits[i]`` counts the input slots of a task that is not done whose file does not exist. It says nothing
  about a task that is done or released.
- ``need[i]`` counts the input slots of tasks not done that name file ``i``, and the holds on it: a wanted
  result that was not handed over, a kept one that was not released. At zero the file is released.
- ``where[i]`` is the worker a dispatched task was given to, then the first worker that holds its result; 0 is
  none. ``extra[i]`` holds what further workers have, or were told to fetch.
- ``data[i]`` is the value of a small result, the size of a large one.
- ``given[i]`` says that nobody has to make file ``i``: it exists as soon as it is needed.
- Slots count, not files: a task that names the same input twice waits for it twice, and needs it twice.

The lists are lists because a Python list is the quickest thing to index and holds small integers without
making new ones; the states are a bytearray, so that all tasks of a state are found at the speed of memchr.
What never changes and refers to much is a tuple, or an array: the garbage collector, which is called for
again and again by what thousands of workers are told, would otherwise go through all of it each time.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from graphvine.manager.families import Families
from graphvine.manager.instructions import Death
from graphvine.manager.plan import GivenFile, Plan, TaskOptions
from graphvine.manager.spread import Spread
from graphvine.protocol.messages import Resources
from graphvine.protocol.outcomes import OutcomeKind

if TYPE_CHECKING:
    from graphvine.manager.pools import Pool

#: Some input does not exist, and is not about to exist on one certain worker.
WAITING = 0
#: Every input exists; the task lies in a heap or in a pool.
READY = 1
#: What does not exist yet of the inputs was given to one worker; the task lies in the heap of that worker.
AHEAD = 2
#: Given to a worker.
DISPATCHED = 3
#: The result exists.
DONE = 4
#: The result was made, or was to be made, and is not needed (any more).
RELEASED = 5

STATE_NAMES = ("waiting", "ready", "ahead", "dispatched", "done", "released")

#: From each state, where a task may go.
LEGAL: dict[int, frozenset[int]] = {
    # To done without having been dispatched: a worker that was given up brings the result back.
    WAITING: frozenset({READY, AHEAD, DONE, RELEASED}),
    READY: frozenset({DISPATCHED, WAITING, DONE, RELEASED}),
    AHEAD: frozenset({READY, DISPATCHED, WAITING, DONE, RELEASED}),
    DISPATCHED: frozenset({DONE, READY, WAITING, RELEASED}),
    DONE: frozenset({RELEASED, WAITING}),
    # To done without being made again: what was given, and what has failed for good.
    RELEASED: frozenset({WAITING, DONE}),
}

#: Bits of a key below the rank. A key is ``number - (rank << KEY_BITS)``, smaller runs earlier; the rank is
#: twice the user's priority, and one more for what follows in a family (see ``families``).
KEY_BITS = 48
KEY_MASK = (1 << KEY_BITS) - 1


class IllegalTransitionError(RuntimeError):
    """A task went from one state to another in a way that has no meaning. A bug; the message tells its
    story."""


class CheckedStates(bytearray):
    """States that refuse what the table does not allow, and remember each task's story. For tests."""

    def __init__(self, count: int, base: int) -> None:
        super().__init__(count)
        self.base = base
        self.stories: dict[int, list[int]] = {}

    def __setitem__(self, index, value) -> None:  # type: ignore[no-untyped-def]
        story = self.stories.setdefault(index, [self[index]])
        story.append(value)
        if value not in LEGAL[self[index]]:
            told = " -> ".join(STATE_NAMES[state] for state in story)
            raise IllegalTransitionError(f"task {self.base + index}: {told}")
        super().__setitem__(index, value)


class UnknownFileError(LookupError):
    """A file number that no living plan has: it was released, or never made."""


Consumers = Sequence[int]


def consumers_of(inputs: Sequence[tuple[int, ...]]) -> tuple[Consumers, ...]:
    """For each task, the tasks of the same plan that name it, once per slot, in order.

    Almost all have one consumer, so consumers are tuples, and those of one task's inputs share one."""
    consumers: list[Consumers] = [()] * len(inputs)
    many: list[int] = []
    for task, names in enumerate(inputs):
        if not names:
            continue
        one = (task,)
        for name in names:
            if name < 0:
                continue
            known = consumers[name]
            if not known:
                consumers[name] = one
            elif type(known) is list:
                known.append(task)
            else:
                consumers[name] = [*known, task]
                many.append(name)
    for name in many:
        # Tuples of integers leave the garbage collector's books; lists never do.
        consumers[name] = tuple(consumers[name])
    return tuple(consumers)


class PlanTable:
    """One plan and everything known about its tasks (see the module's rules)."""

    __slots__ = (
        "attempts",
        "avoid",
        "base",
        "blob_at",
        "blob_base",
        "blob_copies",
        "blob_index",
        "blob_of",
        "categories",
        "category_of",
        "consumers",
        "context",
        "copies",
        "counted",
        "data",
        "done_of",
        "end",
        "ended",
        "extra",
        "failed_of",
        "failures",
        "families",
        "foreign",
        "given",
        "inputs",
        "keep",
        "kept",
        "key0",
        "last",
        "left",
        "limited",
        "lone_losses",
        "losses",
        "lost_orders",
        "need",
        "origins",
        "outside",
        "over",
        "plain",
        "plan",
        "pool",
        "pools",
        "priorities",
        "recomputed",
        "refs",
        "remade",
        "running_of",
        "shares",
        "size",
        "soft",
        "spread",
        "staged",
        "start",
        "state",
        "timed",
        "totals",
        "tries",
        "untold",
        "waits",
        "wanted_by",
        "wanted_files",
        "where",
        "zygote",
    )

    def __init__(self, plan: Plan, base: int, *, keep: bool, now: float, checked: bool) -> None:
        self.plan = plan
        self.keep = keep
        self.start = now
        self._take_graph(plan, base, checked)
        self._take_categories(plan)
        self._take_options(plan)
        self._begin_replicas(plan)
        self._begin_wanted(plan, now)
        self._begin_failures()

    def _take_graph(self, plan: Plan, base: int, checked: bool) -> None:
        size = len(plan)
        inputs = tuple(plan.inputs)
        self.base = base
        self.size = size
        self.blob_base = base + size
        self.end = base + max(1, size + len(plan.blobs))
        self.inputs = inputs
        self.consumers = consumers_of(inputs)
        self.waits: list[int] = list(map(len, inputs))
        self.need: list[int] = list(map(len, self.consumers))
        self.last = array("q", [max(names) if names else -1 for names in inputs])
        self.state: bytearray = CheckedStates(size, base) if checked else bytearray(size)
        self.blob_of = plan.blob_of
        self.blob_index = plan.blob_index
        #: Its tasks may take values that others have in their hands: those of separate plans have their own.
        self.shares = not plan.separate
        #: What the plan has of families; None when it has none.
        self.families: Families | None = None
        #: Of ``plan.externals``: table and index of each.
        self.origins: list[tuple[PlanTable, int]] = []
        #: Tasks of other plans that name a file of this one, once per slot.
        self.foreign: dict[int, list[tuple[PlanTable, int]]] = {}
        #: How many living plans name files of this one.
        self.refs = 0

    def _take_categories(self, plan: Plan) -> None:
        self.category_of = plan.category_of
        #: The manager's numbers of the plan's categories.
        self.categories: list[int] = []
        counted = Counter(plan.category_of)
        self.totals = [counted[category] for category in range(len(plan.categories))]
        self.done_of = [0] * len(plan.categories)
        self.running_of = [0] * len(plan.categories)
        self.failed_of = [0] * len(plan.categories)
        """Tries that failed, also of tasks that were done in the end."""
        self.recomputed = 0

    def _take_options(self, plan: Plan) -> None:
        asked = [plan.default_options, *plan.options.values()]
        #: Some tasks have a named limit; some may be lost only so often; some may run for so long only.
        self.limited = any(options.limit for options in asked)
        self.counted = any(options.max_losses >= 0 for options in asked)
        self.timed = any(options.max_s or options.lasts_s or options.min_s for options in asked)
        default = plan.default_options.priority
        self.key0 = self.base - (2 * default << KEY_BITS)
        self.priorities = {
            task: options.priority for task, options in plan.options.items() if options.priority != default
        }
        #: The pool of most tasks; those of the others; those with a mere preference for some workers.
        self.pool: Pool
        self.pools: dict[int, Pool] = {}
        self.soft: set[int] = set()
        #: Every task asks for the default resources.
        self.plain = True
        #: What its executors need before they run a task: numbers of the manager (0: nothing special).
        self.context = 0
        self.zygote = 0

    def _begin_replicas(self, plan: Plan) -> None:
        """Nothing is anywhere yet."""
        self.where: list[int] = [0] * self.size
        self.data: list[bytes | int | None] = [None] * self.size
        #: Further workers that hold a file (True) or were told to fetch it (False).
        self.extra: dict[int, dict[int, bool]] = {}
        #: Those of them that held it at some time, in the order in which they came to: for a quick choice.
        self.copies: dict[int, list[int]] = {}
        #: How large files go from worker to worker; of files that are in ``extra`` only.
        self.spread: dict[int, Spread] = {}
        #: Results that no task makes, and that are never lost: an inline pickle (what was given, and what a
        #: failed task of a separate plan left), or the size of a file that lies with the manager.
        self.given: dict[int, bytes | int] = {}
        #: Files that came from workers that were about to leave, and lie with the manager now: where.
        self.staged: dict[int, GivenFile] = {}
        #: For each blob, the workers that hold it (True) or were told to fetch it (False).
        self.blob_at: list[dict[int, bool]] = [{} for _ in plan.blobs]
        self.blob_copies: list[list[int]] = [[] for _ in plan.blobs]

    def _begin_wanted(self, plan: Plan, now: float) -> None:
        #: Who waits for a result of this plan: plan and position in its wanted files.
        self.wanted_by: dict[int, list[tuple[PlanTable, int]]] = {}
        #: Wanted file numbers, by position.
        self.wanted_files: list[int] = [self.base + task for task in plan.wanted]
        #: Wanted results that were not handed over (kept plans: that do not exist).
        self.left = len(self.wanted_files)
        self.kept: set[int] = set(plan.wanted) if self.keep else set()
        self.over = False
        #: When it was over.
        self.ended = now
        #: Of a separate plan: positions of the wanted ones whose outcome was not told.
        self.untold: dict[int, int] = {}
        if plan.separate and plan.outcomes:
            self.untold = {task: position for position, task in enumerate(plan.wanted)}

    def _begin_failures(self) -> None:
        #: Of a separate plan: how tasks failed.
        self.failures: dict[int, OutcomeKind] = {}
        #: Tasks that were done once and had to be made again: too late to cancel them.
        self.remade: set[int] = set()
        self.attempts: dict[int, int] = {}
        self.tries: dict[int, list[Death]] = {}
        #: Workers that had no room for a task's result.
        self.avoid: dict[int, set[int]] = {}
        #: How often a worker was lost that perhaps ran a task, and how often one that ran nothing else.
        self.losses: dict[int, int] = {}
        self.lone_losses: dict[int, int] = {}
        #: How often tasks were lost with their workers, where that counts.
        self.lost_orders: dict[int, int] = {}

    def key(self, index: int) -> int:
        """The key that orders this task among all ready ones: smaller runs earlier."""
        key = self.key0 + index
        if self.priorities and index in self.priorities:
            key = self.base + index - (2 * self.priorities[index] << KEY_BITS)
        if self.families is not None and self.families.follows[index]:
            key -= 1 << KEY_BITS
        return key

    def options(self, index: int) -> TaskOptions:
        """What this task asks for."""
        return self.plan.options.get(index, self.plan.default_options)

    def request(self, index: int) -> Resources:
        """The resources this task asks for."""
        return self.options(index).request

    def in_state(self, state: int) -> Iterator[int]:
        """Indices of all tasks in ``state``, found by memchr. The state of one that was given may change."""
        find = self.state.find
        index = find(state)
        while index >= 0:
            yield index
            index = find(state, index + 1)

    def size_of(self, index: int) -> int:
        """Bytes of a file."""
        data = self.data[index]
        if data is None:
            return 0
        return data if type(data) is int else len(data)  # type: ignore[arg-type]

    def input_files(self, index: int) -> Iterator[tuple[PlanTable, int]]:
        """Table and index of each input slot."""
        for name in self.inputs[index]:
            yield (self, name) if name >= 0 else self.origins[-1 - name]

    def consumer_tasks(self, index: int) -> Iterator[tuple[PlanTable, int]]:
        """Table and index of each slot that names this file, in every living plan."""
        for consumer in self.consumers[index]:
            yield self, consumer
        if index in self.foreign:
            yield from self.foreign[index]
