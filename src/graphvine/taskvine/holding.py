"""Tasks that are held back, because they cannot be part of a plan yet, and what is done about that.

A task is held back until its time has come; while a file that it needs is made by no task that was handed
over; while the version of a URL, or the content of a local file, is looked at; and while nodes are asked
whether they have kept a file from earlier runs. Looking is done by others' hands, never by the thread that
makes plans.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Executor

from graphvine.manager.engine import Outcome, TaskEngine
from graphvine.protocol.errors import ManagerClosedError
from graphvine.taskvine.files import Buffer, File, LocalFile, Temp, Url, all_needed
from graphvine.taskvine.naming import kept_name, to_be_named
from graphvine.taskvine.plans import Builder, stamp_or_none
from graphvine.taskvine.remote import kept
from graphvine.taskvine.remote.cache import content_name
from graphvine.taskvine.remote.contents import SMALL_BYTES, Absent
from graphvine.taskvine.remote.sources import SourceError, Validator, look_up
from graphvine.taskvine.task import Task

log = logging.getLogger("graphvine.tasks")

#: A task that waits for a temp that nobody makes: said after so long.
PATIENCE_S = 60.0


class Holding:
    """Decides which tasks wait. Everything is called under ``condition``, but for what the hands do."""

    def __init__(
        self,
        engine: TaskEngine,
        condition: threading.Condition,
        hands: Executor,
        staging: str,
        later: Callable[[Callable[[], None]], None],
        changed: Callable[[], None],
    ) -> None:
        """``later`` has something called in the thread that delivers; ``changed`` has tasks looked at
        again."""
        self._engine = engine
        self._condition = condition
        self._hands = hands
        self._staging = staging
        self._later = later
        self._changed = changed
        self._looking: set[int] = set()
        """Files that somebody looks at."""
        self._stamps: dict[LocalFile, int | None] = {}
        self._held_since: dict[int, float] = {}
        self._warned: set[int] = set()

    def next_time_s(self, held: Sequence[Task]) -> float | None:
        """Until something is to be done for held tasks that nobody tells of."""
        now_us = _now_us()
        times = [(task._time_start - now_us) / 1e6 for task in held if task._time_start > now_us]
        now = time.monotonic()
        for number, since in self._held_since.items():
            if number not in self._warned:
                times.append(since + PATIENCE_S - now)
        return max(0.0, min(times)) if times else None

    def sort_out(
        self, tasks: Sequence[Task], under_way: Container[int], cancelled: Container[int]
    ) -> tuple[list[Task], list[Task]]:
        """Those that can be part of a plan now, producers first, and those that cannot. ``under_way``: tasks
        that were handed over before, by number."""
        ready: list[Task] = []
        handed: set[int] = set()
        self._stamps.clear()

        def is_known(number: int) -> bool:
            return number in handed or number in under_way

        left = list(tasks)
        progress = True
        while progress and left:
            progress, held = False, []
            for task in left:
                if task.id in cancelled or not self._is_held(task, is_known):
                    ready.append(task)
                    handed.add(task.id)
                    progress = True
                else:
                    held.append(task)
            left = held
        self._warn(left)
        return ready, left

    def _is_held(self, task: Task, is_known: Callable[[int], bool]) -> bool:
        if task._time_start > _now_us():
            return True
        needed, archives = all_needed(task.input_files()), task._archives()
        if not needed and not archives:
            return False
        # Not the first reason only: what can be looked up begins to be.
        looked_up = [self._looks_up(file) for file in needed if isinstance(file, Url)]
        looked_up += [self._looks_up(file, to_name=True) for file in to_be_named(needed, archives)]
        if not any(looked_up):
            looked_up = [self._asks_nodes(file) for file in needed if not isinstance(file, Url)]
        return any(looked_up) or any(_is_lacking(file, is_known) for file in needed)

    def _looks_up(self, file: LocalFile | Url, to_name: bool = False) -> bool:
        """Whether a file must be looked at before it is used (or named); then somebody does."""
        if isinstance(file, Url):
            wanted = file.unsure or (to_name and file.validator is None)
        else:
            wanted = file.producer is None and file.named != self._stamp(file)
        if wanted and id(file) not in self._looking:
            self._looking.add(id(file))
            self._hands.submit(self._look_at, file)
        return wanted

    def _stamp(self, file: LocalFile) -> int | None:
        """What lies at its path now. Looked up once for all tasks."""
        if file not in self._stamps:
            self._stamps[file] = stamp_or_none(file.resolved())
        return self._stamps[file]

    def _warn(self, held: Sequence[Task]) -> None:
        now = time.monotonic()
        since = self._held_since
        self._held_since = {
            task.id: since.get(task.id, now) for task in held if task._time_start <= _now_us()
        }
        for task in held:
            waited = now - self._held_since.get(task.id, now)
            if waited < PATIENCE_S or task.id in self._warned:
                continue
            # Once, whatever it waits for: this is not a thing to be woken for again and again.
            self._warned.add(task.id)
            files = all_needed(task.input_files())
            if any(
                isinstance(file, Temp) and file.number is None and file.producer is None for file in files
            ):
                log.warning("task %d waits for a temp that no submitted task makes", task.id)

    def _look_at(self, file: LocalFile | Url) -> None:
        """In one of the hands."""
        try:
            if isinstance(file, Url):
                self._ask_source(file)
            else:
                self._read_local(file)
        except ManagerClosedError:
            return

    def _ask_source(self, file: Url) -> None:
        try:
            validator = look_up(file.url)
        except SourceError as error:
            # The one who fetches it will say so to whom it concerns.
            log.info("%s", error)
            validator = Validator()
        with self._condition:
            self._looking.discard(id(file))
            file.unsure = False
            known = file.validator
            if file.number is not None and known is not None and validator.tag and validator.tag != known.tag:
                file.let_go()
            file.validator = validator
        self._changed()

    def _read_local(self, file: LocalFile) -> None:
        """Name a local file's content."""
        path = file.resolved()
        stamp = stamp_or_none(path)
        try:
            content = content_name(path)
        except OSError as error:
            log.info("%s: %s", path, error)
            content = ""
        with self._condition:
            self._looking.discard(id(file))
            file.content, file.named = content, stamp
        self._changed()

    def _asks_nodes(self, file: File) -> bool:
        """Whether it is being found out if nodes have kept a file from earlier runs; then somebody does."""
        name = kept_name(file)
        if not name or file.probed == name or file.number is not None or file.producer is not None:
            return False
        if isinstance(file, (LocalFile, Buffer)) and len(file) <= SMALL_BYTES:
            return False
        if id(file) not in self._looking:
            self._looking.add(id(file))
            self._hands.submit(self._ask_nodes, file, name)
        return True

    def _ask_nodes(self, file: File, name: str) -> None:
        """In one of the hands."""
        builder = Builder(self._staging)
        builder.add((kept.find, (name,), None), [], f"what nodes kept of {file.label}", "kept")
        try:
            run = self._engine.run(builder.plan(), keep=True)
        except ManagerClosedError:
            return
        run.add_outcome_callback(lambda outcome: self._later(lambda: self._on_asked(file, name, outcome)))

    def _on_asked(self, file: File, name: str, outcome: Outcome) -> None:
        found = outcome.ok and not (outcome.value and isinstance(pickle.loads(outcome.value), Absent))
        with self._condition:
            self._looking.discard(id(file))
            file.probed = name
            if not found:
                self._engine.release([outcome.file])
            else:
                file.hold(outcome.file, self._engine.release)
                if isinstance(file, LocalFile):
                    file.stamp = file.named
        self._changed()


