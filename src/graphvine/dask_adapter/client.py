"""What dask users see of a manager: ``get``, ``persist``, ``compute`` and ``executor``.

``DaskClient`` is a base of the manager's class, or of anything else that can run plans: the methods of
``engine.Engine`` are on the same object. ``get`` and ``persist`` have to be, too: given ``scheduler=m.get``,
dask looks for ``persist`` on the object to which that ``get`` is bound.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from graphvine.dask_adapter.get import check_options, flatten, nested, values_of, wait_for
from graphvine.dask_adapter.lower import lower
from graphvine.dask_adapter.options import default_options
from graphvine.dask_adapter.shuffle import hold_task_shuffle, release_task_shuffle
from graphvine.envs import modules
from graphvine.manager.engine import Run
from graphvine.manager.plan import Plan
from graphvine.observe.progress import showing
from graphvine.protocol.messages import Resources


class DaskClient(ABC):
    """Runs dask's graphs on the engine that it is."""

    def __init__(self) -> None:
        hold_task_shuffle()
        self._shuffle = weakref.finalize(self, release_task_shuffle)
        self._shuffle.atexit = False

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
            run = self.run(lowered.plan)
            with self.watch(run, progress):
                results = wait_for(run)
        return nested(keys, values_of(self, lowered, results))

    def close(self) -> None:
        """dask's settings are as they were before. Safe to call twice."""
        self._shuffle()
