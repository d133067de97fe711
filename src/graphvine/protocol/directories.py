"""Private directories of one process, which others can tell to be left over when that process is dead.

Each holds a lock file that its owner keeps locked (flock) as long as it lives: the kernel lets go of it
however the owner ends.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import time
from pathlib import Path

_LOCK = ".lock"
#: A directory without a lock file may be about to get one.
_GRACE_S = 60.0


def _prefix() -> str:
    # The host is part of the name: on a shared disk, locks of other hosts may not be seen.
    return f"graphvine-{os.getuid()}-{socket.gethostname()}-"


class OwnedDirectory:
    """A new directory in ``parent`` that only this user can enter."""

    def __init__(self, parent: str) -> None:
        while True:
            self.path = os.path.join(parent, _prefix() + secrets.token_hex(6))
            os.mkdir(self.path, 0o700)
            lock = os.path.join(self.path, _LOCK)
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            # A sweep may have come between the two calls, and then removed it all.
            if _try_lock(self._lock) and os.fstat(self._lock).st_nlink:
                return
            os.close(self._lock)

    def remove(self) -> None:
        """Remove it and all that is in it. Harmless the second time."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep(parent: str) -> list[str]:
    """Remove what dead processes of this user left in ``parent``; what was removed."""
    found = Path(parent).glob(_prefix() + "*")
    return [str(path) for path in found if _remove_if_left_over(path)]


def _remove_if_left_over(path: Path) -> bool:
    try:
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = -1
        left_over = _age_s(path) > _GRACE_S
    except OSError:
        return False
    else:
        left_over = _try_lock(descriptor)
    if left_over:
        # Still under the lock: an owner that comes only now finds it taken, and makes another directory.
        shutil.rmtree(path, ignore_errors=True)
    if descriptor >= 0:
        os.close(descriptor)
    return left_over


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
