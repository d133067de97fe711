"""Where submitted tasks lie: gathered into plans, handed to the engine, watched until all they make is here.

- What is submitted gathers; one thread (``_hand_over_all``) makes plans of all that is there, and while
  they are handed over the next batch gathers. So thousands of submissions are a few plans, and one alone
  does not wait.
- A task is *held back* while it cannot be part of a plan (``holding``).
- The engine's word for an entry comes in the manager's thread, and is passed to ours (``_deliver_all``):
  nothing is unpickled, read or written in the manager's.
- A task is over when its own entry is, and every output that belongs here has been brought (``Retrieval``).
- One condition locks all of it; nobody calls the engine while holding it, except to release files.
"""

from __future__ import annotations

import heapq
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from graphvine.manager.engine import Outcome, Run, TaskEngine
from graphvine.protocol.errors import LibraryError, ManagerClosedError
from graphvine.protocol.payload import Entry
from graphvine.taskvine import results
from graphvine.taskvine.commands import report_of
from graphvine.taskvine.files import Buffer, File, LocalFile, Temp, all_needed, check_acyclic, glances
from graphvine.taskvine.growing import Growth
from graphvine.taskvine.holding import Holding, check_makeable
from graphvine.taskvine.ledger import Ledger
from graphvine.taskvine.plans import Begun, Builder, Listener, MissingInputError, stamp_or_none
from graphvine.taskvine.remote.contents import reason_absent, resolved
from graphvine.taskvine.remote.watching import Piece, decode
from graphvine.taskvine.results import Report, Summary
from graphvine.taskvine.retrieval import Retrieval
from graphvine.taskvine.task import Task

log = logging.getLogger("graphvine.tasks")

#: One plan holds at most so many tasks.
MAX_BATCH = 5000
#: Downloads from one host at a time.
SOURCE_TRANSFERS = 8
#: Threads that ask sources and write outputs.
HANDS = 8


class UnderWay:
    """A task that was handed over."""

    def __init__(self, task: Task, number: int, entries: int) -> None:
        self.task = task
        self.number = number
        """Of its own result, in the engine."""
        self.left = entries
        """Entries and retrievals that are not over."""
        self.report: Report | None = None
        self.own = False
        """Whether its own result is nobody's file."""
        self.awaited: list[int] = []
        """All of its entries, in the engine."""
        self.growths = {
            position: Growth(output.file)
            for position, output in enumerate(task._outputs)
            if output.watch and isinstance(output.file, (LocalFile, Buffer))
        }
        """The outputs that grow here while it runs, by position."""
        self.given_back: list[int] = []
        """Those that nobody's file is any more, while its word is awaited."""


