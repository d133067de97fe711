"""Where submitted tasks lie: gathered into plans, handed to the engine, watched until all they make is here.

- What is submitted gathers; one thread (``_hand_over_all``) makes plans of all that is there, and while
  they are handed over the next batch gathers. So thousands of submissions are a few plans, and one alone
  does not wait.
- A task is *held back* while it cannot be part of a plan (``holding``).
- What becomes of those that were handed over is ``delivery``'s to take in; what both know is in ``books``.
- Nobody calls the engine while holding the condition of the books, except to release files.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from graphvine.manager.engine import Outcome, TaskEngine
from graphvine.protocol.errors import LibraryError, ManagerClosedError
from graphvine.taskvine import results
from graphvine.taskvine.books import Books, UnderWay, now_us
from graphvine.taskvine.delivery import Delivery
from graphvine.taskvine.files import File, Temp, all_needed, check_acyclic, glances
from graphvine.taskvine.holding import Holding, check_makeable
from graphvine.taskvine.ledger import Ledger
from graphvine.taskvine.plans import Begun, Builder, Listener, MissingInputError
from graphvine.taskvine.remote.contents import resolved
from graphvine.taskvine.results import Summary
from graphvine.taskvine.task import Task

log = logging.getLogger("graphvine.tasks")

#: One plan holds at most so many tasks.
MAX_BATCH = 5000
#: Downloads from one host at a time.
SOURCE_TRANSFERS = 8


class Desk:
    """One per manager."""

    def __init__(self, engine: TaskEngine, staging: str) -> None:
        self._engine = engine
        self._staging = staging
        self._books = Books()
        self._delivery = Delivery(engine, self._books)
        self.defaults: dict[str, Summary] = {}
        """By category: what tasks ask for that do not say."""
        self.enforces = False
        """Whether tasks that use more than they stated are stopped."""
        self._source_transfers = SOURCE_TRANSFERS
        self._category_limits: dict[str, str] = {}
        """Names of the limits of categories that have one."""
        self._submitted: list[Task] = []
        self._ends: list[tuple[float, int]] = []
        """When tasks must be over that say so, as a heap."""
        self._limits: set[str] = set()
        self._thread: threading.Thread | None = None

    @property
    def lock(self) -> threading.Condition:
        return self._books.condition

    @property
    def ledger(self) -> Ledger[Task]:
        return self._books.ledger

    @property
    def cancelled(self) -> set[int]:
        """Numbers of tasks that are not wanted, and not over."""
        return self._books.cancelled

    def wanted(self) -> list[Task]:
        """Tasks that are not over, and not cancelled."""
        return self._books.wanted()

    def use(self, files: Sequence[File]) -> None:
        """As if an unfinished task needed them, until ``let_go``."""
        self._books.use(files)

    # -- users' threads --------------------------------------------------------------------------------

    def submit(self, task: Task) -> int:
        """Take a task over; its number. Raises ValueError, ManagerClosedError."""
        inputs, outputs = task.input_files(), task.output_files()
        if inputs:
            check_acyclic(inputs)
        for file in (*inputs, *outputs):
            if file.undeclared:
                raise ValueError(f"{file.label} was undeclared")
            if file._owner is not self._engine:
                raise ValueError(f"{file.label} was declared by another manager")
        with self._books.condition:
            if self._books.closed:
                raise ManagerClosedError("the manager is closed")
            if outputs:
                check_makeable(task)
            number = self._books.ledger.submit(task)
            task._metrics["time_when_submitted"] = now_us()
            needed = all_needed(inputs) if inputs else []
            task._found = glances(needed) if needed else []
            for file in outputs:
                if file not in inputs:
                    file.producer = task
                if isinstance(file, Temp):
                    file.unmade = ""
            for file in needed:
                file.users += 1
            self._submitted.append(task)
            if task._time_end:
                heapq.heappush(self._ends, (task._time_end / 1e6 + task._end_grace_s, number))
            self._start()
            self._books.work.notify_all()
        return number

    def has(self, task: Task) -> bool:
        """Whether ``wait`` will return a task."""
        with self._books.condition:
            return not self._books.closed and self._books.ledger.get(task.id) is task

    def wait(self, timeout: float | None, tag: str | None, task_id: int | None) -> Task | None:
        """The next task that is over; None when none is after ``timeout`` seconds (None: for ever), or none
        can come. Raises ManagerClosedError."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._books.condition:
            while True:
                task = self._books.ledger.take(tag, task_id)
                if task is not None:
                    return task
                if not self._books.ledger.can_come(tag, task_id):
                    return None
                if self._books.closed:
                    raise ManagerClosedError("the manager is closed; its unfinished tasks are cancelled")
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._books.condition.wait(left)

    def cancel(self, tasks: Iterable[Task]) -> int:
        """Stop tasks; how many of them were not over, and not stopped before."""
        numbers = []
        cancelled = 0
        with self._books.condition:
            for task in tasks:
                if not self._books.is_wanted(task):
                    continue
                cancelled += 1
                self._books.cancelled.add(task.id)
                under_way = self._books.under_way.get(task.id)
                if under_way is not None:
                    numbers.append(under_way.number)
                else:
                    self._books.changed = True
                    self._books.work.notify_all()
        if numbers:
            self._engine.cancel_tasks(numbers)
        return cancelled

    def content(self, file: File) -> Any:
        """What a file is now: SmallFile, Tree, or what says that it is absent. Waits; makes it if need be.
        Raises what the engine raises, MissingInputError."""
        (number,) = self.hold([file])
        try:
            return resolved(self._engine.fetch([number])[0])
        finally:
            self.let_go([file])

    def hold(self, files: Sequence[File]) -> list[int]:
        """Where files lie in the engine; they stay there until ``let_go``. Waits for what makes them. Raises
        what the engine raises, MissingInputError."""
        self._books.use(files)
        try:
            for file in files:
                self._await_producer(file)
            builder = self._builder()
            for file in files:
                builder.input(file)
            self._hand_over(builder)
            numbers = [file.number for file in files if file.number is not None]
            assert len(numbers) == len(files), "they were handed over"
            return numbers
        except BaseException:
            self.let_go(files)
            raise

    def let_go(self, files: Sequence[File]) -> None:
        """They are not held any more. Safe to call from a finalizer."""
        self._delivery.later(lambda: self._books.unuse(files))

    def _await_producer(self, file: File) -> None:
        """A file that a task makes has a number once that task was handed over."""
        with self._books.condition:
            self._start()
            self._books.condition.wait_for(
                lambda: (
                    file.producer is None or file.producer.id in self._books.under_way or self._books.closed
                )
            )
            if self._books.closed:
                raise ManagerClosedError("the manager is closed")

    def undeclare(self, file: File) -> None:
        with self._books.condition:
            file.undeclared = True
            self._books.settle_file(file)

    def set_source_transfers(self, count: int) -> None:
        """How many downloads from one host go on at a time."""
        with self._books.condition:
            self._source_transfers = count
            names = list(self._limits)
        for name in names:
            self._engine.limit(name, count)

    def limit_category(self, category: str, count: int | None) -> None:
        """How many tasks of a category run at a time, of those submitted from now on."""
        name = f"category {category}"
        self._engine.limit(name, count)
        with self._books.condition:
            self._category_limits[category] = name

    def close(self) -> None:
        """Take nothing more; who waits is told. Safe to call twice."""
        with self._books.condition:
            self._books.closed = True
            left = self._books.ledger.unfinished()
            self._books.condition.notify_all()
            self._books.work.notify_all()
        self._delivery.close()
        for task in left:
            if task._on_over is not None:
                task._on_over(task)

    # -- handing over ----------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is not None:
            return
        books = self._books
        hands, later = self._delivery.start(), self._delivery.later
        self._holding = Holding(self._engine, books.condition, hands, self._staging, later, books.on_changed)
        self._thread = threading.Thread(target=self._hand_over_all, name="graphvine-tasks", daemon=True)
        self._thread.start()

    def _hand_over_all(self) -> None:
        while self._await_something():
            # A method of its own, so that this thread keeps no task while it waits.
            if not self._hand_over_batch():
                return

    def _await_something(self) -> bool:
        """Wait until there may be tasks to hand over; False when it is closed."""
        self._stop_overdue()
        with self._books.condition:
            self._books.work.wait_for(
                lambda: self._submitted or self._books.changed or self._books.closed, self._next_time_s()
            )
            return not self._books.closed

    def _hand_over_batch(self) -> bool:
        """Hand over what there is; False when it is closed."""
        with self._books.condition:
            tasks = [*self._books.held, *self._submitted[:MAX_BATCH]]
            del self._submitted[:MAX_BATCH]
            self._books.changed = False
            ready, self._books.held = self._holding.sort_out(
                tasks, self._books.under_way, self._books.cancelled
            )
        try:
            self._hand_over_tasks(ready)
        except ManagerClosedError:
            return False
        except Exception as error:
            log.exception("tasks cannot be handed over")
            for task in ready:
                if task.id not in self._books.under_way:
                    self._books.fail(task, results.UNKNOWN, f"{type(error).__name__}: {error}")
        return True

    def _next_time_s(self) -> float | None:
        """Until something is to be done that nobody tells of."""
        times = [self._holding.next_time_s(self._books.held)]
        if self._ends:
            times.append(max(0.0, self._ends[0][0] - time.time()))
        return min((seconds for seconds in times if seconds is not None), default=None)

    def _stop_overdue(self) -> None:
        """Stop the tasks whose time is over."""
        with self._books.condition:
            late: list[Task] = []
            while self._ends and self._ends[0][0] <= time.time():
                task = self._books.ledger.get(heapq.heappop(self._ends)[1])
                if task is not None and self._books.is_wanted(task):
                    late.append(task)
            self._books.overdue.update(task.id for task in late)
        self.cancel(late)

    def _hand_over_tasks(self, tasks: Sequence[Task]) -> None:
        """Make plans of tasks, one for each group of those that can share one."""
        builders: dict[Hashable, Builder] = {}
        where: dict[File, Hashable] = {}
        for task in tasks:
            if task.id in self._books.cancelled:
                self._books.fail(task, results.CANCELLED, "it was cancelled before it began")
                continue
            group = task._group()
            for file in all_needed(task.input_files()):
                made_in = where.get(file, group)
                if made_in != group and made_in in builders:
                    self._hand_over(builders.pop(made_in))
            builder = builders.get(group)
            if builder is None:
                builder = builders[group] = self._builder()
            before = len(builder)
            self._enter(task, builder)
            if len(builder) > before:
                where.update(dict.fromkeys(builder.new_files(), group))
        for builder in builders.values():
            self._hand_over(builder)

    def _enter(self, task: Task, builder: Builder) -> None:
        try:
            builder.check_unchanged(task._found)
            self._check_strict(task)
            self._hand_over_before(task)
            task._enter(builder)
        except ManagerClosedError:
            raise
        except _NowhereError as error:
            self._books.fail(task, results.FIXED_LOCATION_MISSING, str(error))
        except MissingInputError as error:
            self._books.fail(task, results.INPUT_MISSING, str(error))
        except LibraryError as error:
            self._books.fail(task, results.MISSING_LIBRARY, str(error))
        except Exception as error:  # noqa: BLE001 -- what it asks for, and its function, are the user's
            self._books.fail(task, results.UNKNOWN, f"{type(error).__name__}: {error}")

    def _builder(self) -> Builder:
        limits = self._category_limits
        return Builder(self._staging, self.defaults, limits, self.enforces)

    def _hand_over_before(self, task: Task) -> None:
        """What makes an environment cannot run in it, so it is not of the same plan. Raises
        MissingInputError."""
        for file in task._needed_before():
            if file.number is None:
                builder = self._builder()
                builder.input(file)
                self._hand_over(builder)

    def _check_strict(self, task: Task) -> None:
        for mount in task._inputs:
            if mount.strict and (mount.file.number is None or not self._engine.replicas(mount.file.number)):
                raise _NowhereError(
                    f"{mount.name}: no worker has {mount.file.label}, and strict_input was asked for"
                )

    def _hand_over(self, builder: Builder) -> None:
        if not len(builder):
            return
        for name in builder.limits - self._limits:
            self._engine.limit(name, self._source_transfers)
        self._limits |= builder.limits
        run = self._engine.run(builder.plan(), keep=True)
        numbers = run.files()
        self._engine.release([numbers[entry] for entry in builder.replaced])
        listeners = dict(builder.listeners)
        with self._books.condition:
            used = set(builder.files().values())
            for file, entry in builder.files().items():
                file.hold(numbers[entry], self._delivery.release)
            for begun in builder.begun:
                self._begin(begun, numbers, listeners, used)
            cancelled = [
                under_way.number
                for under_way in self._books.under_way.values()
                if under_way.task.id in self._books.cancelled
            ]
            self._books.condition.notify_all()

        def hear(outcome: Outcome) -> None:
            listener = listeners.get(outcome.position)
            if listener is not None:
                self._delivery.later(lambda: listener(outcome))

        run.add_outcome_callback(hear)
        if any(output.watch for begun in builder.begun for output in begun.task._outputs):
            run.add_told_callback(
                lambda number, data: self._delivery.later(lambda: self._delivery.on_growth(number, data))
            )
        tasks = [begun.task for begun in builder.begun]
        if tasks:
            later, on_over = self._delivery.later, self._delivery.on_over
            run.add_done_callback(lambda run: later(lambda: on_over(run, tasks)))
        if cancelled:
            self._engine.cancel_tasks(cancelled)

    def _begin(
        self, begun: Begun, numbers: Sequence[int], listeners: dict[int, Listener], used: set[int]
    ) -> None:
        task = begun.task
        file_of = {entry: file for file, entry in begun.outputs}
        entries = {begun.entry, *file_of}
        under_way = UnderWay(task, numbers[begun.entry], len(entries))
        under_way.own = begun.entry not in used
        self._books.under_way[task.id] = under_way
        self._books.ledger.begin(task)
        task._metrics["time_when_commit_start"] = task._metrics["time_when_commit_end"] = now_us()
        under_way.awaited = [numbers[entry] for entry in entries]
        self._books.awaited.update(dict.fromkeys(under_way.awaited, under_way))
        for file in file_of.values():
            # Not before, if it is an input as well: what is there now is what the task takes.
            file.producer = task
        for entry in entries:
            listeners[entry] = self._delivery.listener(under_way, entry == begun.entry, file_of.get(entry))


class _NowhereError(Exception):
    """No worker has an input that was to be there already."""
