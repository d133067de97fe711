"""Memory of dropped files, used again for new ones.

Getting new pages for a large file in the memory tier costs several times what copying into it does. So a
large file that is dropped, and that nobody reads, becomes a *spare*: it moves to a directory beside the
files, and whoever writes a large result next takes one and writes over it. The directory is all there is to
know: agent and executors need no word about it. Two rules make it safe:

- Who reads a large file holds a shared lock on it (``values.map_file``), and has looked, under the lock, that
  the file still has its name. A file becomes a spare, and loses its name, under an exclusive lock.
- A spare is taken by renaming it: of two that want it one gets it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from graphvine.protocol.values import REUSED_BYTES

#: Mode of a file that was sent to another worker: the kernel may still read its pages, so it is no spare.
SENT_MODE = 0o400

_DIRECTORY = ".spare"
#: Spares are few and large; looking at all of them is cheap.
MOST_SPARES = 64
#: A spare at most so many times larger than what is written is worth having.
_FIT = 2.0


class Spares:
    """The spares of one memory tier, as its owner sees them. ``budget_bytes``: how much they may hold."""

    def __init__(self, tier: str, budget_bytes: int) -> None:
        self._directory = f"{tier}/{_DIRECTORY}"
        self._budget = budget_bytes
        self._made = 0
        os.mkdir(self._directory)

    def keep(self, path: str, size: int) -> bool:
        """Make a dropped file a spare. False when it is in use, or small, or there are enough."""
        if size < REUSED_BYTES or not self._room(size):
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_mode & 0o777 == SENT_MODE:
                return False
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._made += 1
            # Under the lock: who opened it by its old name and is about to lock it is refused.
            os.rename(path, f"{self._directory}/{size}-{self._made}")
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def clear(self) -> None:
        """Give their memory back."""
        for _, path in _spares(self._directory):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _room(self, size: int) -> bool:
        sizes = [held for held, _ in _spares(self._directory)]
        return len(sizes) < MOST_SPARES and sum(sizes) + size <= self._budget


def take(tier: str, size: int, path: str) -> bool:
    """Put a spare of about ``size`` bytes at ``path``, to be written over and cut to size. False when there
    is none (or no such directory: not the memory tier)."""
    if size < REUSED_BYTES:
        return False
    try:
        fitting = [spare for spare in _spares(f"{tier}/{_DIRECTORY}") if spare[0] <= size * _FIT]
    except FileNotFoundError:
        return False
    # The smallest that is large enough, else the largest: the rest of it is new.
    for _, spare in sorted(fitting, key=lambda spare: (spare[0] < size, abs(spare[0] - size))):
        with contextlib.suppress(FileNotFoundError):
            os.rename(spare, path)
            return True
    return False


def _spares(directory: str) -> Iterator[tuple[int, str]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield int(entry.name.partition("-")[0]), entry.path
