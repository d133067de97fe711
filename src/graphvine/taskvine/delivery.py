"""What becomes of tasks that were handed over: heard, read, and their outputs brought here.

- The engine's word for an entry comes in the manager's thread, and is passed to ours (``_deliver_all``):
  nothing is unpickled, read or written in the manager's.
- A task is over when its own entry is, and every output that belongs here has been brought (``Retrieval``).
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from graphvine.manager.engine import Outcome, Run, TaskEngine
from graphvine.protocol.errors import ManagerClosedError
from graphvine.protocol.payload import Entry
from graphvine.taskvine import results
from graphvine.taskvine.books import Books, UnderWay, now_us
from graphvine.taskvine.commands import report_of
from graphvine.taskvine.files import Buffer, File, LocalFile
from graphvine.taskvine.growing import Growth
from graphvine.taskvine.plans import Listener, stamp_or_none
from graphvine.taskvine.remote.contents import reason_absent
from graphvine.taskvine.remote.watching import Piece, decode
from graphvine.taskvine.results import Report
from graphvine.taskvine.retrieval import Retrieval
from graphvine.taskvine.task import Task

log = logging.getLogger("graphvine.tasks")

#: Threads that ask sources and write outputs.
HANDS = 8
#: So much is taken in before those who wait for tasks are told: often there is as much as came in one report.
_TOGETHER = 64


class Delivery:
    """One per desk."""

    def __init__(self, engine: TaskEngine, books: Books) -> None:
        self._engine = engine
        self._books = books
        # Of C, and with a lock of its own: the manager's thread must not wait for ours.
        self._news: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._hands: ThreadPoolExecutor | None = None
        self._over: list[tuple[Task, Report]] = []
        """Tasks of which all is taken in, and what nobody needs of them any more."""
        self._needless: list[int] = []

    def start(self) -> Executor:
        """Begin to deliver; the hands that write outputs, for other such work, too."""
        self._hands = ThreadPoolExecutor(HANDS, "graphvine-files")
        threading.Thread(target=self._deliver_all, name="graphvine-results", daemon=True).start()
        return self._hands

    def close(self) -> None:
        """Deliver nothing more. Safe to call twice."""
        hands, self._hands = self._hands, None
        self._news.put(None)
        if hands is not None:
            hands.shutdown(wait=False, cancel_futures=True)

    def listener(self, under_way: UnderWay, is_own: bool, file: File | None) -> Listener:
        """What hears of one entry of a task: of its own one, or of that which is a file."""

        def hear(outcome: Outcome) -> None:
            if is_own:
                self._on_ended(under_way, outcome)
            if file is not None:
                self._on_made(under_way, file, outcome)
            self._less(under_way)

        return hear

    def later(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called in the thread that delivers."""
        self._news.put(tell)

    def _deliver_all(self) -> None:
        while (tell := self._news.get()) is not None and not self._books.closed:
            try:
                for _ in range(_TOGETHER):
                    self._take_in(tell)
                    tell = self._news.get_nowait()
                    if tell is None:
                        return
                self._take_in(tell)
            except Empty:
                # Nothing of that task is kept while the next word is waited for.
                del tell
            except ManagerClosedError:
                return
            self._conclude()

    def _take_in(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except ManagerClosedError:
            raise
        except Exception:
            log.exception("what became of a task cannot be taken in")

    def _conclude(self) -> None:
        """Tell of those that are over."""
        over, self._over = self._over, []
        needless, self._needless = self._needless, []
        if needless:
            self._engine.release(needless)
        if over:
            self._books.end(over)

    def on_growth(self, number: int, data: bytes) -> None:
        """A running task told of more of one of its outputs."""
        under_way, piece = self._books.awaited.get(number), decode(data)
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

    def on_over(self, run: Run, tasks: Sequence[Task]) -> None:
        """A plan is over. Of one that was refused as a whole nothing else is heard."""
        try:
            run.check()
        except ManagerClosedError:
            return
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is why these tasks did not run
            for task in tasks:
                under_way = self._books.under_way.get(task.id)
                if under_way is not None and under_way.report is None:
                    for number in under_way.awaited:
                        self._books.awaited.pop(number, None)
                    self._books.fail(task, results.UNKNOWN, f"{type(error).__name__}: {error}")

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
        task._metrics["time_when_retrieval"] = now_us()
        if task._awaits_value(outcome):
            under_way.left += 1
            self._retrieval(
                under_way.number,
                lambda value, error: self.later(lambda: self._on_value(under_way, value, error)),
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
            self.later(lambda: self._on_not_brought(under_way, file, failure))
            return
        self.later(lambda: self._less(under_way))

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
                del self._books.awaited[number]
            if under_way.own:
                self._needless.append(under_way.number)
            self._needless += under_way.given_back
            self._over.append((under_way.task, under_way.report))

    def release(self, numbers: Sequence[int]) -> None:
        """Give back what a file was; what a task under way makes, when that is over: another task may make
        the same file meanwhile. Called by whoever drops a file: takes no lock."""
        for number in numbers:
            under_way = self._books.awaited.get(number)
            if under_way is None:
                self._engine.release([number])
            else:
                under_way.given_back.append(number)


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
