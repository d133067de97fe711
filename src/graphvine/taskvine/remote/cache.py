"""Files that a node keeps between workers and runs, by name.

    <directory>/<name>/data      the file or directory; the time of <name>/used is when it was last needed
    <directory>/<name>/digest    size and checksum, by which it is verified before each use
    <directory>/.lock            held (flock) by who adds or removes
    <directory>/.new-*           what is being put in, locked (flock) by who does that
    <directory>/.old-*           what is being removed

- What is put in appears by a rename, whole or not at all. Whoever takes something gets links of his own, so
  it may be removed meanwhile.
- Above the cap, what was needed least recently goes first.
- It lies beside the environments that the node keeps ($GRAPHVINE_CACHE_DIR, $GRAPHVINE_CACHE_MB).
- What a killed process left under a name of the latter kinds is removed when something is put in next.
- Anything wrong with the cache (a full disk, a damaged file) means that it does not have the file, nothing
  else.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import xxhash

from graphvine.envs.cache import default_cap, default_directory, why_not_trusted
from graphvine.taskvine.remote.contents import copy_tree, link_tree

log = logging.getLogger("graphvine.cache")

#: Names of the cache's own things begin with a dot.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,199}\Z")
_BLOCK = 2**20


class NodeCache:
    """The files of one directory. Any number of processes may use it at once."""

    def __init__(self, directory: str | None = None, cap: int | None = None) -> None:
        self._root = Path(directory or os.path.join(default_directory(), "files"))
        #: Whoever can write to one of these can put any file here, or any directory in place of this one.
        self._places = [self._root] if directory else [self._root.parent, self._root]
        self._cap = default_cap() if cap is None else cap

    def take(self, name: str, target: str) -> bool:
        """Put the file of that name at ``target``, if it is here and as it was put in."""
        entry = self._root / _checked(name)
        try:
            self._check_places()
            expected = (entry / "digest").read_text()
            link_tree(str(entry / "data"), target)
            os.utime(entry / "used")
        except OSError:
            _remove(target)
            return False
        if digest(target) == expected:
            return True
        log.warning("what the cache has of %s is damaged: dropped", name)
        _remove(target)
        self.drop(name)
        return False

    def put(self, name: str, path: str) -> bool:
        """Keep a copy (of links, where that is possible) of the file or directory under a name."""
        entry = self._root / _checked(name)
        try:
            for place in self._places:
                place.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._check_places()
            if entry.exists():
                return True
            building, mine = self._begin()
        except OSError as error:
            log.warning("the cache %s cannot be used: %s", self._root, error)
            return False
        try:
            return self._build(building, entry, path)
        except OSError as error:
            log.warning("%s is not cached: %s", name, error)
            return False
        finally:
            _remove(building)
            os.close(mine)

    def _check_places(self) -> None:
        """Raises PermissionError, and FileNotFoundError when nothing was put here yet."""
        for place in self._places:
            reason = why_not_trusted(str(place))
            if reason:
                raise PermissionError(f"{place} {reason}")

    def _begin(self) -> tuple[str, int]:
        """A directory for a new entry, and a descriptor that shows others that somebody is at it."""
        with self._locked():
            self._sweep()
            building = tempfile.mkdtemp(prefix=".new-", dir=self._root)
            return building, _lock_directory(building)

    def _sweep(self) -> None:
        """Remove what killed processes left. Under the lock."""
        for path in self._root.glob(".old-*"):
            _remove(str(path))
        for path in self._root.glob(".new-*"):
            with contextlib.suppress(OSError):
                descriptor = _lock_directory(str(path), needed=True)
                _remove(str(path))
                os.close(descriptor)

    def _build(self, building: str, entry: Path, path: str) -> bool:
        size = _size(path)
        if size > self._cap:
            return False
        copy_tree(path, f"{building}/data") if os.stat(path).st_dev != os.stat(
            building
        ).st_dev else link_tree(path, f"{building}/data")
        Path(building, "digest").write_text(digest(f"{building}/data"))
        Path(building, "used").touch()
        with self._locked():
            if entry.exists():
                return True
            self._make_room(size)
            os.rename(building, entry)
        return True

    def drop(self, name: str) -> None:
        """Remove a file."""
        entry = self._root / _checked(name)
        with contextlib.suppress(OSError), self._locked():
            self._remove_entry(entry)

    def names(self) -> list[str]:
        """What is here, least recently used first."""
        if not self._root.is_dir():
            return []
        return [entry.name for _, entry in self._entries()]

    def _make_room(self, size: int) -> None:
        entries = self._entries()
        held = {entry: _size(str(entry / "data")) for _, entry in entries}
        total = sum(held.values()) + size
        for _, entry in entries:
            if total <= self._cap:
                return
            total -= held[entry]
            self._remove_entry(entry)

    def _entries(self) -> list[tuple[float, Path]]:
        found = []
        for entry in self._root.iterdir():
            if not entry.name.startswith("."):
                with contextlib.suppress(OSError):
                    found.append(((entry / "used").stat().st_mtime_ns, entry))
        return sorted(found)

    def _remove_entry(self, entry: Path) -> None:
        """First out of sight in one step, then bit by bit."""
        leaving = self._root / f".old-{entry.name}-{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(entry, leaving)
            _remove(str(leaving))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _lock_directory(path: str, *, needed: bool = False) -> int:
    """A descriptor that holds the lock of a directory. Raises OSError; for a lock that others hold, or
    that cannot be had (NFS), only if it is ``needed``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if needed:
            os.close(descriptor)
            raise
    return descriptor


def digest(path: str) -> str:
    """Size and checksum of a file, or of all files of a directory with their paths and modes."""
    state = xxhash.xxh3_128()
    size = 0
    if not os.path.isdir(path):
        return f"{_add(state, path)} {state.hexdigest()}"
    for directory, subdirectories, names in os.walk(path):
        subdirectories.sort()
        for name in sorted(
            [*names, *(one for one in subdirectories if os.path.islink(f"{directory}/{one}"))]
        ):
            each = os.path.join(directory, name)
            status = os.lstat(each)
            state.update(f"{os.path.relpath(each, path)}\0{stat.S_IMODE(status.st_mode):o}\0".encode())
            if stat.S_ISLNK(status.st_mode):
                state.update(os.readlink(each).encode())
            else:
                size += _add(state, each)
    return f"{size} {state.hexdigest()}"


def content_name(path: str) -> str:
    """A name for what a file or directory holds."""
    return "content-" + digest(path).partition(" ")[2]


def _add(state: xxhash.xxh3_128, path: str) -> int:
    size = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
            size += len(block)
    return size


def _size(path: str) -> int:
    if not os.path.isdir(path):
        return os.stat(path).st_size
    return sum(
        os.lstat(os.path.join(directory, name)).st_size
        for directory, _, names in os.walk(path)
        for name in names
    )


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise ValueError(f"{name!r} cannot be the name of a cached file")
    return name


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
