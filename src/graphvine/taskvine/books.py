"""What is known of the tasks of a manager while they are not over: shared by who hands them over (``desk``)
and who takes in what becomes of them (``delivery``). One lock is for all of it."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Sequence

from graphvine.taskvine import results
from graphvine.taskvine.files import Buffer, File, LocalFile, Temp, all_needed
from graphvine.taskvine.growing import Growth
from graphvine.taskvine.ledger import Ledger
from graphvine.taskvine.results import Report
from graphvine.taskvine.task import Task

log = logging.getLogger("graphvine.tasks")


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


class Books:
    """Whoever waits for something of it waits for ``condition``, and whoever changes it tells. What is to be
    handed over is told to ``work``, of the same lock: the thread that does so is not woken for each task that
    is over."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.work = threading.Condition(self.condition._lock)  # type: ignore[attr-defined]
        self.ledger: Ledger[Task] = Ledger()
        self.held: list[Task] = []
        """Tasks that cannot be handed over yet."""
        self.changed = False
        """Something that held tasks may wait for."""
        self.cancelled: set[int] = set()
        self.overdue: set[int] = set()
        """Tasks that are stopped because their time is over."""
        self.under_way: dict[int, UnderWay] = {}
        self.awaited: dict[int, UnderWay] = {}
        """By the numbers of their entries: what is released is not heard of any more."""
        self.closed = False

    def is_wanted(self, task: Task) -> bool:
        """Whether it is not over, and not cancelled."""
        here = self.ledger.get(task.id) is task and task.state != "retrieved"
        return here and task.id not in self.cancelled

    def wanted(self) -> list[Task]:
        """Tasks that are not over, and not cancelled."""
        with self.condition:
            return [task for task in self.ledger.unfinished() if self.is_wanted(task)]

    def on_changed(self) -> None:
        """Something that held tasks may wait for."""
        with self.condition:
            self.changed = True
            self.work.notify_all()

    def fail(self, task: Task, word: str, reason: str) -> None:
        """A task is over that was not handed over."""
        report = Report(result=word, reason=reason, exit_code=-1)
        task._take_failure(report)
        for file in task.output_files():
            if isinstance(file, Temp) and file.number is None:
                file.unmade = "the task that makes it was cancelled" if word == results.CANCELLED else reason
        self.end([(task, report)])

    def end(self, over: Sequence[tuple[Task, Report]]) -> None:
        """Tasks are over, and this is what became of them."""
        with self.condition:
            for task, report in over:
                self._end(task, report)
            self.condition.notify_all()
            if self.held:
                self.changed = True
                self.work.notify_all()
        for task, _ in over:
            if task._on_over is not None:
                task._on_over(task)

    def _end(self, task: Task, report: Report) -> None:
        if task.id in self.overdue:
            self.overdue.discard(task.id)
            if report.result == results.CANCELLED:
                report.result, report.reason = results.MAX_END_TIME, "it was not over when it should be"
                task._take_failure(report)
        task._report = report
        task._metrics["time_when_done"] = now_us()
        self.under_way.pop(task.id, None)
        self.cancelled.discard(task.id)
        self.ledger.end(task)
        if task._on_over is not None:
            # Nobody waits for it here.
            self.ledger.take(task_id=task.id)
        for file in task.output_files():
            if file.producer is task:
                file.producer = None
            self.settle_file(file)
        self.unuse(task.input_files())

    def use(self, files: Sequence[File]) -> None:
        """As if an unfinished task needed them, until ``let_go``."""
        with self.condition:
            for needed in all_needed(files):
                needed.users += 1

    def unuse(self, files: Sequence[File]) -> None:
        """A task needs them no more."""
        with self.condition:
            for file in all_needed(files):
                file.users -= 1
                self.settle_file(file)

    def settle_file(self, file: File) -> None:
        """Let go of what nobody may need any more."""
        if file.users > 0 or file.producer is not None:
            return
        if file.undeclared or (file.level == "task" and not isinstance(file, Temp)):
            file.let_go()
        if file.undeclared and file.unlink_when_done and isinstance(file, LocalFile):
            _unlink(file.path)


def _unlink(path: str) -> None:
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s is not needed any more, and cannot be removed: %s", path, error)


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000
