"""Files that a node keeps between workers and runs, by name, beside the environments that it has unpacked
(``envs.cache``: one directory, one cap).

- What is put in appears whole or not at all. Whoever takes something gets links of his own, so it may be
  removed meanwhile; and it is verified each time.
- Anything wrong with the cache (a full disk, a damaged file) means that it does not have the file, nothing
  else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import stat

import xxhash

from graphvine.envs import cache as caches
from graphvine.envs.cache import Marker, Place
from graphvine.envs.errors import CacheError
from graphvine.taskvine.remote.contents import copy_tree, link_tree

log = logging.getLogger("graphvine.cache")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,199}\Z")
#: Environments have other names.
_KIND = "file."
_DATA = "data"
_BLOCK = 2**20


class NodeCache:
    """The files of one directory. Any number of processes may use it at once."""

    def __init__(self, directory: str | None = None, cap: int | None = None) -> None:
        self._directory = os.path.abspath(directory or caches.default_directory())
        self._cap = caches.default_cap() if cap is None else cap

    def take(self, name: str, target: str) -> bool:
        """Put the file of that name at ``target``, if it is here and as it was put in."""
        kept = _kept_as(name)
        try:
            if not os.path.isdir(self._directory):
                return False
            caches.check_trusted(self._directory)
            held = caches.hold(kept, self._directory)
            if held is None:
                return False
            with held:
                link_tree(os.path.join(held.prefix, _DATA), target)
                if digest(target) == held.digest:
                    return True
        except (CacheError, OSError) as error:
            log.warning("what the cache has of %s cannot be used: %s", name, error)
        else:
            log.warning("what the cache has of %s is damaged: dropped", name)
            self._drop(kept)
        _remove(target)
        return False

    def put(self, name: str, path: str) -> bool:
        """Keep a copy (of links, where that is possible) of the file or directory under a name."""
        place = Place(self._directory, _kept_as(name))
        try:
            if place.read() is not None:
                return True
            caches.make_directory(self._directory)
            size = os.stat(path).st_size if os.path.isfile(path) else caches.measure(path)[0]
            if size > self._cap:
                return False
            caches.fill(place, lambda: self._copy(place, path, size))
        except (CacheError, OSError) as error:
            log.warning("%s is not kept in the cache: %s", name, error)
            return False
        return True

    def _copy(self, place: Place, path: str, size: int) -> Marker:
        caches.make_room(self._directory, self._cap - size, 0, place.name)
        os.mkdir(place.making, 0o700)
        data = os.path.join(place.making, _DATA)
        apart = os.stat(path).st_dev != os.stat(place.making).st_dev
        (copy_tree if apart else link_tree)(path, data)
        total, files = caches.measure(place.making)
        found = digest(data)
        os.rename(place.making, place.path)
        return Marker("", "", "", total, files, caches.boot_id(), found)

    def _drop(self, kept: str) -> None:
        with contextlib.suppress(CacheError, OSError):
            caches.drop(kept, self._directory)

    def names(self) -> list[str]:
        """What is here."""
        if not os.path.isdir(self._directory):
            return []
        found = [place.name for place in caches.places(self._directory) if place.read() is not None]
        return [name.removeprefix(_KIND) for name in found if name.startswith(_KIND)]


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


def environment_name(content: str) -> str:
    """How ``envs.pack`` names an archive, given the name of its content; other names stay what they are."""
    return re.sub("^content-", "env-", content)


def _add(state: xxhash.xxh3_128, path: str) -> int:
    size = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
            size += len(block)
    return size


def _kept_as(name: str) -> str:
    """Raises ValueError."""
    if not _NAME.match(name):
        raise ValueError(f"{name!r} cannot be the name of a cached file")
    return _KIND + name


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
