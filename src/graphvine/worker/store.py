"""The files a worker holds: memory tier first, within a budget, then local disk.

The directory ``store.directory`` shows every file under its number, whichever tier it lies on (what lies on
disk is a symbolic link there), so a path once given stays good until the file is dropped. All methods are
called from one thread, but ``lookup``, which may be called from any.
"""

from __future__ import annotations

import msgspec


class Spilled(msgspec.Struct):
    """A file now lies on disk; its path is the same."""

    file: int
    size: int


class SpillFailed(msgspec.Struct):
    """A file could not be moved to disk (full?); it stays in memory, and spilling pauses."""

    file: int
    reason: str


StoreEvent = Spilled | SpillFailed


class Usage(msgspec.Struct, frozen=True):
    files: int
    memory_bytes: int
    disk_bytes: int


class StoreFullError(OSError):
    """Neither tier has room; the message says how much each holds."""


class Store:
    def __init__(
        self, memory_directory: str | None, disk_directory: str, memory_budget_bytes: int | None = None
    ) -> None:
        """Makes ``graphvine-<uid>-<random>`` (mode 0700) in each of the two parents, after removing those
        that dead workers of this user left there.

        ``memory_directory``: usually "/dev/shm"; None, a missing or a tiny one means everything is on disk.
        ``memory_budget_bytes``: None is half of what is free there.
        """
        raise NotImplementedError

    @property
    def directory(self) -> str:
        """Where every file is found by number (what ``Hello.store`` says)."""
        raise NotImplementedError

    @property
    def directories(self) -> tuple[str, ...]:
        """All directories of ours, for ``Pool(watched=...)``."""
        raise NotImplementedError

    def directory_for_results(self) -> str:
        """Where executors should write: memory while within the budget, else disk."""
        raise NotImplementedError

    @property
    def fallback_directory(self) -> str:
        """Where executors write when there is no room (the disk tier)."""
        raise NotImplementedError

    @property
    def scratch(self) -> str:
        """A directory for passing things (packets, archives, blobs), removed with the store."""
        raise NotImplementedError

    def path(self, file: int) -> str | None:
        """Path of a file, None when it is not held. Counts as a use."""
        raise NotImplementedError

    def lookup(self, file: int) -> str | None:
        """As ``path``, from any thread, and not counted as a use (for the transfer server)."""
        raise NotImplementedError

    def put_bytes(self, file: int, data: bytes | memoryview) -> str:
        """Store bytes as a file; its path. Raises StoreFullError."""
        raise NotImplementedError

    def incoming(self, file: int, size: int) -> str:
        """A temporary path to which a file may be written that is on its way (a fetch, pieces), in the tier
        that has room; then ``adopt`` (which renames), or ``discard``."""
        raise NotImplementedError

    def adopt(self, file: int, size: int) -> bool:
        """Take in a file that an executor wrote (under its number) or that came to ``incoming(file)``.
        False when there is no such file."""
        raise NotImplementedError

    def discard(self, file: int) -> None:
        """Remove what was written to ``incoming(file)``."""
        raise NotImplementedError

    def drop(self, files: list[int]) -> None:
        """Forget files. Whoever has one open or mapped keeps it."""
        raise NotImplementedError

    def usage(self) -> Usage:
        raise NotImplementedError

    @property
    def descriptor(self) -> int:
        """Readable when ``completed`` has something."""
        raise NotImplementedError

    def completed(self) -> list[StoreEvent]:
        """Spills finished since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """Remove everything."""
        raise NotImplementedError
