"""Starts a zygote process.

Imports next to nothing, so that it can be the first thing a worker does: the zygote gets warm while the agent
still imports.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping

#: One core per executor is the rule: libraries that start a thread per core would fight over them.
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Launched:
    """A zygote's process, and our end of the link to it."""

    def __init__(self, log: str, environment: Mapping[str, str] | None = None) -> None:
        """Its output is appended to the file ``log``; ``environment`` comes on top of this process's own."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Not the working directory: a file there must not stand in for a module of ours.
        flags = ["-P"] if sys.version_info >= (3, 11) else []
        with theirs, open(log, "ab") as output:
            self.log_begin = output.tell()
            self.process = subprocess.Popen(
                [sys.executable, *flags, "-m", "graphvine.worker.zygote", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                env=dict.fromkeys(_ONE_THREAD, "1") | dict(os.environ) | dict(environment or {}),
                start_new_session=True,
            )
        self.control.setblocking(False)


def zygote_log(log_directory: str, number: int = 0) -> str:
    """The log of the base zygote, or of the one that was started as ``number``."""
    return os.path.join(log_directory, f"zygote-{number}.log" if number else "zygote.log")