def check_makeable(task: Task) -> None:
    """Raises ValueError where a task, were it submitted, would wait for what it makes itself."""
    outputs = task.output_files()
    made = {id(file) for file in outputs}
    inputs = all_needed(task.input_files())
    if not any(file.users for file in outputs) and not any(id(file) in made for file in inputs):
        # Nobody waits for it: so it is with nearly all, and the walk is long in a chain of thousands.
        return
    seen: set[int] = set()
    left = [file for file in inputs if _is_unmade(file)]
    while left:
        file = left.pop()
        if id(file) in seen:
            continue
        seen.add(id(file))
        if file.producer is None and id(file) in made:
            raise ValueError(f"tasks in a circle: {task!r} makes a {file.label} that it waits for itself")
        if file.producer is not None:
            left += [needed for needed in all_needed(file.producer.input_files()) if _is_unmade(needed)]


def _is_unmade(file: File) -> bool:
    """Whether somebody has to make it first."""
    return file.producer is not None or (isinstance(file, Temp) and file.number is None)


def _is_lacking(file: File, is_known: Callable[[int], bool]) -> bool:
    if file.producer is not None:
        return not is_known(file.producer.id)
    return isinstance(file, Temp) and file.number is None and not file.unmade


def _now_us() -> int:
    return time.time_ns() // 1000
