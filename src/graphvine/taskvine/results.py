"""What became of a task: the words of TaskVine, and what was measured. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from graphvine.protocol.messages import Resources, cores_of, is_light

SUCCESS = "success"
INPUT_MISSING = "input missing"
OUTPUT_MISSING = "output missing"
STDOUT_MISSING = "stdout missing"
SIGNAL = "signal"
RESOURCE_EXHAUSTION = "resource exhaustion"
MAX_END_TIME = "max end time"
UNKNOWN = "unknown"
FORSAKEN = "forsaken"
MAX_RETRIES = "max retries"
MAX_WALL_TIME = "max wall time"
OUTPUT_TRANSFER_ERROR = "output transfer error"
FIXED_LOCATION_MISSING = "fixed location missing"
CANCELLED = "cancelled"
SANDBOX_EXHAUSTION = "sandbox exhaustion"
MISSING_LIBRARY = "missing library"

#: A task that could not have an input was not run.
NOT_RUN = (INPUT_MISSING, SANDBOX_EXHAUSTION)
#: What the manager says of a task that failed for good, in TaskVine's words.
WORD_OF_KIND = {
    "raised": UNKNOWN,
    "killed": MAX_RETRIES,
    "unpicklable": OUTPUT_MISSING,
    "undecodable": UNKNOWN,
    "environment": INPUT_MISSING,
    "library": MISSING_LIBRARY,
    "missing": INPUT_MISSING,
    "storage": SANDBOX_EXHAUSTION,
    "unrunnable": FORSAKEN,
    "cancelled": CANCELLED,
    "timeout": MAX_WALL_TIME,
}


class Summary(msgspec.Struct):
    """Resources, as TaskVine names them: times in microseconds (``start`` and ``end`` since 1970), memory and
    disk in MB; -1 is not known, or not stated."""

    category: str = ""
    start: int = -1
    end: int = -1
    wall_time: int = -1
    cpu_time: int = -1
    cores: float = -1
    cores_avg: float = -1
    gpus: float = -1
    memory: float = -1
    disk: float = -1
    total_files: int = -1
    exit_status: int = -1
    max_concurrent_processes: int = -1
    total_processes: int = -1
    virtual_memory: float = -1
    swap_memory: float = -1
    bytes_read: int = -1
    bytes_written: int = -1
    bytes_received: int = -1
    bytes_sent: int = -1
    bandwidth: float = -1


class Report(msgspec.Struct):
    """What became of a task. ``reason``: in words, where ``result`` is not enough. ``value``: what a Python
    task returned, or the exception for why it returned nothing. ``worker``, ``host``: who ran it last.
    ``exceeded``: the limits that it did not keep. ``request``, ``capacity``: what it asked for, all in all,
    and what that worker has."""

    result: str = SUCCESS
    reason: str = ""
    exit_code: int = 0
    output: bytes = b""
    value: Any = None
    worker: str = ""
    host: str = ""
    tries: int = 0
    measured: Summary | None = None
    exceeded: dict[str, float] = {}
    request: Resources | None = None
    capacity: Resources | None = None

    def allocated(self) -> Summary | None:
        """What it was granted on the worker that ran it last: what it stated, of the rest an equal share."""
        if self.request is None or self.capacity is None:
            return None
        asked, there = self.request, self.capacity
        cores = asked.cores if is_light(asked) else min(cores_of(asked, there), there.cores)
        share = cores / there.cores if there.cores else 1.0
        return Summary(
            cores=cores,
            memory=min(asked.memory_mb or there.memory_mb * share, there.memory_mb),
            disk=min(asked.disk_mb or there.disk_mb * share, there.disk_mb),
            gpus=asked.gpus,
        )
