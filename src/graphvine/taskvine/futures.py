"""``FuturesExecutor``: TaskVine's tasks and functions as a ``concurrent.futures.Executor``.

- Plain functions go to the executor that the manager has (``Manager.executor``): there, results stay on the
  workers, and a future among the arguments is an input of the call.
- ``FuturePythonTask`` and ``FutureFunctionCall`` are tasks like any other, with a future in place of
  ``wait``. One whose arguments hold futures is submitted when those are done, with their values.
- Whatever is submitted has one of the standard library's futures: ``concurrent.futures.wait`` and
  ``as_completed`` (which are here, too, as scripts expect them) work on all of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED as ALL_COMPLETED
from concurrent.futures import FIRST_COMPLETED as FIRST_COMPLETED
from concurrent.futures import FIRST_EXCEPTION as FIRST_EXCEPTION
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures import as_completed as as_completed
from concurrent.futures import wait as wait
from typing import TYPE_CHECKING, Any

from graphvine.protocol.errors import ManagerClosedError
from graphvine.protocol.futures import RunFuture, is_interrupt
from graphvine.taskvine import results
from graphvine.taskvine.gathering import Gathered
from graphvine.taskvine.libraries import FunctionCall
from graphvine.taskvine.maps import check_chunk_size, in_chunks, submit_tree
from graphvine.taskvine.python import PythonTask, PythonTaskNoResult
from graphvine.taskvine.remote import chunks

if TYPE_CHECKING:
    from graphvine.taskvine.libraries import LibraryTask
    from graphvine.taskvine.task import Task

#: What a factory is told oftenest; of these only cores mean something to a local worker.
_OPTIONS = frozenset(
    {
        "cores",
        "memory",
        "disk",
        "gpus",
        "min-workers",
        "max-workers",
        "workers-per-cycle",
        "tasks-per-worker",
        "timeout",
        "factory-timeout",
        "foremen-name",
        "env",
        "extra-options",
        "condor-requirements",
        "batch-options",
        "scratch-dir",
        "python-env",
        "python",
        "container",
        "account",
        "queue",
        "requirements",
        "wall-time",
        "target-duration",
    }
)


class VineFuture(RunFuture):
    """The future of a task. ``task``: the task, once it is submitted."""

    def __init__(self) -> None:
        super().__init__(_on_cancel)
        self.task: Task | None = None
        self.inner: Future[Any] | None = None
        """Of the call that it waits for."""

    def running(self) -> bool:
        """Whether a worker has it."""
        return not self.done() and self.task is not None and self.task.state == "running"


class _FutureTask(PythonTask):
    """What both kinds of task have."""

    _made_future: VineFuture | None = None

    @property
    def _future(self) -> VineFuture:
        if self._made_future is None:
            self._made_future = VineFuture()
        return self._made_future

    def output(self, timeout: float | str | None = None) -> Any:
        """The result, as of its future: waits for it, raises what it raised."""
        return self._future.result(None if timeout == "wait_forever" else timeout)  # type: ignore[arg-type]

    def clone(self) -> Task:
        new = super().clone()
        assert isinstance(new, _FutureTask)
        new._made_future, new._on_over = None, None
        return new


class FuturePythonTask(_FutureTask):
    """A call of a function, for ``FuturesExecutor.submit``; futures may be among its arguments."""


class FutureFunctionCall(FunctionCall, _FutureTask):
    """A call of a library's function, for ``FuturesExecutor.submit``; futures may be among its arguments."""


def begin(manager: Any, task: _FutureTask) -> VineFuture:
    """Submit a task, when the futures among its arguments are done. Raises ValueError for one that was
    submitted already."""
    future = task._future
    if future.task is not None or future.done() or task._on_over is not None:
        raise ValueError("this task was submitted before: submit a clone of it")
    task._on_over = _on_over

    needed = futures_in([task._args, task._kwargs])

    def start() -> None:
        if needed:
            task._args, task._kwargs = with_values(task._args), with_values(task._kwargs)
        future.task = task
        manager.submit(task)
        if future.cancelled():  # meanwhile
            manager.cancel_by_task_id(task.id)

    _when_done(future, needed, start)
    return future


