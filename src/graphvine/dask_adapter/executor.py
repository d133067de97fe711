"""A ``concurrent.futures.Executor`` on an engine.

- What is submitted is queued; one thread takes all that is queued and makes one plan of it, and while that
  is handed over the next batch gathers. So thousands of submissions are a few plans, and one alone does not
  wait.
- Every result stays on the workers while its future lives. A future among the arguments, at any depth of
  lists, tuples, sets and dicts, is an input of the task: its value does not pass through here.
- A call that raises does not fail its plan: the exception is its result, and becomes that of every call that
  builds on it. So it is with a call that kills its worker: the plans are separate. Only what keeps a batch
  from being pickled is found by making a plan of each of its calls.
- In a forked child every call says at once that the executor is the parent's; it takes no lock for that, as
  a thread that is not there may hold it.
- A call may be cancelled until its result is here: it is not begun any more, and stopped if it runs, unless a
  call that builds on it needs it.
- Results are unpickled and callbacks called in a thread of ours, never in the manager's.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor
from typing import Any

from graphvine.dask_adapter.batch import Batch, CallFuture, dependencies
from graphvine.dask_adapter.calls import Raised
from graphvine.manager.engine import Engine, Run
from graphvine.manager.failure import failed_exception, raised_exception
from graphvine.manager.plan import TaskOptions
from graphvine.protocol.errors import ManagerClosedError, TaskError, check_process
from graphvine.protocol.futures import RunFuture, is_interrupt
from graphvine.protocol.outcomes import Failed

log = logging.getLogger("graphvine.executor")

#: One plan holds at most this many calls.
MAX_BATCH = 10_000


class GraphvineExecutor(Executor):
    """Runs plain functions on the workers."""

    def __init__(self, engine: Engine, options: TaskOptions | None = None) -> None:
        """``options``: what each call asks for."""
        self._engine = engine
        self._options = options or TaskOptions()
        self._pid = os.getpid()
        self._condition = threading.Condition()
        self._submitted: list[CallFuture] = []
        self._news: list[Callable[[], None]] = []
        self._open: set[CallFuture] = set()
        """Calls that are not done."""
        self._closed = False
        self._threads: list[threading.Thread] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> CallFuture:
        """Call ``fn`` on a worker. Raises RuntimeError after ``shutdown``, ManagerClosedError in a forked
        child."""
        check_process(self._pid)
        future = CallFuture(self, fn, args, kwargs, _on_cancel)
        with self._condition:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._start_threads()
            self._submitted.append(future)
            self._open.add(future)
            self._condition.notify_all()
        future.add_done_callback(self._on_future_done)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **_: Any,
    ) -> Iterator[Any]:
        """Results of ``fn`` over the iterables, in order. ``chunksize`` means nothing here."""
        check_process(self._pid)
        end = None if timeout is None else time.monotonic() + timeout
        futures = [self.submit(fn, *arguments) for arguments in zip(*iterables, strict=False)]
        futures.reverse()
        return _results(futures, end)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; those that were submitted are run, unless ``cancel_futures``. Raises
        ManagerClosedError in a forked child."""
        check_process(self._pid)
        with self._condition:
            self._closed = True
            rest = list(self._open)
            self._condition.notify_all()
        if cancel_futures:
            for future in rest:
                future.cancel()
        if wait and threading.current_thread() not in self._threads:
            for thread in self._threads:
                thread.join()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all calls; whoever interrupts the block waits for none."""
        # A forked child that leaves the block means its own end, not the executor's.
        if os.getpid() == self._pid:
            self.shutdown(wait=True, cancel_futures=is_interrupt(kind))

    # -- our threads -----------------------------------------------------------------------------------

    def _start_threads(self) -> None:
        if self._threads:
            return
        for name, target in (("submit", self._submit_all), ("deliver", self._deliver_all)):
            thread = threading.Thread(target=target, name=f"graphvine-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _submit_all(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._submitted or self._closed)
                batch = self._submitted[:MAX_BATCH]
                del self._submitted[:MAX_BATCH]
            if not batch:
                return
            self.start(batch)

    def _deliver_all(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._news or (self._closed and not self._open))
                news, self._news = self._news, []
            if not news:
                return
            for tell in news:
                try:
                    tell()
                except BaseException:
                    # A done callback may raise SystemExit, and the others still wait for their results.
                    log.exception("a callback of a future failed")

    def later(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called in the thread that delivers."""
        with self._condition:
            self._news.append(tell)
            self._condition.notify_all()

    def start(self, futures: Iterable[CallFuture]) -> None:
        """Hand over what is not done, as one plan, or one by one where that cannot be."""
        batch = [future for future in futures if not _is_settled(future)]
        if not batch:
            return
        try:
            Started(self, self._engine, batch).begin(self._options)
        except TaskError as error:
            if len(batch) == 1:
                batch[0].settle(error=error)
            else:
                self.start_alone(batch)
        except Exception as error:  # noqa: BLE001 -- a closed manager, say: theirs who wait
            for future in batch:
                future.settle(error=error)

    def start_alone(self, futures: Iterable[CallFuture]) -> None:
        """A plan for each."""
        for future in futures:
            self.start([future])

    def _on_future_done(self, future: Any) -> None:
        future.payload = None
        if not future.cancelled():
            # ``_on_cancel`` comes after this, and needs it.
            future.batch = None
        with self._condition:
            self._open.discard(future)
            if not self._open:
                self._condition.notify_all()


