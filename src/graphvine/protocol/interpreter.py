"""How a process of ours starts another one with the same interpreter and the same graphvine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from graphvine.protocol import lifelines


def own_environment() -> dict[str, str]:
    """The user's environment, made so that this interpreter finds this very graphvine."""
    environment = dict(os.environ)
    parent = Path(__file__).resolve().parents[2]
    # Where it is installed the interpreter finds it; named on the path, site-packages would hide the stdlib.
    if parent.name not in ("site-packages", "dist-packages"):
        others = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
        environment["PYTHONPATH"] = os.pathsep.join([*others, str(parent)])
    return environment


def calling(module: str, function: str) -> str:
    """Code for ``python -c`` that calls this function; what it returns is the exit code. Like ``-m``, but a
    user's ``queue.py`` in the working directory is not taken for Python's."""
    # With PYTHONSAFEPATH the directory is not on the path to begin with.
    leave = "sys.path[:] = [place for place in sys.path if place]"
    return f"import sys; {leave}; from {module} import {function} as run; sys.exit(run())"


def start_bound(command: Sequence[str], output: int | None) -> subprocess.Popen[bytes]:
    """A process that reads the end of its standard input when this one is gone. ``output``: a descriptor for
    all that it says; None for this process's own. Raises OSError."""
    # A session of its own: Ctrl-C at the user's terminal is for the user's process, which then ends this.
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env=own_environment(),
        start_new_session=True,
    )
    lifelines.hold(process)
    return process
