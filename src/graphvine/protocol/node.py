"""Which processes can open each other's files: those of one kernel and one mount namespace."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path


def node_id() -> str:
    """Equal for two processes that see the same files under the same paths, unique otherwise."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        mounts = os.readlink("/proc/self/ns/mnt")
    except OSError:
        return f"{socket.gethostname()}:{os.getuid()}"
    return f"{boot}:{mounts}:{os.getuid()}"


def python_version() -> str:
    """``major.minor``: pickled code does not cross minor versions."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
