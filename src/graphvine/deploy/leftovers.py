"""What submissions from a shell leave: nobody stays to remove it, so the next submission does.

- A submission's directory is of no use once its manager has ended, as its jobs end with that. It is left for
  a day for who wants to read what the jobs said.
- Whether a manager of another machine has ended nobody knows here. Where nothing was written for a month, no
  job of it is left.
- Environments that were linked or copied for submissions go with the last one that names them.

A directory counts as a submission's by the copy of the connection file in it, and is left alone in doubt.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from graphvine.deploy.inputs import CONNECTION, ENVIRONMENTS
from graphvine.protocol.connection import Connection, ConnectionFileError, read_connection
from graphvine.protocol.node import process_exists

_DAY_S = 86400.0
_MONTH_S = 30 * _DAY_S


def sweep_submissions(parent: Path, now: float) -> None:
    """Remove what nobody needs any more of the submissions in ``parent``. ``now``: Unix time."""
    left = False
    for directory, connection in _submissions(parent):
        if now - _written_at(directory) > _patience_s(connection):
            shutil.rmtree(directory, ignore_errors=True)
        left = left or directory.exists()
    if not left:
        _remove_environments(parent / ENVIRONMENTS, now)


def _submissions(parent: Path) -> Iterator[tuple[Path, Connection]]:
    for path in parent.glob(f"*/{CONNECTION}"):
        # Not ours, not whole, not graphvine's: nobody's business.
        with contextlib.suppress(ConnectionFileError, OSError):
            connection = read_connection(path)
            if path.parent.name.startswith(f"{connection.name}-") and not path.parent.is_symlink():
                yield path.parent, connection


def _patience_s(connection: Connection) -> float:
    """How long nothing was written where nobody needs what was."""
    if connection.host != socket.gethostname():
        return _MONTH_S
    return float("inf") if process_exists(connection.pid) else _DAY_S


def _written_at(directory: Path) -> float:
    """When something was last written there."""
    times = [0.0]
    for place, _, files in os.walk(directory):
        for name in (place, *(os.path.join(place, file) for file in files)):
            with contextlib.suppress(OSError):
                times.append(os.stat(name).st_mtime)
    return max(times)


def _remove_environments(directory: Path, now: float) -> None:
    """A submission that is being made may be about to use them."""
    with contextlib.suppress(OSError):
        if now - directory.stat().st_ctime > _DAY_S:
            shutil.rmtree(directory, ignore_errors=True)
