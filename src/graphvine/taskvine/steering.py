"""What a manager tells of itself and its tasks, and what it can be told about how it is to work: ``stats``,
``status``, ``tune``, ``set_*``, ..."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphvine.taskvine.base import DeskClient
from graphvine.taskvine.tuning import Tuning, hungry

if TYPE_CHECKING:
    from graphvine.taskvine import counts

_RESOURCES = frozenset({"cores", "memory", "disk", "gpus", "wall_time", "end"})


class SteeringClient(DeskClient):
    """Numbers and settings."""

    def __init__(self) -> None:
        super().__init__()
        self._tuning = Tuning()
        self._tasks_left = 0
        self._began_us = time.time_ns() // 1000
        self._properties: dict[str, Any] = {}

    # -- numbers ---------------------------------------------------------------------------------------

    @property
    def stats(self) -> counts.Stats:
        """Counts of workers and tasks; a snapshot."""
        from graphvine.taskvine import counts

        with self._desk.lock:
            stats = counts.of_tasks(self._desk.ledger)
        stats.time_when_started = self._began_us
        return counts.of_engine(stats, self._engine.counts(), self._engine.worker_sizes())

    def stats_category(self, category: str) -> counts.Stats:
        """Counts of the tasks of a category."""
        from graphvine.taskvine import counts

        with self._desk.lock:
            return counts.of_tasks(self._desk.ledger, category)

    def status(self, request: str) -> list[dict[str, Any]]:
        """``request``: "manager" (or "queue"), "tasks", "workers", "categories". Raises ValueError."""
        from graphvine.taskvine import counts

        if request in ("manager", "queue"):
            stats = self.stats
            return [{name: getattr(stats, name) for name in stats.__struct_fields__}]
        with self._desk.lock:
            ledger = self._desk.ledger
            if request == "tasks":
                return [counts.describe_task(task) for task in ledger.all()]
            if request == "categories":
                return [counts.describe_category(ledger, name) for name in ledger.categories()]
        if request == "workers":
            return [counts.describe_worker(size) for size in self._engine.worker_sizes()]
        raise ValueError(f"status({request!r}): ask for manager, tasks, workers or categories")

    def summarize_workers(self) -> list[dict[str, int]]:
        """Workers by size: how many there are with so many cores and GPUs, MB of memory and of disk."""
        from graphvine.taskvine import counts

        return counts.by_size(self._engine.worker_sizes())

    def application_info(self) -> None:
        """For subclasses that show something of their own."""

    def hungry(self) -> int:
        """How many more tasks it would like to have; 0 when it has enough."""
        from graphvine.taskvine import counts

        there = self._engine.counts()
        each = there.cores / there.workers if there.workers else 1.0
        defaults = self._desk.defaults
        with self._desk.lock:
            ledger, cancelled = self._desk.ledger, self._desk.cancelled
            asked = (
                counts.cores_of_task(task, defaults, each)
                for task in ledger.in_order()
                if task.id not in cancelled
            )
            unfinished = ledger.count_unfinished() - len(cancelled)
            return hungry(asked, unfinished, there.workers, there.cores, self._tuning)

    def tasks_left_count(self, ntasks: int) -> None:
        """How many tasks will be submitted still, for whoever starts workers."""
        self._tasks_left = max(0, int(ntasks))

    # -- settings --------------------------------------------------------------------------------------

    def tune(self, name: str, value: float) -> int:
        """Set a parameter (see docs/taskvine.md for those that mean something here). 0, or -1 for a name that
        there is not."""
        if not self._tuning.set(name, value):
            return -1
        if name == "file-source-max-transfers":
            self._desk.set_source_transfers(max(1, int(value)))
        elif name == "wait-for-workers":
            self._engine.await_workers(max(0, int(value)))
        return 0

    def block_host_with_timeout(self, host: str, timeout: float) -> None:
        """Workers of this host get no tasks for so many seconds (less than 1: until ``unblock_host``)."""
        self._engine.block_host(host, timeout if timeout >= 1 else None)

    def blacklist(self, host: str) -> None:
        """See ``block_host``."""
        self._engine.block_host(host)

    def blacklist_with_timeout(self, host: str, timeout: float) -> None:
        """See ``block_host_with_timeout``."""
        self.block_host_with_timeout(host, timeout)

    def blacklist_clear(self, host: str | None = None) -> None:
        """See ``unblock_host``."""
        self._engine.unblock_host(host)

    def set_draining_by_hostname(self, hostname: str, drain_mode: bool = True) -> None:
        """As ``block_host`` and ``unblock_host``; its workers stay."""
        if drain_mode:
            self._engine.block_host(hostname)
        else:
            self._engine.unblock_host(hostname)

    def workers_shutdown(self, n: int = 0) -> int:
        """Have so many workers leave (0: all), idle ones first, once what they have begun is done; returns
        how many do."""
        return self._engine.retire_some(n if n > 0 else sys.maxsize)

    def set_resources_max(self, rmd: Mapping[str, float]) -> None:
        """What tasks of the category "default" ask for that do not say."""
        self.set_category_resources_max("default", rmd)

    def set_category_resources_max(self, category: str, rmd: Mapping[str, float]) -> None:
        """What tasks of this category ask for that do not say: cores, memory and disk (MB), gpus. Raises
        ValueError for other resources."""
        from graphvine.taskvine.results import Summary

        unknown = sorted(set(rmd or ()) - _RESOURCES)
        if unknown:
            raise ValueError(f"no resource: {', '.join(unknown)}; there are cores, memory, disk and gpus")
        stated: dict[str, Any] = {
            name: value for name, value in (rmd or {}).items() if name in Summary.__struct_fields__
        }
        self._desk.defaults[category] = Summary(category=category, **stated)

    def set_resources_min(self, rmd: Mapping[str, float]) -> None:
        """Accepted: nothing is allocated automatically yet."""

    def set_category_resources_min(self, category: str, rmd: Mapping[str, float]) -> None:
        """Accepted: nothing is allocated automatically yet."""

    def set_category_first_allocation_guess(self, category: str, rmd: Mapping[str, float]) -> None:
        """Accepted: nothing is allocated automatically yet."""

    def set_category_max_concurrent(self, category: str, max_concurrent: int) -> None:
        """At most so many tasks of a category at once (less than 0: any number)."""
        self._desk.limit_category(category, None if max_concurrent < 0 else max_concurrent)

    def set_category_mode(self, category: str | None, mode: str) -> None:
        """``mode``: "fixed". Raises NotImplementedError for the others: nothing is allocated automatically
        yet."""
        if mode != "fixed":
            raise NotImplementedError(
                f"set_category_mode(..., {mode!r}): only 'fixed' is there yet; state what tasks need"
            )

    def set_category_autolabel_resource(self, category: str, resource: str, autolabel: bool) -> int:
        """Accepted: nothing is allocated automatically yet."""
        return int(resource in _RESOURCES)

    def initialize_categories(self, filename: str, rm: Mapping[str, float]) -> None:
        """Accepted: nothing is allocated automatically yet."""

    def enable_monitoring(self, watchdog: bool = True, time_series: bool = False) -> int:
        """Every task is measured anyway. ``watchdog``: from now on, a task that uses more memory or disk than
        it states (or its category does for it) is stopped: "resource exhaustion". ``time_series``: accepted.
        1."""
        self._desk.enforces = bool(watchdog)
        return 1

    def enable_peer_transfers(self) -> int:
        """Workers fetch files from each other (as they do anyway). 1."""
        self._engine.peer_transfers(True)
        return 1

    def disable_peer_transfers(self) -> int:
        """From now on files go from worker to worker through the manager. 1."""
        self._engine.peer_transfers(False)
        return 1

    def enable_proportional_resources(self) -> None:
        """Nothing to do: what is not stated is a share of the worker, as large as what is."""

    def disable_proportional_resources(self) -> None:
        """Accepted: cores and memory that are not stated are still a share of the worker."""

    def enable_disconnect_slow_workers(self, multiplier: float) -> None:
        """Accepted: workers are not told from each other by their speed yet."""

    def enable_disconnect_slow_workers_category(self, name: str, multiplier: float) -> None:
        """Accepted: workers are not told from each other by their speed yet."""

    def set_scheduler(self, scheduler: Any) -> None:
        """Nothing to do: tasks go where their data is, or where there is room."""

    def set_priority(self, priority: float) -> None:
        """Nothing to do: it is for a catalog."""

    def set_property(self, name: str, value: Any) -> None:
        """A word about this run, for reports."""
        self._properties[name] = value

    def set_catalog_servers(self, catalogs: str) -> None:
        """Nothing to do: workers find a manager by its connection file."""

    def update_catalog(self) -> None:
        """Nothing to do."""

    def set_manager_preferred_connection(self, mode: str) -> None:
        """Nothing to do: workers try all addresses of the manager."""

    def set_runtime_info_path(self, dirname: str) -> None:
        """Accepted: no logs are written yet."""

    def enable_debug_log(self, logfile: str) -> int:
        """Accepted: no logs are written yet. 1."""
        return 1

    def enable_perf_log(self, logfile: str, update_interval: float | None = None) -> int:
        """Accepted: no logs are written yet. 1."""
        return 1

    def enable_transactions_log(self, logfile: str) -> int:
        """Accepted: no logs are written yet. 1."""
        return 1

    def enable_taskgraph_log(self, logfile: str) -> int:
        """Accepted: no logs are written yet. 1."""
        return 1

    def set_keepalive_interval(self, interval: float) -> None:
        """Nothing to do: workers are heard every few seconds."""

    def set_keepalive_timeout(self, timeout: float) -> None:
        """Nothing to do (see ``set_keepalive_interval``)."""

    def log_debug_app(self, message: str) -> None:
        """A message of the application's, to the log ``graphvine.app``."""
        import logging

        logging.getLogger("graphvine.app").debug("%s", message)

    def log_txn_app(self, message: str) -> None:
        """As ``log_debug_app``."""
        self.log_debug_app(message)

    @property
    def using_ssl(self) -> bool:
        """Whether files, too, travel over encrypted connections only."""
        return self._encrypted