def _on_over(task: Task) -> None:
    assert isinstance(task, _FutureTask)
    future, report = task._future, task._report
    if report is None:
        future.settle(error=ManagerClosedError("the manager was closed before this task was over"))
    elif report.result == results.CANCELLED:
        future.settle(error=CancelledError())
    elif isinstance(report.value, PythonTaskNoResult):
        future.settle(error=report.value)
    else:
        future.settle(report.value)


def _on_cancel(future: RunFuture) -> None:
    assert isinstance(future, VineFuture)
    if future.inner is not None:
        future.inner.cancel()
    task = future.task
    if task is not None and task.manager is not None and task.id:
        task.manager.cancel_by_task_id(task.id)


# -- futures as arguments --------------------------------------------------------------------------------


def futures_in(value: Any) -> list[Future[Any]]:
    """The futures in a value, at any depth of lists, tuples, sets and dicts."""
    if isinstance(value, Future):
        return [value]
    if type(value) in (list, tuple, set, frozenset):
        return [future for part in value for future in futures_in(part)]
    if type(value) is dict:
        return [future for item in value.items() for future in futures_in(item)]
    return []


def with_values(value: Any, leave: Callable[[Future[Any]], bool] = lambda _: False) -> Any:
    """``value`` with the results of futures (which are done) in their place, but for those to ``leave``.
    Raises what they raise."""
    kind = type(value)
    if isinstance(value, Future):
        return value if leave(value) else value.result()
    if kind in (list, tuple, set, frozenset):
        return kind(with_values(part, leave) for part in value)
    if kind is dict:
        return {with_values(key, leave): with_values(part, leave) for key, part in value.items()}
    return value


def _when_done(future: RunFuture, needed: Sequence[Future[Any]], start: Callable[[], None]) -> None:
    """Call ``start`` when all that is needed is done; what it raises becomes ``future``'s."""

    def begin_or_fail() -> None:
        if future.done():
            return
        try:
            start()
        except BaseException as error:  # noqa: BLE001 -- theirs who wait for the future
            future.settle(error=error)

    if not needed:
        begin_or_fail()
        return
    lock = threading.Lock()
    left = 1 + len(needed)

    def one_less(_: object = None) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        _in_turn(begin_or_fail)

    for one in needed:
        one.add_done_callback(one_less)
    one_less()


_turns = threading.local()


def _in_turn(call: Callable[[], None]) -> None:
    """Call it now, or after what this thread is calling in this way already: a chain of futures, each of
    which fails as the one before, may be longer than a stack is deep."""
    waiting: deque[Callable[[], None]] | None = getattr(_turns, "waiting", None)
    if waiting is not None:
        waiting.append(call)
        return
    waiting = _turns.waiting = deque([call])
    try:
        while waiting:
            waiting.popleft()()
    finally:
        _turns.waiting = None


# -- the executor ----------------------------------------------------------------------------------------