class Started:
    """A batch that was handed over."""

    def __init__(self, executor: GraphvineExecutor, engine: Engine, futures: Sequence[CallFuture]) -> None:
        self._executor = executor
        self._engine = engine
        self._batch = Batch(futures)
        self._futures = futures
        self._position_of = {id(future): position for position, future in enumerate(futures)}
        self._gathered: Run | None = None

    def begin(self, options: TaskOptions) -> None:
        """Raises NotPicklableError, ManagerClosedError."""
        files = self._engine.run(self._batch.plan(options), keep=True).files()
        for future, file in zip(self._futures, files, strict=True):
            future.file = file
            future.batch = self
            weakref.finalize(future, self._engine.release, [file]).atexit = False
        self._gathered = gathered = self._engine.gather(files)
        gathered.add_result_callback(
            lambda position: self._executor.later(lambda: self._on_result(gathered, position))
        )
        gathered.add_done_callback(lambda _: self._executor.later(lambda: self._on_done(gathered)))
        for future in self._futures:
            if future.cancelled():  # meanwhile
                self.on_cancelled(future)

    def on_cancelled(self, future: CallFuture) -> None:
        """Its result is wanted no longer, but by those that build on it."""
        if self._gathered is not None and future.file is not None:
            self._gathered.forget([self._position_of[id(future)]])
            self._engine.release([future.file])

    def _on_result(self, gathered: Run, position: int) -> None:
        future = self._futures[position]
        try:
            value = gathered.value(position)
        except BaseException as error:  # noqa: BLE001 -- a value that cannot be unpickled here
            future.settle(error=error)
            return
        if isinstance(value, Raised):
            where = f"task {value.name!r} failed on {value.host}"
            future.settle(error=raised_exception(value.error, value.text, value.name, where))
        elif isinstance(value, Failed):
            future.settle(error=failed_exception(value, future.name))
        else:
            future.settle(value)

    def _on_done(self, gathered: Run) -> None:
        try:
            gathered.check()
        except (CancelledError, ManagerClosedError) as error:
            self._settle_rest(error)
        except BaseException as error:  # noqa: BLE001 -- something that some of them build on is gone
            self._on_failed(error)

    def _on_failed(self, error: BaseException) -> None:
        for future in self._futures:
            future.file = None  # a plan that failed keeps nothing
        if len(self._futures) > 1 or any(needed.file != file for needed, file in self._batch.built_on):
            self._executor.start_alone(self._futures)
        else:
            self._settle_rest(error)

    def _settle_rest(self, error: BaseException) -> None:
        for future in self._futures:
            future.settle(error=error)


def _on_cancel(future: RunFuture) -> None:
    assert isinstance(future, CallFuture)
    batch, future.batch = future.batch, None
    if batch is not None:
        batch.on_cancelled(future)


def _is_settled(future: CallFuture) -> bool:
    """Whether a call needs no running: it is done, or what it builds on has failed, and then so has it."""
    if future.done():
        return True
    for needed in dependencies(future.payload):
        try:
            error = needed.failure()
        except CancelledError as cancelled:
            error = cancelled
        if error is not None:
            future.settle(error=error)
            return True
    return False


def _results(futures: list[CallFuture], end: float | None) -> Iterator[Any]:
    try:
        while futures:
            left = None if end is None else end - time.monotonic()
            yield futures.pop().result(left)
    finally:
        for future in futures:
            future.cancel()
