"""Results that stay on the workers, and how a dask graph names them.

A kept key is the graph node ``KeptNode(key, kept_value, KeptResult)``, a ``Task``. Lowering for the same
engine turns it into an external input: nothing moves. Any other scheduler that runs it gets the value,
fetched; pickling one fetches it too. The files of a kept run are released when nothing refers to them any
more.
"""

from __future__ import annotations

import uuid
import weakref
from typing import Any

from dask._task_spec import Task

from graphvine.manager.engine import Engine, Run


class KeptResult:
    """One result on the workers."""

    __slots__ = ("__weakref__", "_engine", "_run", "file", "name", "needs")

    def __init__(self, engine: Engine, run: Run, file: int) -> None:
        self._engine = engine
        self._run = run
        self.file = file
        self.name = f"kept-{uuid.uuid4().hex}"
        self.needs: object = None
        """What has to stay as long as it may be made again."""

    def is_of(self, engine: Engine) -> bool:
        return self._engine is engine

    def check(self) -> None:
        """Raises what the run that was to make it raised, if that is known."""
        if self._run.done():
            self._run.result()

    def is_lost(self) -> bool:
        """Whether the run that was to make it has failed."""
        try:
            self.check()
        except Exception:  # noqa: BLE001 -- whatever it was, it is not there
            return True
        return False

    def fetch(self) -> Any:
        """The value. Waits until it is made; raises what its task raised."""
        self._run.result()
        return self._engine.fetch([self.file])[0]

    def __dask_tokenize__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.fetch(),)

    def __repr__(self) -> str:
        return f"<result kept on the workers, {self.name}>"


def keep(engine: Engine, run: Run) -> list[KeptResult]:
    """Handles of the wanted results of a kept run; each is released with its handle.

    Waits until the plan was taken over: a finalizer may run in any thread, so it must not wait."""
    handles = [KeptResult(engine, run, file) for file in run.files()]
    for handle in handles:
        finalizer = weakref.finalize(handle, engine.release, [handle.file])
        finalizer.atexit = False
    return handles


def kept_value(kept: Any) -> Any:
    """What a kept key's node calls, wherever another scheduler runs it."""
    return kept.fetch() if isinstance(kept, KeptResult) else kept


class KeptNode(Task):  # type: ignore[misc]
    """The graph node that stands for a kept result. Like a future in a graph of distributed's, it has a
    ``result``: that is how dask's own ``assert_eq`` looks at what is persisted."""

    __slots__ = ()

    def result(self, timeout: float | None = None) -> Any:
        """The value, fetched. ``timeout`` means nothing here."""
        return kept_value(self.args[0])


def kept_node(key: Any, kept: KeptResult) -> Task:
    """The graph node that stands for a kept result."""
    return KeptNode(key, kept_value, kept)


def is_kept(node: Task) -> bool:
    """Whether a node stands for a result on the workers."""
    return node.func is kept_value and isinstance(node.args[0], KeptResult)


def _itself(value: Any) -> Any:
    return value