class Desk:
    """One per manager."""

    def __init__(self, engine: TaskEngine, staging: str) -> None:
        self._engine = engine
        self._staging = staging
        self._condition = threading.Condition()
        self.ledger: Ledger[Task] = Ledger()
        self.defaults: dict[str, Summary] = {}
        """By category: what tasks ask for that do not say."""
        self.enforces = False
        """Whether tasks that use more than they stated are stopped."""
        self._source_transfers = SOURCE_TRANSFERS
        self._category_limits: dict[str, str] = {}
        """Names of the limits of categories that have one."""
        self._submitted: list[Task] = []
        self._held: list[Task] = []
        self._changed = False
        """Something that held tasks may wait for."""
        self._cancelled: set[int] = set()
        self._overdue: set[int] = set()
        """Tasks that are stopped because their time is over."""
        self._ends: list[tuple[float, int]] = []
        """When tasks must be over that say so, as a heap."""
        # Of C, and with a lock of its own: the manager's thread must not wait for ours.
        self._news: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._under_way: dict[int, UnderWay] = {}
        self._awaited: dict[int, UnderWay] = {}
        """By the numbers of their entries: what is released is not heard of any more."""
        self._limits: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._hands: ThreadPoolExecutor | None = None
        self._closed = False

    @property
    def lock(self) -> threading.Condition:
        return self._condition

    # -- users' threads --------------------------------------------------------------------------------

    def submit(self, task: Task) -> int:
        """Take a task over; its number. Raises ValueError, ManagerClosedError."""
        inputs = task.input_files()
        check_acyclic(inputs)
        outputs = task.output_files()
        for file in (*inputs, *outputs):
            if file.undeclared:
                raise ValueError(f"{file.label} was undeclared")
            if file._owner is not self._engine:
                raise ValueError(f"{file.label} was declared by another manager")
        with self._condition:
            if self._closed:
                raise ManagerClosedError("the manager is closed")
            check_makeable(task)
            number = self.ledger.submit(task)
            task._metrics["time_when_submitted"] = _now_us()
            needed = all_needed(inputs)
            task._found = glances(needed)
            for file in outputs:
                if file not in inputs:
                    file.producer = task
            for file in needed:
                file.users += 1
            self._submitted.append(task)
            if task._time_end:
                heapq.heappush(self._ends, (task._time_end / 1e6 + task._end_grace_s, number))
            self._start()
            self._condition.notify_all()
        return number

    def has(self, task: Task) -> bool:
        """Whether ``wait`` will return a task."""
        with self._condition:
            return not self._closed and self.ledger.get(task.id) is task

    def wait(self, timeout: float | None, tag: str | None, task_id: int | None) -> Task | None:
        """The next task that is over; None when none is after ``timeout`` seconds (None: for ever), or none
        can come. Raises ManagerClosedError."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while True:
                task = self.ledger.take(tag, task_id)
                if task is not None:
                    return task
                if not self.ledger.can_come(tag, task_id):
                    return None
                if self._closed:
                    raise ManagerClosedError("the manager is closed; its unfinished tasks are cancelled")
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._condition.wait(left)

    def _is_wanted(self, task: Task) -> bool:
        here = self.ledger.get(task.id) is task and task.state != "retrieved"
        return here and task.id not in self._cancelled

    def wanted(self) -> list[Task]:
        """Tasks that are not over, and not cancelled."""
        with self._condition:
            return [task for task in self.ledger.unfinished() if self._is_wanted(task)]

    def cancel(self, tasks: Iterable[Task]) -> int:
        """Stop tasks; how many of them were not over, and not stopped before."""
        numbers = []
        cancelled = 0
        with self._condition:
            for task in tasks:
                if not self._is_wanted(task):
                    continue
                cancelled += 1
                self._cancelled.add(task.id)
                under_way = self._under_way.get(task.id)
                if under_way is not None:
                    numbers.append(under_way.number)
                else:
                    self._changed = True
            self._condition.notify_all()
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
        self.use(files)
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

    def use(self, files: Sequence[File]) -> None:
        """As if an unfinished task needed them, until ``let_go``."""
        with self._condition:
            for needed in all_needed(files):
                needed.users += 1

    def let_go(self, files: Sequence[File]) -> None:
        """They are not held any more. Safe to call from a finalizer."""
        self._later(lambda: self._unuse(files))

    def _await_producer(self, file: File) -> None:
        """A file that a task makes has a number once that task was handed over."""
        with self._condition:
            self._start()
            self._condition.wait_for(
                lambda: file.producer is None or file.producer.id in self._under_way or self._closed
            )
            if self._closed:
                raise ManagerClosedError("the manager is closed")

    def undeclare(self, file: File) -> None:
        with self._condition:
            file.undeclared = True
            self._settle_file(file)

    def set_source_transfers(self, count: int) -> None:
        """How many downloads from one host go on at a time."""
        with self._condition:
            self._source_transfers = count
            names = list(self._limits)
        for name in names:
            self._engine.limit(name, count)

    def limit_category(self, category: str, count: int | None) -> None:
        """How many tasks of a category run at a time, of those submitted from now on."""
        name = f"category {category}"
        self._engine.limit(name, count)
        with self._condition:
            self._category_limits[category] = name

    def close(self) -> None:
        """Take nothing more; who waits is told. Safe to call twice."""
        with self._condition:
            self._closed = True
            hands, self._hands = self._hands, None
            left = self.ledger.unfinished()
            self._condition.notify_all()
        self._news.put(None)
        if hands is not None:
            hands.shutdown(wait=False, cancel_futures=True)
        for task in left:
            if task._on_over is not None:
                task._on_over(task)

    # -- handing over ----------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._threads:
            return
        self._hands = ThreadPoolExecutor(HANDS, "graphvine-files")
        self._holding = Holding(
            self._engine, self._condition, self._hands, self._staging, self._later, self._on_changed
        )
        for name, target in (("tasks", self._hand_over_all), ("results", self._deliver_all)):
            thread = threading.Thread(target=target, name=f"graphvine-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _hand_over_all(self) -> None:
        while True:
            self._stop_overdue()
            with self._condition:
                self._condition.wait_for(
                    lambda: self._submitted or self._changed or self._closed, self._next_time_s()
                )
                if self._closed:
                    return
                tasks = [*self._held, *self._submitted[:MAX_BATCH]]
                del self._submitted[:MAX_BATCH]
                self._changed = False
                ready, self._held = self._holding.sort_out(tasks, self._under_way, self._cancelled)
            try:
                self._hand_over_tasks(ready)
            except ManagerClosedError:
                return
            except Exception as error:
                log.exception("tasks cannot be handed over")
                for task in ready:
                    if task.id not in self._under_way:
                        self._fail(task, results.UNKNOWN, f"{type(error).__name__}: {error}")

    def _next_time_s(self) -> float | None:
        """Until something is to be done that nobody tells of."""
        times = [self._holding.next_time_s(self._held)]
        if self._ends:
            times.append(max(0.0, self._ends[0][0] - time.time()))
        return min((seconds for seconds in times if seconds is not None), default=None)

    def _stop_overdue(self) -> None:
        """Stop the tasks whose time is over."""
        with self._condition:
            late: list[Task] = []
            while self._ends and self._ends[0][0] <= time.time():
                task = self.ledger.get(heapq.heappop(self._ends)[1])
                if task is not None and self._is_wanted(task):
                    late.append(task)
            self._overdue.update(task.id for task in late)
        self.cancel(late)

    def _on_changed(self) -> None:
        """Something that held tasks may wait for."""
        with self._condition:
            self._changed = True
            self._condition.notify_all()

    def _hand_over_tasks(self, tasks: Sequence[Task]) -> None:
        """Make plans of tasks, one for each group of those that can share one."""
        builders: dict[Hashable, Builder] = {}
        where: dict[File, Hashable] = {}
        for task in tasks:
            if task.id in self._cancelled:
                self._fail(task, results.CANCELLED, "it was cancelled before it began")
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
            self._fail(task, results.FIXED_LOCATION_MISSING, str(error))
        except MissingInputError as error:
            self._fail(task, results.INPUT_MISSING, str(error))
        except LibraryError as error:
            self._fail(task, results.MISSING_LIBRARY, str(error))
        except Exception as error:  # noqa: BLE001 -- what it asks for, and its function, are the user's
            self._fail(task, results.UNKNOWN, f"{type(error).__name__}: {error}")

    def _builder(self) -> Builder:
        return Builder(self._staging, self.defaults, self._category_limits, self.enforces)

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
        with self._condition:
            used = set(builder.files().values())
            for file, entry in builder.files().items():
                file.hold(numbers[entry], self._release)
            for begun in builder.begun:
                self._begin(begun, numbers, listeners, used)
            cancelled = [
                under_way.number
                for under_way in self._under_way.values()
                if under_way.task.id in self._cancelled
            ]
            self._condition.notify_all()

        def hear(outcome: Outcome) -> None:
            listener = listeners.get(outcome.position)
            if listener is not None:
                self._later(lambda: listener(outcome))

        run.add_outcome_callback(hear)
        if any(output.watch for begun in builder.begun for output in begun.task._outputs):
            run.add_told_callback(lambda number, data: self._later(lambda: self._on_growth(number, data)))
        tasks = [begun.task for begun in builder.begun]
        if tasks:
            run.add_done_callback(lambda run: self._later(lambda: self._on_over(run, tasks)))
        if cancelled:
            self._engine.cancel_tasks(cancelled)

    def _begin(
        self, begun: Begun, numbers: Sequence[int], listeners: dict[int, Listener], used: set[int]
    ) -> None:
        task = begun.task
        entries = {begun.entry, *(entry for _, entry in begun.outputs)}
        under_way = UnderWay(task, numbers[begun.entry], len(entries))
        under_way.own = begun.entry not in used
        self._under_way[task.id] = under_way
        self.ledger.begin(task)
        task._metrics["time_when_commit_start"] = task._metrics["time_when_commit_end"] = _now_us()
        under_way.awaited = [numbers[entry] for entry in entries]
        self._awaited.update(dict.fromkeys(under_way.awaited, under_way))
        file_of = {entry: file for file, entry in begun.outputs}
        for file in file_of.values():
            # Not before, if it is an input as well: what is there now is what the task takes.
            file.producer = task
        for entry in entries:
            listeners[entry] = self._listener(under_way, entry == begun.entry, file_of.get(entry))

    def _listener(self, under_way: UnderWay, is_own: bool, file: File | None) -> Listener:
        def hear(outcome: Outcome) -> None:
            if is_own:
                self._on_ended(under_way, outcome)
            if file is not None:
                self._on_made(under_way, file, outcome)
            self._less(under_way)

        return hear

    # -- delivering ------------------------------------------------------------------------------------

    def _later(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called in the thread that delivers."""
        self._news.put(tell)

    def _deliver_all(self) -> None:
        while (tell := self._news.get()) is not None and not self._closed:
            try:
                tell()
            except ManagerClosedError:
                return
            except Exception:
                log.exception("what became of a task cannot be taken in")

    def _on_growth(self, number: int, data: bytes) -> None:
        """A running task told of more of one of its outputs."""
        under_way, piece = self._awaited.get(number), decode(data)
        growth = under_way.growths.get(piece.position) if under_way is not None else None
        hands = self._hands
        if growth is None or hands is None:
            return
        if isinstance(growth.file, Buffer):
            growth.take(piece)
        else:
            hands.submit(self._grow, growth, piece)

    def _grow(self, growth: Growth, piece: Piece) -> None:
        """In one of the hands."""
        try:
            growth.take(piece)
        except OSError as error:
            # Whether that matters is seen when all of it is brought.
            log.info("%s cannot grow: %s", growth.file.label, error)

    def _on_over(self, run: Run, tasks: Sequence[Task]) -> None:
        """A plan is over. Of one that was refused as a whole nothing else is heard."""
        try:
            run.check()
        except ManagerClosedError:
            return
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is why these tasks did not run
            for task in tasks:
                under_way = self._under_way.get(task.id)
                if under_way is not None and under_way.report is None:
                    for number in under_way.awaited:
                        self._awaited.pop(number, None)
                    self._fail(task, results.UNKNOWN, f"{type(error).__name__}: {error}")

    def _on_ended(self, under_way: UnderWay, outcome: Outcome) -> None:
        task = under_way.task
        try:
            report = task._read(outcome)
        except Exception as error:  # noqa: BLE001 -- unpickling a result runs the user's code
            report = report_of(outcome)
            report.result, report.reason = results.UNKNOWN, f"{type(error).__name__}: {error}"
        under_way.report = report
        task._metrics["time_workers_execute_last"] = round(outcome.duration_s * 1e6)
        task._metrics["time_workers_execute_all"] = round(outcome.duration_s * 1e6)
        task._metrics["bytes_received"] = task._metrics["bytes_transferred"] = outcome.size
        task._metrics["time_when_retrieval"] = _now_us()
        if task._awaits_value(outcome):
            under_way.left += 1
            self._retrieval(
                under_way.number,
                lambda value, error: self._later(lambda: self._on_value(under_way, value, error)),
                task._value_entry(outcome),
            )

    def _on_value(self, under_way: UnderWay, value: Any, error: BaseException | None) -> None:
        assert under_way.report is not None, "its own word came first"
        under_way.task._take_value(under_way.report, value, error)
        self._less(under_way)

    def _on_made(self, under_way: UnderWay, file: File, outcome: Outcome) -> None:
        """One of its files is made, or is not."""
        if not isinstance(file, (LocalFile, Buffer)) or not outcome.ok:
            return
        under_way.left += 1
        if outcome.value is not None:
            value = pickle.loads(outcome.value)
            hands = self._hands
            if hands is not None:
                hands.submit(self._bring, under_way, file, value)
        else:
            number = outcome.file
            self._retrieval(number, lambda value, error: self._bring(under_way, file, value, error))

    def _retrieval(
        self, number: int, take: Callable[[Any, BaseException | None], None], entry: Entry | None = None
    ) -> None:
        """Fetch a file, or what ``entry`` makes of it; ``take`` is called in one of the hands."""
        hands = self._hands
        if hands is not None:
            Retrieval(self._engine, hands, number, take, entry).begin()

    def _bring(self, under_way: UnderWay, file: File, value: Any, error: BaseException | None = None) -> None:
        """Put an output where it belongs. In one of the hands."""
        try:
            if error is not None:
                raise error
            growths = [growth for growth in under_way.growths.values() if growth.file is file]
            for growth in growths:
                growth.end()
            if not reason_absent(value):
                _put(file, value, grown=bool(growths))
        except Exception as caught:  # noqa: BLE001 -- a full disk, a directory that may not be written to
            failure = caught
            self._later(lambda: self._on_not_brought(under_way, file, failure))
            return
        self._later(lambda: self._less(under_way))

    def _on_not_brought(self, under_way: UnderWay, file: File, error: BaseException) -> None:
        report = under_way.report
        if report is not None and report.result == results.SUCCESS:
            report.result = results.OUTPUT_TRANSFER_ERROR
            report.reason = f"{file.label} cannot be brought here: {error}"
        self._less(under_way)

    def _less(self, under_way: UnderWay) -> None:
        under_way.left -= 1
        if under_way.left == 0:
            assert under_way.report is not None, "its own word is one of those that were awaited"
            for number in under_way.awaited:
                del self._awaited[number]
            own = [under_way.number] if under_way.own else []
            self._engine.release([*own, *under_way.given_back])
            self._end(under_way.task, under_way.report)

    def _release(self, numbers: Sequence[int]) -> None:
        """Give back what a file was; what a task under way makes, when that is over: another task may make
        the same file meanwhile. Called by whoever drops a file: takes no lock."""
        for number in numbers:
            under_way = self._awaited.get(number)
            if under_way is None:
                self._engine.release([number])
            else:
                under_way.given_back.append(number)

    def _fail(self, task: Task, word: str, reason: str) -> None:
        """A task is over that was not handed over."""
        report = Report(result=word, reason=reason, exit_code=-1)
        task._take_failure(report)
        self._end(task, report)

    def _end(self, task: Task, report: Report) -> None:
        with self._condition:
            if task.id in self._overdue:
                self._overdue.discard(task.id)
                if report.result == results.CANCELLED:
                    report.result, report.reason = results.MAX_END_TIME, "it was not over when it should be"
                    task._take_failure(report)
            task._report = report
            task._metrics["time_when_done"] = _now_us()
            self._under_way.pop(task.id, None)
            self._cancelled.discard(task.id)
            self.ledger.end(task)
            if task._on_over is not None:
                # Nobody waits for it here.
                self.ledger.take(task_id=task.id)
            for file in task.output_files():
                if file.producer is task:
                    file.producer = None
                self._settle_file(file)
            self._unuse(task.input_files())
            self._changed = self._changed or bool(self._held)
            self._condition.notify_all()
        if task._on_over is not None:
            task._on_over(task)

    # -- files -----------------------------------------------------------------------------------------

    def _unuse(self, files: Sequence[File]) -> None:
        with self._condition:
            for file in all_needed(files):
                file.users -= 1
                self._settle_file(file)

    def _settle_file(self, file: File) -> None:
        """Let go of what nobody may need any more."""
        if file.users > 0 or file.producer is not None:
            return
        if file.undeclared or (file.level == "task" and not isinstance(file, Temp)):
            file.let_go()
        if file.undeclared and file.unlink_when_done and isinstance(file, LocalFile):
            _unlink(file.path)


class _NowhereError(Exception):
    """No worker has an input that was to be there already."""


def _put(file: File, value: Any, grown: bool = False) -> None:
    """The content of an output, which perhaps has ``grown`` here before. Raises OSError."""
    from graphvine.taskvine.retrieval import read_bytes, write_over, write_path

    if isinstance(file, Buffer):
        file.data = read_bytes(value)
        file.growing = None
    elif isinstance(file, LocalFile):
        if not grown or not write_over(value, file.path):
            write_path(value, file.path)
        file.stamp = stamp_or_none(file.path)
        write_path(value, file.path)
        file.stamp = stamp_or_none(file.path)


def _unlink(path: str) -> None:
    import shutil

    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s is not needed any more, and cannot be removed: %s", path, error)


def _now_us() -> int:
    return time.time_ns() // 1000
