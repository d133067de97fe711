"""The seam between whatever makes plans and whatever runs them.

``dask_adapter`` sees a manager only through ``Engine``. graphvine's own manager is one; another workflow
system that can run a plan could be another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from graphvine.manager.plan import Plan
from graphvine.protocol.messages import Resources
from graphvine.protocol.outcomes import OutcomeKind


class Cluster(Protocol):
    """What starts workers for a manager."""

    @property
    def remote(self) -> bool:
        """Whether its workers may be on other machines."""
        ...

    def attach(self, manager: Any) -> None:
        """Work for this manager from now on."""
        ...


class CategoryProgress(msgspec.Struct):
    """Counts of one category of a run."""

    name: str
    total: int
    done: int = 0
    running: int = 0
    """Given to a worker and not yet done."""
    failed: int = 0
    """As in Progress."""


class Progress(msgspec.Struct):
    """Where a run stands; a snapshot, cheap to take."""

    label: str
    total: int
    done: int
    running: int
    failed: int
    """Tries that failed: of tasks that raised, or whose executor died, or for whose result there was no room.
    One that is tried again, and done in the end, counts here as often as it failed before."""
    recomputed: int
    """Tasks run again because what they had made was lost."""
    workers: int
    cores: float
    elapsed_s: float
    finished: bool
    categories: list[CategoryProgress]


class Outcome(msgspec.Struct):
    """How a wanted task of a separate plan ended."""

    position: int
    """In ``plan.wanted``."""
    file: int
    ok: bool
    kind: OutcomeKind
    """"" when it went well."""
    text: str
    error: bytes
    """The pickled exception of one that raised, b"" where there is none."""
    size: int
    value: bytes | None
    """The inline pickle of a small result."""
    worker: str
    """Name and host of the worker where it ran last; "" where it never did."""
    host: str
    began_s: float
    """Unix time."""
    duration_s: float
    memory_mb: float
    tries: int
    """How often it was run to its end, well or not."""
    note: bytes = b""
    """What the task attached (``graphvine.worker.scratch.set_note``)."""
    request: Resources | None = None
    """What it asked for, and what the worker has where it ran last; None where it never did."""
    capacity: Resources | None = None


class Stats(msgspec.Struct):
    """What there is now; a snapshot."""

    workers: int
    cores: float
    waiting: int
    """Tasks that wait for inputs or for a worker."""
    running: int
    """Given to a worker and not yet done."""
    done: int
    """Done, of the plans that are not gone."""
    plans: int
    joined: int = 0
    """Workers that ever joined: all but those that are there are gone."""
    released: int = 0
    """... that were sent away, as they were not needed or were to leave."""
    lost: int = 0
    """... that were gone without a word."""
    blocked: int = 0
    """Workers that are there and get no tasks."""


class Run(Protocol):
    """A plan that was handed over. All methods may be called from any thread."""

    def result(self, timeout: float | None = None) -> list[Any]:
        """The values of ``plan.wanted``, in that order (for a kept run: a list of None).

        Waits. Raises the failed task's exception, ManagerClosedError, TimeoutError, or
        concurrent.futures.CancelledError."""
        ...

    def files(self) -> list[int]:
        """File numbers of ``plan.wanted``, in that order: what a later plan names in ``externals``."""
        ...

    def done(self) -> bool: ...

    def cancel(self) -> bool:
        """Stop it: nothing of it is started any more, what runs is stopped. False when it was finished."""
        ...

    def forget(self, positions: Sequence[int]) -> None:
        """Nobody wants these results any more; of a run that is not kept. Tasks that nothing else needs are
        not begun, and are stopped if they run. What ``result`` says of these positions means nothing."""
        ...

    def check(self) -> None:
        """Raises what ``result`` would raise. Only for a run that is done."""
        ...

    def progress(self) -> Progress: ...

    def add_done_callback(self, callback: Callable[[Run], None]) -> None:
        """Call ``callback(run)`` once, from the manager's thread, when it is finished: keep it short."""
        ...

    def add_result_callback(self, callback: Callable[[int], None]) -> None:
        """Call ``callback(position)`` once for each wanted result (of a run that is not kept) when its value
        is here, from the manager's thread: keep it short."""
        ...

    def add_outcome_callback(self, callback: Callable[[Outcome], None]) -> None:
        """Call ``callback(outcome)`` once for each wanted task of a separate plan (a kept one, too) when it
        is done or has failed for good, always from the manager's thread: keep it short. One callback a run;
        what was released before it was made has no outcome."""
        ...

    def add_told_callback(self, callback: Callable[[int, bytes], None]) -> None:
        """Call ``callback(task, data)`` with what running tasks say on their way (``worker.notes.tell``),
        always from the manager's thread: keep it short. ``task``: by the file that it makes. One a run."""
        ...

    def value(self, position: int) -> Any:
        """A wanted result that is here (see ``add_result_callback``), before the run is finished."""
        ...


