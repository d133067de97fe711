"""What dask users see of a manager: ``get``, ``persist``, ``compute`` and ``executor``.

``DaskClient`` is a base of the manager's class, or of anything else that can run plans: the methods of
``engine.Engine`` are on the same object. ``get`` and ``persist`` have to be, too: given ``scheduler=m.get``,
dask looks for ``persist`` on the object to which that ``get`` is bound.

Imports neither dask nor what works with it: a manager is there at once, and when work comes, the engine hears
of it first (``expect_work``), so that its worker starts while dask is imported here (150 ms) and the graph
is lowered.
"""

from __future__ import annotations

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from graphvine.dask_adapter.shuffle import hold_task_shuffle, release_task_shuffle

if TYPE_CHECKING:
    from graphvine.dask_adapter.executor import GraphvineExecutor
    from graphvine.dask_adapter.requests import Stated
    from graphvine.dask_adapter.surroundings import Archives, Surroundings
    from graphvine.manager.engine import Run
    from graphvine.manager.plan import Plan
    from graphvine.protocol.messages import Resources


class DaskClient(ABC):
    """Runs dask's graphs on the engine that it is."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        hold_task_shuffle()
        self._shuffle = weakref.finalize(self, release_task_shuffle)
        self._shuffle.atexit = False
        self._executors: weakref.WeakSet[GraphvineExecutor] = weakref.WeakSet()
        self._archives: Archives | None = None

    # -- what the engine brings ------------------------------------------------------------------------

    @abstractmethod
    def run(self, plan: Plan, *, keep: bool = False) -> Run: ...

    @abstractmethod
    def fetch(self, files: Sequence[int]) -> list[Any]: ...

    @abstractmethod
    def gather(self, files: Sequence[int]) -> Run: ...

    @abstractmethod
    def release(self, files: Sequence[int]) -> None: ...

    @abstractmethod
    def cancel_tasks(self, files: Sequence[int]) -> None: ...

    @abstractmethod
    def worker_names(self) -> list[str]: ...

    def expect_work(self) -> None:  # noqa: B027 -- an engine that has nothing to prepare does nothing
        """Work is about to come (see ``engine.Engine``)."""

    def watch(self, run: Run, progress: bool | None) -> AbstractContextManager[object]:
        """Shows a run while somebody waits for it. ``progress``: as in ``get``."""
        from graphvine.observe.progress import showing

        return showing(run, progress)

    def surroundings(
        self,
        environment: Any = None,
        env_vars: Mapping[str, object] | None = None,
        progress: bool | None = None,
    ) -> Surroundings:
        """What tasks are to find around them (see ``get``): ``around`` puts a plan into it."""
        from graphvine.dask_adapter.surroundings import Archives

        if self._archives is None:
            self._archives = Archives(self)
        if env_vars is not None and isinstance(env_vars, Mapping):
            # TaskVine's values may be functions of the manager and a task; here tasks share them.
            env_vars = {
                name: value(self, None) if callable(value) else value for name, value in env_vars.items()
            }
        return self._archives.surroundings(self.archive_of(environment), env_vars, progress)

    def archive_of(self, environment: Any) -> Any:
        """What ``surroundings`` takes, of what was declared as an environment."""
        return environment

    def hold_files(self, files: Sequence[Any]) -> Any:
        """Declared files for tasks: an object with their ``results()``, and a function to run tasks with."""
        raise TypeError("extra_files: there are no files to declare here")

    def _stated(
        self,
        resources: Mapping[str, float] | Resources | None,
        retries: int | None,
        priority: int | None,
        environment: Any,
        env_vars: Mapping[str, object] | None,
        more: Mapping[str, Any],
        progress: bool | None = None,
        of_get: bool = False,
    ) -> Stated:
        """Options as one."""
        from graphvine.dask_adapter import requests
        from graphvine.dask_adapter.vine import read_options

        vine = read_options(more, of_get)
        default = requests.default_of(resources, retries, priority)
        around = self.surroundings(environment, env_vars, False if vine.quiet else progress)
        held = self.hold_files([file for file, _ in vine.files]) if vine.files else None
        return requests.Stated(default, around, vine, held)

    # -- dask ------------------------------------------------------------------------------------------

    def get(
        self,
        dsk: Any,
        keys: Any,
        *,
        resources: Mapping[str, float] | Resources | None = None,
        retries: int | None = None,
        priority: int | None = None,
        environment: Any = None,
        env_vars: Mapping[str, object] | None = None,
        progress: bool | None = None,
        **taskvine: Any,
    ) -> Any:
        """Compute ``keys`` of the graph ``dsk``: a dask scheduler.

        ``keys`` is one key, or lists of keys, nested at will; the result has their shape, in tuples.
        ``resources``: what each task asks for (cores, memory and disk in MB, gpus). ``retries``: how often a
        task that raised is run again. ``priority``: larger runs earlier than other graphs. ``environment``:
        where tasks run: a packed environment, or one that is packed now: "current", the path of a conda or
        virtual environment. ``env_vars``: environment variables of the tasks. ``progress``: show a bar, or
        not (by default on a terminal). Beside these it takes DaskVine's options: docs/dask.md has a table.

        Raises what a task raised; MissingKeyError, GraphError, NotPicklableError; EnvironmentUnusableError,
        PackedEnvironmentError; TypeError for an unknown option. KeyboardInterrupt cancels the run."""
        self.expect_work()
        from graphvine.dask_adapter import requests

        stated = self._stated(resources, retries, priority, environment, env_vars, taskvine, progress, True)
        shown = False if stated.vine.quiet else progress
        return requests.get(self, dsk, keys, stated, lambda run: self.watch(run, shown))

    def __call__(self, dsk: Any, keys: Any, **options: Any) -> Any:
        """As ``get``: a manager may be named as the scheduler itself."""
        return self.get(dsk, keys, **options)

    def persist(
        self,
        *collections: Any,
        optimize_graph: bool = True,
        resources: Mapping[str, float] | Resources | None = None,
        retries: int | None = None,
        priority: int | None = None,
        environment: Any = None,
        env_vars: Mapping[str, object] | None = None,
        **taskvine: Any,
    ) -> Any:
        """The same collections, with their results on the workers (when they are made: this does not wait).

        What is built on them starts from there. The results are dropped when nothing refers to them any more.
        One collection gives one, several (or a list or tuple of them) a tuple. Options as in ``get``."""
        self.expect_work()
        from graphvine.dask_adapter import requests

        stated = self._stated(resources, retries, priority, environment, env_vars, taskvine)
        return requests.persist(self, collections, stated, optimize_graph)

    def compute(
        self,
        *collections: Any,
        optimize_graph: bool = True,
        resources: Mapping[str, float] | Resources | None = None,
        retries: int | None = None,
        priority: int | None = None,
        environment: Any = None,
        env_vars: Mapping[str, object] | None = None,
        **taskvine: Any,
    ) -> Any:
        """Begin to compute; a ``concurrent.futures.Future`` of each argument's value (several: a tuple).

        Several arguments share one graph, and are done together. Cancelling the last of their futures that is
        not cancelled stops the work. Options as in ``get``."""
        self.expect_work()
        from graphvine.dask_adapter import requests

        stated = self._stated(resources, retries, priority, environment, env_vars, taskvine)
        return requests.compute(self, collections, stated, optimize_graph)

    def executor(
        self,
        *,
        resources: Mapping[str, float] | Resources | None = None,
        retries: int | None = None,
        priority: int | None = None,
        environment: Any = None,
        env_vars: Mapping[str, object] | None = None,
    ) -> GraphvineExecutor:
        """A ``concurrent.futures.Executor`` for plain functions. Options as in ``get``, for each call."""
        self.expect_work()
        from graphvine.dask_adapter import requests
        from graphvine.dask_adapter.executor import GraphvineExecutor

        around = self.surroundings(environment, env_vars)
        options = requests.default_of(resources, retries, priority)
        executor = GraphvineExecutor(around.engine(self), options)
        self._executors.add(executor)
        return executor

    def close(self) -> None:
        """Executors take nothing more; dask's settings are as they were before. Safe to call twice, and in a
        forked child, where it does nothing."""
        if os.getpid() != self._pid:
            return
        for executor in list(self._executors):
            executor.shutdown(wait=False)
        self._archives = None
        self._shuffle()
