"""Remembers what was packed, so that packing an unchanged environment again only means looking at it.

For each source one small file says what the environment looked like (a digest over names, sizes and times of
all its files), and which archive that became. Lies beside the packed archives in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable

import msgspec

from graphvine.envs.items import Item


class Seen(msgspec.Struct, frozen=True):
    """A file as it was."""

    path: str
    size: int
    mtime_ns: int


class Entry(msgspec.Struct):
    """``fingerprint``: of what was packed. ``others``: files outside of it that went in, too."""

    fingerprint: str
    archive: Seen
    name: str
    python: str
    platform: str
    others: tuple[Seen, ...] = ()


def see(path: str) -> Seen:
    """Raises OSError."""
    status = os.stat(path)
    return Seen(path, status.st_size, status.st_mtime_ns)


def fingerprint(items: Iterable[Item], *more: str) -> str:
    """Digest of names, sizes and times, and of whatever else the archive depends on."""
    digest = hashlib.sha256("\0".join(more).encode("utf-8", "surrogateescape"))
    for item in items:
        line = f"{item.target}\0{item.size}\0{item.mtime_ns}\0{item.mode}\0{item.link}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
        if item.data is not None:
            digest.update(item.data)
    return digest.hexdigest()


class Index:
    """The entries of one cache directory."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.join(directory, "index")

    def find(self, key: str, fingerprint: str) -> Entry | None:
        """The entry of an environment that has not changed, if its archive is there as it was."""
        with contextlib.suppress(OSError, ValueError, RecursionError), open(self._path(key), "rb") as file:
            entry = msgspec.json.decode(file.read(), type=Entry)
            as_was = all(see(seen.path) == seen for seen in (entry.archive, *entry.others))
            if entry.fingerprint == fingerprint and as_was:
                return entry
        return None

    def remember(self, key: str, entry: Entry) -> None:
        """Raises OSError."""
        os.makedirs(self._directory, exist_ok=True)
        path = self._path(key)
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(msgspec.json.encode(entry))
        os.replace(temporary, path)

    def _path(self, key: str) -> str:
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return os.path.join(self._directory, f"{digest[:32]}.json")
