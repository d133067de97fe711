"""What dask users see of a manager: ``get``, ``persist``, ``compute`` and ``executor``.

``DaskClient`` is a base of the manager's class, or of anything else that can run plans: the methods of
``engine.Engine`` are on the same object. ``get`` and ``persist`` have to be, too: given ``scheduler=m.get``,
dask looks for ``persist`` on the object to which that ``get`` is bound.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import dask
from dask._task_spec import DataNode

from graphvine.dask_adapter.collections import to_request
from graphvine.dask_adapter.computing import compute_futures
from graphvine.dask_adapter.executor import GraphvineExecutor
from graphvine.dask_adapter.get import check_options, flatten, nested, start, values_of, wait_for
from graphvine.dask_adapter.kept import keep, kept_node
from graphvine.dask_adapter.lower import lower
from graphvine.dask_adapter.options import default_options
from graphvine.dask_adapter.shuffle import hold_task_shuffle, release_task_shuffle
from graphvine.envs import modules
from graphvine.manager.engine import Run
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.observe.progress import showing
from graphvine.protocol.messages import Resources


class DaskClient(ABC):
    """Runs dask's graphs on the engine that it is."""

    def __init__(self) -> None:
        hold_task_shuffle()
        self._shuffle = weakref.finalize(self, release_task_shuffle)
        self._shuffle.atexit = False
        self._executors: weakref.WeakSet[GraphvineExecutor] = weakref.WeakSet()

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
    def worker_names(self) -> list[str]: ...

    def watch(self, run: Run, progress: bool | None) -> AbstractContextManager[object]:
        """Shows a run while somebody waits for it. ``progress``: as in ``get``."""
        return showing(run, progress)

    # -- dask ------------------------------------------------------------------------------------------

    def get(
        self,
        dsk: Any,
        keys: Any,
        *,
        resources: Mapping[str, float] | Resources | None = None,
        retries: int | None = None,
        priority: int | None = None,
        progress: bool | None = None,
        **unknown: Any,
    ) -> Any:
        """Compute ``keys`` of the graph ``dsk``: a dask scheduler.

        ``keys`` is one key, or lists of keys, nested at will; the result has their shape, in tuples.
        ``resources``: what each task asks for (cores, memory and disk in MB, gpus). ``retries``: how often a
        task that raised is run again. ``priority``: larger runs earlier than other graphs. ``progress``: show
        a bar, or not (by default on a terminal).

        Raises what a task raised; MissingKeyError, GraphError, NotPicklableError; TypeError for an unknown
        option. KeyboardInterrupt cancels the run."""
        check_options(unknown)
        default = default_options(resources, retries, priority)
        lowered = lower(dsk, flatten(keys), self, default, modules.find())
        results: list[Any] = []
        if len(lowered.plan):
            run = start(self, lowered)
            with self.watch(run, progress):
                results = wait_for(run)
        return nested(keys, values_of(self, lowered, results))

    def persist(
        self,
        *collections: Any,
        optimize_graph: bool = True,
        resources: Mapping[str, float] | Resources | None = None,
        retries: int | None = None,
        priority: int | None = None,
        **unknown: Any,
    ) -> Any:
        """The same collections, with their results on the workers (when they are made: this does not wait).

        What is built on them starts from there. The results are dropped when nothing refers to them any more.
        One collection gives one, several (or a list or tuple of them) a tuple. Options as in ``get``."""
        check_options(unknown)
        default = default_options(resources, retries, priority)
        one = len(collections) == 1 and dask.is_dask_collection(collections[0])
        if len(collections) == 1 and isinstance(collections[0], (list, tuple)):
            collections = tuple(collections[0])

        def schedule(dsk: Any, keys: Any, **_: Any) -> Any:
            return nested(keys, self._keep(dsk, flatten(keys), default))

        # A plain function: of a method's object dask would ask ``persist``.
        kept = dask.persist(*collections, optimize_graph=optimize_graph, scheduler=schedule)
        return kept[0] if one else kept

    def _keep(self, dsk: Any, keys: Iterable[Any], default: TaskOptions) -> dict[Any, Any]:
        """The graph nodes that stand for ``keys`` from now on."""
        lowered = lower(dsk, keys, self, default, modules.find(), finalize=False)
        nodes: dict[Any, Any] = {}
        handles = keep(self, start(self, lowered, keep=True)) if len(lowered.plan) else []
        for key in lowered.keys:
            if key in lowered.position:
                nodes[key] = kept_node(key, handles[lowered.position[key]])
            elif key in lowered.external:
                nodes[key] = kept_node(key, lowered.external[key])
            else:
                nodes[key] = DataNode(key, lowered.literals[key])
        return nodes

    def compute(
        self,
        *collections: Any,
        optimize_graph: bool = True,
        resources: Mapping[str, float] | Resources | None = None,
        retries: int | None = None,
        priority: int | None = None,
        **unknown: Any,
    ) -> Any:
        """Begin to compute; a ``concurrent.futures.Future`` of each argument's value (several: a tuple).

        Several arguments share one graph, and are done together. Cancelling the last of their futures that is
        not cancelled stops the work. Options as in ``get``."""
        check_options(unknown)
        request = to_request(collections, optimize_graph)
        default = default_options(resources, retries, priority)
        lowered = lower(request.dsk, flatten(request.keys), self, default, modules.find())
        futures = compute_futures(self, lowered, request, len(collections))
        return futures[0] if len(futures) == 1 else tuple(futures)

    def executor(
        self,
        *,
        resources: Mapping[str, float] | Resources | None = None,
        retries: int | None = None,
        priority: int | None = None,
    ) -> GraphvineExecutor:
        """A ``concurrent.futures.Executor`` for plain functions. Options as in ``get``, for each call."""
        executor = GraphvineExecutor(self, default_options(resources, retries, priority))
        self._executors.add(executor)
        return executor

    def close(self) -> None:
        """Executors take nothing more; dask's settings are as they were before. Safe to call twice."""
        for executor in list(self._executors):
            executor.shutdown(wait=False)
        self._shuffle()
