"""What there is to know of this node and its processes, without asking a library.

Processes can open each other's files when they are of one kernel and one mount namespace.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

_running_tasks = False


def runs_tasks() -> bool:
    """Whether this process is a worker's, which imports users' modules and runs their tasks."""
    return _running_tasks


def become_task_runner() -> None:
    """From now on, this process and those that it forks run users' tasks."""
    global _running_tasks
    _running_tasks = True


def node_id() -> str:
    """Equal for two processes that see the same files under the same paths, unique otherwise."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        mounts = os.readlink("/proc/self/ns/mnt")
    except OSError:
        return f"{socket.gethostname()}:{os.getuid()}"
    return f"{boot}:{mounts}:{os.getuid()}"


def process_exists(pid: int) -> bool:
    """Whether there is a process of that number on this machine, whoever's it is."""
    if pid <= 0:
        return False  # these mean groups of processes
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def python_version() -> str:
    """``major.minor``: pickled code does not cross minor versions."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