class Engine(Protocol):
    """Runs plans."""

    def expect_work(self) -> None:
        """Work is about to come: what takes time to get ready may begin to. Returns at once; may be called
        often, and in vain. Raises ManagerClosedError."""
        ...

    def run(self, plan: Plan, *, keep: bool = False) -> Run:
        """Take a plan over and start it; returns at once.

        With ``keep`` the wanted results stay on the workers until ``release``; otherwise they are fetched
        as they are made. Raises ManagerClosedError."""
        ...

    def fetch(self, files: Sequence[int]) -> list[Any]:
        """The values of kept files. Waits; recomputes what was lost."""
        ...

    def gather(self, files: Sequence[int]) -> Run:
        """Begin to fetch kept files, made or not yet; returns at once. A run whose results they are."""
        ...

    def release(self, files: Sequence[int]) -> None:
        """Kept files are no longer needed. Safe to call from a finalizer and after closing."""
        ...

    def cancel_tasks(self, files: Sequence[int]) -> None:
        """Tasks of separate plans, by the files they make: what has not begun never does, what runs is
        stopped; the outcome is "cancelled". Nothing happens to those that are done."""
        ...

    def worker_names(self) -> list[str]:
        """Names and hosts that ``TaskOptions.workers`` can match now."""
        ...


class WorkerSize(msgspec.Struct, frozen=True):
    """A worker that is connected, and what it has."""

    name: str
    host: str
    capacity: Resources


class TaskEngine(Engine, Protocol):
    """What whoever hands over single tasks and files needs beside that."""

    def replicas(self, file: int) -> int:
        """How many workers hold a file now."""
        ...

    def prune(self, files: Sequence[int]) -> None:
        """Drop all copies of kept files, but for those that a task waits for. Each is made again when it is
        needed."""
        ...

    def limit(self, name: str, count: int | None) -> None:
        """From now on, at most ``count`` tasks whose ``TaskOptions.limit`` is ``name`` run at once (None: any
        number). What workers have when it is first set counts, and goes on."""
        ...

    def peer_transfers(self, allowed: bool) -> None:
        """Whether workers fetch files from each other, from now on; else these go through the manager."""
        ...

    def block_host(self, host: str, seconds: float | None = None) -> None:
        """Give no more tasks to workers of this host (or name), for so long (None: until ``unblock_host``).
        What they hold stays, and what they run goes on."""
        ...

    def retire_some(self, count: int) -> int:
        """Have so many workers leave, idle ones first, once they have done what they have begun and handed
        over what only they hold; returns how many do."""
        ...

    def unblock_host(self, host: str | None = None) -> None:
        """Its workers get tasks again (None: those of every host)."""
        ...

    def await_workers(self, count: int) -> None:
        """Give no tasks to anybody before so many workers are there; from then on they may come and go."""
        ...

    def worker_sizes(self) -> list[WorkerSize]: ...

    def counts(self) -> Stats: ...
