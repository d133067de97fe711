"""What this machine offers: cores, memory, disk that this process may use. (GPUs: see ``gpus``.)"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from graphvine.protocol.messages import Resources

_MB = 2**20


def usable_cores() -> float:
    """Cores this process may run on: its affinity, cut down to its control group's quota."""
    try:
        cores = float(len(os.sched_getaffinity(0)))
    except AttributeError:
        cores = float(os.cpu_count() or 1)
    quota = _quota(Path("/sys/fs/cgroup"))
    return max(1.0, min(cores, quota)) if quota else cores


def _quota(root: Path) -> float | None:
    """Cores by the control group (version 2, then 1), None when unlimited."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in ("max", "-1") or float(period) <= 0:
        return None
    return float(limit) / float(period)


def usable_memory_mb() -> float:
    """Memory of the machine, cut down to the limits of this process's control groups."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        membership = Path("/proc/self/cgroup").read_text()
    except OSError:
        membership = "0::/\n0:memory:/\n"
    return min([total, *_memory_limits(Path("/sys/fs/cgroup"), membership)]) / _MB


def _memory_limits(root: Path, membership: str) -> Iterator[int]:
    """Bytes that the control groups allow in which a process is (``membership``: its /proc/PID/cgroup), and
    those around them. In a container the names of groups may be those outside: then its own root counts."""
    for line in membership.splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        parts = [part for part in group.split("/") if part and part != ".."]
        for depth in range(len(parts) + 1):
            try:
                limit = base.joinpath(*parts[:depth], name).read_text().strip()
            except OSError:
                continue
            if limit.isdigit():
                yield int(limit)


def free_disk_mb(directory: str) -> float:
    return shutil.disk_usage(directory).free / _MB


def resident_mb() -> float:
    """Memory this process holds now."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MB
    except OSError:
        return 0.0


def capacity(
    directory: str,
    cores: float | None = None,
    memory_mb: float | None = None,
    disk_mb: float | None = None,
    gpus: float = 0.0,
) -> Resources:
    """What a worker with its files in ``directory`` offers; what is stated is taken as it is."""
    return Resources(
        cores=usable_cores() if cores is None else cores,
        memory_mb=usable_memory_mb() if memory_mb is None else memory_mb,
        disk_mb=free_disk_mb(directory) if disk_mb is None else disk_mb,
        gpus=float(gpus),
    )