class FuturesExecutor(Executor):
    """Runs functions and tasks; with nothing else said, on a worker of its own with all cores."""

    def __init__(
        self,
        port: Any = None,
        batch_type: str = "local",
        manager: Any = None,
        manager_host_port: str | None = None,
        manager_name: str | None = None,
        factory_binary: str | None = None,
        worker_binary: str | None = None,
        log_file: str | None = None,
        factory: bool = True,
        opts: Mapping[str, Any] | None = None,
    ) -> None:
        """``manager``: one that is there; else one is made, with ``port`` and ``manager_name`` as for
        ``Manager``, and closed by ``shutdown``. ``factory``: start workers: for the batch type "local" one,
        with ``opts["cores"]`` cores; for others ("condor", "slurm", ...) a ``Factory``, with ``opts`` as its
        options, which says what it does in ``log_file``. Without it, workers are started by others, or as
        ``Manager`` does it. ``manager_host_port``, ``factory_binary``, ``worker_binary``: nothing to do.
        Raises TypeError, ValueError, PortInUseError, DeployError."""
        self.opts: dict[str, Any] = {}
        self._factory: Any = None
        for name, value in (opts or {}).items():
            self.set(name, value)
        self._owned = manager is None
        by_factory = factory and batch_type != "local"
        self.manager = manager
        if manager is None:
            self.manager = self._make_manager(port, manager_name, factory, by_factory)
        if by_factory:
            try:
                self._factory = self._start_factory(batch_type, log_file)
            except BaseException:
                if self._owned:
                    self.manager.close()
                raise
        self._plain: Any = self.manager.executor()
        self.task_table: list[Task] = []
        self._lock = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._closed = False

    def _start_factory(self, batch_type: str, log_file: str | None) -> Any:
        import graphvine

        factory = graphvine.Factory(batch_type, manager=self.manager, log_file=log_file)
        for name, value in self.opts.items():
            setattr(factory, name, value)
        factory.start()
        return factory

    def _make_manager(self, port: Any, name: str | None, factory: bool, by_factory: bool) -> Any:
        import graphvine

        if by_factory:
            # From anywhere its workers may come.
            return graphvine.Manager(0 if port is None else port, name, local_workers=0)
        cores = self.opts.get("cores")
        return graphvine.Manager(port, name, local_workers=(cores or True) if factory else None)

    @property
    def port(self) -> int:
        """The port that the manager listens on."""
        port: int = self.manager.port
        return port

    def set(self, name: str, value: Any) -> None:
        """An option for workers, as in ``opts`` (where a local worker's cores are to be). Raises
        ValueError."""
        key = name.replace("_", "-")
        if key not in _OPTIONS:
            raise ValueError(f"no option {name!r} for workers; there are {', '.join(sorted(_OPTIONS))}")
        self.opts[key] = value
        if self._factory is not None:
            setattr(self._factory, key, value)

    # -- tasks -----------------------------------------------------------------------------------------

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call a function, or run a task of ``future_task`` or ``future_funcall``. Futures may be among the
        arguments, at any depth of lists, tuples, sets and dicts.

        Raises RuntimeError after ``shutdown``, TypeError, ValueError."""
        if isinstance(fn, _FutureTask):
            if args or kwargs:
                raise TypeError("a task has its arguments already")
            return self._take(lambda: self._submit_task(fn))
        if not callable(fn):
            raise TypeError(f"{fn!r} is no function, and no task of future_task or future_funcall")
        return self._take(lambda: self._submit_call(fn, args, kwargs))

    def _submit_task(self, task: _FutureTask) -> Future[Any]:
        future = begin(self.manager, task)
        self.task_table.append(task)
        return future

    def _submit_call(self, fn: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Future[Any]:
        foreign = [one for one in futures_in([args, dict(kwargs)]) if not self._is_plain(one)]
        if not foreign:
            return self._plain.submit(fn, *args, **kwargs)  # type: ignore[no-any-return]
        future = VineFuture()

        def start() -> None:
            given = with_values([tuple(args), dict(kwargs)], self._is_plain)
            future.inner = inner = self._plain.submit(fn, *given[0], **given[1])
            inner.add_done_callback(lambda _: _follow(future, inner))

        _when_done(future, foreign, start)
        return future

    def _is_plain(self, future: Future[Any]) -> bool:
        """Whether its result is where the manager's executor knows it to be."""
        return getattr(future, "owner", None) is self._plain

    def _take(self, submit: Callable[[], Future[Any]]) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
        future = submit()
        with self._lock:
            self._open.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)

    def future_task(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> FuturePythonTask:
        """A task that calls ``fn``, to be given its resources and the like, and submitted."""
        return FuturePythonTask(fn, *args, **kwargs)

    def future_funcall(
        self, library_name: str, fn: str | Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> FutureFunctionCall:
        """A call of a function of an installed library, to be submitted."""
        return FutureFunctionCall(library_name, fn, *args, **kwargs)

    def create_library_from_functions(
        self, name: str, *function_list: Callable[..., Any], **options: Any
    ) -> LibraryTask:
        """See ``Manager.create_library_from_functions``."""
        task: LibraryTask = self.manager.create_library_from_functions(name, *function_list, **options)
        return task

    def install_library(self, libtask: LibraryTask) -> None:
        """See ``Manager.install_library``."""
        self.manager.install_library(libtask)

    def remove_library(self, name: str) -> None:
        """See ``Manager.remove_library``."""
        self.manager.remove_library(name)

    # -- functions over sequences ----------------------------------------------------------------------

    def map(
        self,
        fn: Any,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        chunk_size: int | None = None,
        library_name: str | None = None,
        **_: Any,
    ) -> Gathered:
        """Results of ``fn`` over the iterables: to be iterated over (which is what ``timeout``, in seconds,
        is for), or, as a future, their list. ``chunk_size`` (or ``chunksize``): calls per task.
        ``library_name``: ``fn`` is a function of that library. Raises ValueError."""
        chunk_size = chunksize if chunk_size is None else chunk_size
        check_chunk_size("chunk_size", chunk_size)
        arguments = list(zip(*iterables, strict=False))
        if library_name is not None:
            parts = [self.submit(self.future_funcall(library_name, fn, *one)) for one in arguments]
            return Gathered(parts, timeout, flat=False)
        if chunk_size == 1:
            return Gathered([self.submit(fn, *one) for one in arguments], timeout, flat=False)
        chunked = in_chunks(arguments, chunk_size)
        return Gathered([self.submit(chunks.all_of_arguments, fn, part) for part in chunked], timeout)

    def reduce(
        self,
        fn: Any,
        seq: Iterable[Any],
        fn_arity: int = 2,
        library_name: str | None = None,
        chunk_size: int = 1,
    ) -> Future[Any]:
        """The future of one value: ``fn`` of ``fn_arity`` neighbours (as a list, or as two arguments where it
        takes two), then of what came of those, and so on. ``chunk_size``: calls per task."""
        check_chunk_size("fn_arity", fn_arity, 2)
        check_chunk_size("chunk_size", chunk_size)
        if library_name is not None:
            return submit_tree(  # type: ignore[no-any-return]
                lambda items: self.submit(self.future_funcall(library_name, fn, items)), list(seq), fn_arity
            )
        return submit_tree(  # type: ignore[no-any-return]
            lambda items: self.submit(chunks.reduced_in_groups, fn, items, fn_arity),
            list(seq),
            fn_arity * chunk_size,
        )

    def allpairs(
        self,
        fn: Any,
        rows: Iterable[Any],
        cols: Iterable[Any],
        library_name: str | None = None,
        chunk_size: int = 1,
    ) -> Gathered:
        """The future of a table, a list of rows: ``fn(row, col)`` for each pair. ``chunk_size``: calls per
        task."""
        check_chunk_size("chunk_size", chunk_size)
        rows, cols = list(rows), list(cols)
        pairs = [(row, col) for row in rows for col in cols]
        if library_name is not None:
            parts = [self.submit(self.future_funcall(library_name, fn, *pair)) for pair in pairs]
        else:
            parts = [self.submit(chunks.all_pairs, fn, part) for part in in_chunks(pairs, chunk_size)]

        def table(values: list[Any]) -> list[list[Any]]:
            width = len(cols)
            return [values[row * width : (row + 1) * width] for row in range(len(rows))]

        return Gathered(parts, None, library_name is None, table)

    # -- life ------------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; what was submitted is run, unless ``cancel_futures``. A manager that was made
        here is closed after that."""
        with self._lock:
            self._closed = True
            left = list(self._open)
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait:
            self._finish(left)
        else:
            thread = threading.Thread(
                target=self._finish, args=(left,), name="graphvine-futures", daemon=True
            )
            thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all that was submitted; whoever interrupts the block waits for none of it."""
        self.shutdown(wait=True, cancel_futures=is_interrupt(kind))

    def _finish(self, left: Iterable[Future[Any]]) -> None:
        wait(list(left))
        self._plain.shutdown(wait=True)
        if self._factory is not None:
            self._factory.stop()
        if self._owned:
            self.manager.close()


def _follow(future: VineFuture, inner: Future[Any]) -> None:
    try:
        future.settle(inner.result())
    except BaseException as error:  # noqa: BLE001 -- the result, as it is
        future.settle(error=error)
