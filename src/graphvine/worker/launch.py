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
from typing import Any, Protocol

#: One core per executor is the rule: libraries that start a thread per core would fight over them.
ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


#: These lead the agent's Python to its own packages, which are not those of another Python.
_ASTRAY = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONPLATLIBDIR", "VIRTUAL_ENV", "CONDA_PREFIX")
# Not the working directory: a file there must not stand in for a module of ours.
_FLAGS = ["-P"] if sys.version_info >= (3, 11) else []


class Inside:
    """An environment in which a zygote runs. ``variables``: what its activation sets. ``hold``: a descriptor
    that keeps it from being removed; closed when the zygote has it. ``installation``: see
    ``installation``."""

    def __init__(self, prefix: str, variables: Mapping[str, str], hold: int, installation: str) -> None:
        self.prefix = prefix
        self.hold = hold
        self._variables = variables
        self._installation = installation

    def command(self, descriptor: int) -> list[str]:
        """What starts a zygote in it."""
        version = "{}.{}".format(*sys.version_info[:2])
        boot = os.path.join(self._installation, "graphvine", "worker", "boot.py")
        # -s: what the user installed for a Python of this machine is no part of the environment.
        return [
            f"{self.prefix}/bin/python",
            *_FLAGS,
            "-s",
            boot,
            self._installation,
            version,
            str(descriptor),
        ]

    def environment(self) -> dict[str, str]:
        """The environment variables of this process, as they are in there."""
        kept = {name: value for name, value in os.environ.items() if name not in _ASTRAY}
        path = os.pathsep.join([f"{self.prefix}/bin", os.environ.get("PATH", os.defpath)])
        return {**kept, "CONDA_PREFIX": self.prefix, "PATH": path, **self._variables}


class Process(Protocol):
    """A zygote's process, as far as it is of interest here."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | Any: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


class Zygote(Protocol):
    """A zygote's process, and our end of the link to it; where in its log its own lines begin."""

    control: socket.socket
    log_begin: int

    @property
    def process(self) -> Process: ...


class Launched:
    """A zygote that was started as a program."""

    def __init__(
        self, log: str, environment: Mapping[str, str] | None = None, inside: Inside | None = None
    ) -> None:
        """Its output is appended to the file ``log``; ``environment`` comes on top of this process's own."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link = theirs.fileno()
        command = [sys.executable, *_FLAGS, "-m", "graphvine.worker.zygote", str(link)]
        inherited = dict(os.environ) if inside is None else inside.environment()
        with theirs, open(log, "ab") as output:
            self.log_begin = output.tell()
            self.process = subprocess.Popen(
                command if inside is None else inside.command(link),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[link] if inside is None else [link, inside.hold],
                env=dict.fromkeys(ONE_THREAD, "1") | inherited | dict(environment or {}),
                start_new_session=True,
            )
        self.control.setblocking(False)


def zygote_log(log_directory: str, number: int = 0) -> str:
    """The log of the base zygote, or of the one that was started as ``number``."""
    return os.path.join(log_directory, f"zygote-{number}.log" if number else "zygote.log")
