"""Unpacks an environment once per node: ``unpack(archive, name, cache)`` gives the directory it lies in.

Rules:
- All workers of a node may ask for the same environment at once: one unpacks, the others wait for its lock.
- It is unpacked beside its place, renamed into it when its files are complete, then made fit for its new path
  (``conda-unpack``, where it is there), its Python started once, and only then marked as whole.
- Whatever fails leaves nothing behind, and says why in an error of its own class (``envs.errors``).
- What the archive says of itself is looked at first, so that one for another machine costs nothing.
- ``unpack`` promises nothing about later: who uses the environment keeps it with ``hold``.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator

from graphvine.envs import cache as caches
from graphvine.envs.cache import Hold, Marker, Place, hold
from graphvine.envs.errors import (
    CacheError,
    DamagedArchiveError,
    NoPythonError,
    NoSpaceError,
    PackedEnvironmentError,
    WrongPlatformError,
    WrongPythonError,
)
from graphvine.envs.extract import extract, read_metadata
from graphvine.envs.interpreter import Interpreter, ask, clean_environment
from graphvine.envs.metadata import Metadata, minor, numbers, this_glibc, this_platform
from graphvine.envs.stream import Stream

__all__ = ["Hold", "acquire", "hold", "inspect", "unpack", "unpack_to"]

#: Called with how much of the archive was read and its size, in bytes.
OnProgress = Callable[[int, int], None]
#: How much larger environments are than their archives, roughly, where nothing better is known.
_EXPANSION = 4


def unpack(
    archive: str,
    name: str,
    cache: str = "",
    *,
    python: str = "",
    cap_bytes: int | None = None,
    progress: OnProgress | None = None,
) -> str:
    """The environment's prefix (``<prefix>/bin/python`` is its Python), unpacked if it was not yet.

    ``name`` must change with the archive's contents. ``python``: a version whose minor version the
    environment must have, "" for any. Above ``cap_bytes`` other environments that nobody uses are removed.
    ``cache`` and ``cap_bytes`` are by default what $GRAPHVINE_CACHE_DIR and $GRAPHVINE_CACHE_MB say. Raises
    PackedEnvironmentError, FileNotFoundError."""
    with acquire(archive, name, cache, python=python, cap_bytes=cap_bytes, progress=progress) as held:
        return held.prefix


def acquire(
    archive: str,
    name: str,
    cache: str = "",
    *,
    python: str = "",
    cap_bytes: int | None = None,
    progress: OnProgress | None = None,
) -> Hold:
    """As ``unpack``, and kept from being removed while the result is open."""
    cache = os.path.abspath(cache or caches.default_directory())
    caches.make_directory(cache)
    cap = caches.default_cap() if cap_bytes is None else cap_bytes
    place = Place(cache, name)
    while True:
        held = hold(name, cache)
        if held is None:
            _fill(archive, place, python, cap, progress)
            continue
        try:
            _check_python(python, held.python, name)
        except WrongPythonError:
            held.close()
            raise
        return held


def inspect(path: str) -> Metadata:
    """What a packed environment holds. Of one that others made all is read. Raises PackedEnvironmentError,
    OSError."""
    with Stream(path) as stream:
        metadata = read_metadata(stream)
    if metadata is not None:
        return metadata
    from graphvine.envs.foreign import look_through

    with Stream(path) as stream:
        return look_through(stream)


def unpack_to(archive: str, directory: str, *, progress: OnProgress | None = None) -> str:
    """Unpack into a directory of its own, which must be empty or not there. Returns the prefix. Raises
    PackedEnvironmentError, OSError."""
    directory = os.path.abspath(directory)
    if os.path.isdir(directory) and os.listdir(directory):
        raise CacheError(f"{directory} is not empty; name another directory")
    made = not os.path.isdir(directory)
    os.makedirs(directory, exist_ok=True)
    try:
        with _explained(directory):
            _check_platform(archive)
            _extract(archive, directory, progress)
            prefix, _ = _settle(directory)
            return os.path.join(directory, prefix) if prefix else directory
    except BaseException:
        caches.remove_contents(directory, itself=made)
        raise


# -- one environment into its place -----------------------------------------------------------------------


def _fill(archive: str, place: Place, python: str, cap_bytes: int, progress: OnProgress | None) -> None:
    """Unpack under the exclusive lock, unless somebody else just did."""

    with _explained(place.cache):
        caches.fill(place, lambda: _unpack(archive, place, python, cap_bytes, progress))


def _unpack(archive: str, place: Place, python: str, cap_bytes: int, progress: OnProgress | None) -> Marker:
    metadata = _check_platform(archive)
    if metadata is not None:
        _check_python(python, metadata.python, archive)
    needed = metadata.unpacked_bytes if metadata else os.path.getsize(archive) * _EXPANSION
    caches.make_room(place.cache, cap_bytes, needed, place.name)
    if metadata is not None and caches.free_bytes(place.cache) < needed:
        raise _no_space(place.cache, needed)
    os.mkdir(place.making, 0o700)
    _extract(archive, place.making, progress)
    os.rename(place.making, place.path)
    marker = settled(place, cap_bytes)
    _check_python(python, marker.python, archive)
    return marker


def settled(place: Place, cap_bytes: int) -> Marker:
    """Make what lies at its place fit for it; with others removed above the cap. ``place.lock`` must be held
    exclusively. Raises PackedEnvironmentError, OSError."""
    prefix, found = _settle(place.path)
    total, files = caches.measure(place.path)
    caches.make_room(place.cache, cap_bytes - total, 0, place.name)
    return Marker(prefix, found.python, found.platform, total, files, caches.boot_id())


def _extract(archive: str, directory: str, progress: OnProgress | None) -> None:
    size = os.path.getsize(archive)
    with Stream(archive, ahead=True) as stream:
        metadata = extract(
            stream, directory, None if progress is None else lambda: progress(stream.read_bytes, size)
        )
    if metadata is not None and caches.measure(directory) != (metadata.unpacked_bytes, metadata.files):
        raise DamagedArchiveError(f"the archive {archive} is damaged: files are missing. Pack it again")


def _settle(directory: str) -> tuple[str, Interpreter]:
    """Make what was unpacked fit for its path; returns where in it the environment lies, and its Python."""
    prefix = _find_prefix(directory)
    root = os.path.join(directory, prefix)
    script = os.path.join(root, "bin", "conda-unpack")
    python = os.path.join(root, "bin", "python")
    found = ask(python)
    if os.path.isfile(script):
        done = subprocess.run(
            [python, script],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=clean_environment(),
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise DamagedArchiveError(f"conda-unpack failed in {root}: {said[-500:]}")
    return prefix, found


def _find_prefix(directory: str) -> str:
    """Where ``bin/python`` is: at the top, or in the one directory that was packed with its name."""
    for prefix in ("", *sorted(os.listdir(directory))):
        if os.path.lexists(os.path.join(directory, prefix, "bin", "python")):
            return prefix
    raise NoPythonError(
        "there is no bin/python in the archive: it is no packed environment, or one without Python. "
        "Make one with: graphvine env pack"
    )


# -- what may be wrong ------------------------------------------------------------------------------------


def _check_platform(archive: str) -> Metadata | None:
    with Stream(archive) as stream:
        metadata = read_metadata(stream)
    if metadata is None:
        return None
    if metadata.platform and metadata.platform != this_platform():
        raise WrongPlatformError(
            f"the environment {archive} was made for {metadata.platform}; this machine is {this_platform()}. "
            "Pack it on a machine like this one"
        )
    if metadata.glibc and this_glibc() and numbers(metadata.glibc) > numbers(this_glibc()):
        raise WrongPlatformError(
            f"the environment {archive} needs glibc {metadata.glibc} or newer; this machine has "
            f"{this_glibc()}. Pack it on a machine with an older system"
        )
    return metadata


def _check_python(wanted: str, found: str, what: str) -> None:
    if wanted and minor(wanted) != minor(found):
        raise WrongPythonError(
            f"the environment {what} has Python {found}, but Python {minor(wanted)} is needed, as on the "
            f"side that sends the work. Pack an environment with Python {minor(wanted)}"
        )


@contextlib.contextmanager
def _explained(directory: str) -> Iterator[None]:
    """Errors of the operating system while writing there, as ours."""
    try:
        yield
    except PackedEnvironmentError:
        raise
    except FileNotFoundError:
        raise
    except OSError as error:
        if caches.is_full(error):
            raise _no_space(directory, 0) from error
        raise CacheError(f"the environment can't be unpacked in {directory}: {error}") from error


def _no_space(directory: str, needed: int) -> NoSpaceError:
    free = caches.free_bytes(directory)
    wanted = f"; the environment takes {needed / 1e6:,.0f} MB" if needed else ""
    return NoSpaceError(
        f"no space for the environment in {directory}: {free / 1e6:,.0f} MB are free{wanted}. Make room "
        "there, or set GRAPHVINE_CACHE_DIR to a directory on a larger disk"
    )
