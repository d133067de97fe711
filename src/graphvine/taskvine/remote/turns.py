"""Turns at a source, for who reads from it beside the manager's own limit: workers that fetch a file each for
themselves.

Of the processes of one user that share a cache directory (those of a node, at the least) at most so many read
from one source at a time. A turn is the kernel's lock on one of so many files, so it ends with its process,
and nobody polls.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator

import xxhash

from graphvine.envs import cache as caches
from graphvine.envs.errors import CacheError

log = logging.getLogger("graphvine.tasks")


@contextlib.contextmanager
def turn(source: str, at_once: int, directory: str = "") -> Iterator[None]:
    """While this is open no more than ``at_once`` others read from a source. Where no lock can be had nobody
    waits."""
    try:
        descriptor = _take(source, at_once, directory or caches.default_directory())
    except (OSError, CacheError) as error:
        log.warning("how many read from %s at a time is not seen to: %s", source, error)
        yield
        return
    try:
        yield
    finally:
        os.close(descriptor)


def _take(source: str, at_once: int, cache: str) -> int:
    """A descriptor that holds one of the locks. Raises OSError, CacheError."""
    caches.make_directory(cache)
    home = os.path.join(cache, "sources")
    os.makedirs(home, mode=0o700, exist_ok=True)
    name = xxhash.xxh3_64_hexdigest(source.encode())
    paths = [os.path.join(home, f"{name}.{number}") for number in range(at_once)]
    for path in paths:
        with contextlib.suppress(BlockingIOError):
            return _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # All are taken: in line for one of them.
    return _lock(paths[os.getpid() % at_once], fcntl.LOCK_EX)


def _lock(path: str, mode: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
