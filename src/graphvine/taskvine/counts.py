"""Numbers about a manager and its tasks, under TaskVine's names. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from graphvine.manager.engine import Stats as EngineStats
from graphvine.manager.engine import WorkerSize
from graphvine.protocol.messages import Resources, cores_of, is_light
from graphvine.taskvine.ledger import Ledger, Totals
from graphvine.taskvine.results import Summary
from graphvine.taskvine.task import Task


class Stats(msgspec.Struct):
    """Times in microseconds, memory and disk in MB, bytes. What is not counted here is 0."""

    workers_connected: int = 0
    workers_init: int = 0
    workers_idle: int = 0
    workers_busy: int = 0
    workers_able: int = 0
    workers_joined: int = 0
    workers_removed: int = 0
    workers_released: int = 0
    workers_idled_out: int = 0
    workers_slow: int = 0
    workers_blocked: int = 0
    workers_lost: int = 0
    tasks_waiting: int = 0
    tasks_on_workers: int = 0
    tasks_running: int = 0
    tasks_with_results: int = 0
    tasks_submitted: int = 0
    tasks_dispatched: int = 0
    tasks_done: int = 0
    tasks_failed: int = 0
    tasks_cancelled: int = 0
    tasks_exhausted_attempts: int = 0
    time_when_started: int = 0
    time_send: int = 0
    time_receive: int = 0
    time_send_good: int = 0
    time_receive_good: int = 0
    time_status_msgs: int = 0
    time_internal: int = 0
    time_polling: int = 0
    time_application: int = 0
    time_scheduling: int = 0
    time_workers_execute: int = 0
    time_workers_execute_good: int = 0
    time_workers_execute_exhaustion: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    bandwidth: float = 0.0
    capacity_tasks: int = 0
    capacity_cores: int = 0
    capacity_memory: int = 0
    capacity_disk: int = 0
    capacity_gpus: int = 0
    capacity_instantaneous: int = 0
    capacity_weighted: int = 0
    manager_load: float = 0.0
    total_cores: int = 0
    total_memory: int = 0
    total_disk: int = 0
    total_gpus: int = 0
    committed_cores: int = 0
    committed_memory: int = 0
    committed_disk: int = 0
    committed_gpus: int = 0
    max_cores: int = 0
    max_memory: int = 0
    max_disk: int = 0
    max_gpus: int = 0
    min_cores: int = 0
    min_memory: int = 0
    min_disk: int = 0
    min_gpus: int = 0
    inuse_cache: int = 0


def of_tasks(ledger: Ledger[Task], category: str | None = None) -> Stats:
    """What is known of the tasks (of one category)."""
    totals = Totals()
    for name, one in ledger.totals.items():
        if category in (None, name):
            for field in totals.__struct_fields__:
                setattr(totals, field, getattr(totals, field) + getattr(one, field))
    running = ledger.count("running", category)
    return Stats(
        tasks_waiting=ledger.count("ready", category),
        tasks_on_workers=running,
        tasks_running=running,
        tasks_with_results=ledger.count("retrieved", category),
        tasks_submitted=totals.submitted,
        tasks_dispatched=totals.dispatched,
        tasks_done=totals.done,
        tasks_failed=totals.failed,
        tasks_cancelled=totals.cancelled,
        tasks_exhausted_attempts=totals.exhausted,
        time_workers_execute=totals.execute_us,
        time_workers_execute_good=totals.execute_us,
    )


def of_engine(stats: Stats, engine: EngineStats, workers: Sequence[WorkerSize] = ()) -> Stats:
    """... with what is known of the workers. What was handed over and waits there is waiting, not running."""
    running = min(engine.running, stats.tasks_running)
    stats.tasks_waiting += stats.tasks_running - running
    stats.tasks_running = stats.tasks_on_workers = running
    stats.workers_connected = stats.workers_able = engine.workers
    stats.workers_busy = min(engine.workers, running)
    stats.workers_idle = engine.workers - stats.workers_busy
    stats.workers_joined, stats.workers_removed = engine.joined, engine.joined - engine.workers
    stats.workers_released, stats.workers_lost = engine.released, engine.lost
    stats.workers_blocked = engine.blocked
    stats.total_cores = stats.capacity_cores = round(engine.cores)
    stats.capacity_tasks = stats.capacity_instantaneous = stats.capacity_weighted = round(engine.cores)
    there = [whole(worker.capacity) for worker in workers]
    for name in ("cores", "memory", "disk", "gpus") if there else ():
        amounts = [one[name] for one in there]
        setattr(stats, f"total_{name}", sum(amounts))
        setattr(stats, f"capacity_{name}", sum(amounts))
        setattr(stats, f"max_{name}", max(amounts))
        setattr(stats, f"min_{name}", min(amounts))
    return stats


def whole(capacity: Resources) -> dict[str, int]:
    """What a worker has, in whole numbers; memory and disk in MB."""
    return {
        "cores": round(capacity.cores),
        "gpus": round(capacity.gpus),
        "memory": round(capacity.memory_mb),
        "disk": round(capacity.disk_mb),
    }


def by_size(workers: Sequence[WorkerSize]) -> list[dict[str, int]]:
    """How many workers there are of each size."""
    counted = Counter(tuple(whole(worker.capacity).items()) for worker in workers)
    return [{"workers": count, **dict(size)} for size, count in counted.items()]


def describe_worker(worker: WorkerSize) -> dict[str, Any]:
    """A worker in ``status("workers")``."""
    totals = {f"{name}_total": amount for name, amount in whole(worker.capacity).items()}
    return {"hostname": worker.host, "name": worker.name, **totals}


def cores_of_task(task: Task, defaults: Mapping[str, Summary], worker_cores: float) -> float:
    """The cores that a task takes on a worker of so many; all of them where it states none."""
    request = task.options(defaults.get(task.category) or Summary()).request
    return 0.0 if is_light(request) else min(cores_of(request, Resources(worker_cores)), worker_cores)


def describe_task(task: Task) -> dict[str, Any]:
    """A task in ``status("tasks")``."""
    return {
        "task_id": task.id,
        "state": task.state.upper(),
        "command": task.command,
        "category": task.category,
        "tag": task.tag,
        "host": task.hostname,
        "result": task.result if task.state in ("retrieved", "done") else None,
    }


def describe_category(ledger: Ledger[Task], category: str) -> dict[str, Any]:
    """A category in ``status("categories")``."""
    stats = of_tasks(ledger, category)
    counted = (
        "tasks_waiting",
        "tasks_running",
        "tasks_submitted",
        "tasks_dispatched",
        "tasks_done",
        "tasks_failed",
    )
    return {"category": category, **{name: getattr(stats, name) for name in counted}}
