"""What a node keeps in one directory, for all its workers and from run to run: unpacked environments, and
files (``taskvine.remote.cache``).

For an entry NAME there are

    NAME.lock       held exclusively by who makes or removes it, shared for a moment by who looks for it
    NAME.use        held shared by who uses it
    NAME/           the entry, once whole
    NAME.json       says that it is whole: written last, removed first
    NAME.making/    while it is being made, or what a killed process left of that
    NAME.removing/  likewise

Rules:
- Locks are the kernel's (flock): they end with the process, however it ends, and nobody has to poll.
- Nobody waits for those who use an entry, which may take days: who wants to make it finds it made, and who
  wants to remove it lets it be.
- A lock file that was removed while somebody waited for it is none: it is opened again.
- When somebody last began to use an entry is the time of its lock file. Above the cap, which is one for all
  kinds, the least recently used ones go, never one that is in use.
- After a reboot the sizes of all files are looked at once: a machine that lost power may have lost contents.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator

import msgspec

from graphvine.envs.errors import CacheError

#: How much the cache keeps of what nobody uses, unless told otherwise.
DEFAULT_CAP_BYTES = 20 * 10**9
#: A file in an entry whose front (``envs.front``) can be used, while somebody with its lock unpacks the rest.
BEGUN = ".graphvine-begun"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Marker(msgspec.Struct):
    """Contents of NAME.json. ``prefix``: the environment's directory below NAME ("" is NAME itself).
    ``boot``: in which run of the machine the files were last seen to be whole. ``digest``: of kept files, by
    which they are verified."""

    prefix: str
    python: str
    platform: str
    total_bytes: int
    files: int
    boot: str
    digest: str = ""


def default_directory() -> str:
    """``$GRAPHVINE_CACHE_DIR``, else the user's cache directory, else one below the temporary directory."""
    told = os.environ.get("GRAPHVINE_CACHE_DIR")
    if told:
        return os.path.abspath(told)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(base):  # batch jobs may have no home
        return os.path.join(base, "graphvine")
    return os.path.join(tempfile.gettempdir(), f"graphvine-{os.getuid()}")


def default_cap() -> int:
    """``$GRAPHVINE_CACHE_MB`` in bytes, else the default. Raises CacheError when it is no number."""
    told = os.environ.get("GRAPHVINE_CACHE_MB")
    if not told:
        return DEFAULT_CAP_BYTES
    try:
        return int(float(told) * 10**6)
    except (ValueError, OverflowError) as error:
        raise CacheError(f"GRAPHVINE_CACHE_MB={told} is not a number of megabytes") from error


def make_directory(path: str) -> None:
    """Make a cache directory, for its owner only. Raises CacheError."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise CacheError(f"{path} can't be used as cache ({error}); set GRAPHVINE_CACHE_DIR") from error
    check_trusted(path)


def check_trusted(path: str) -> None:
    """Raises CacheError when somebody else could put anything in a cache directory."""
    try:
        reason = why_not_trusted(path)
    except OSError as error:
        raise CacheError(f"{path} can't be used as cache ({error}); set GRAPHVINE_CACHE_DIR") from error
    if reason:
        raise CacheError(f"the cache {path} {reason}; set GRAPHVINE_CACHE_DIR")


def why_not_trusted(path: str) -> str:
    """Why somebody else could put anything in a directory, for us to run; "" when nobody could. In one for
    all (/tmp) whoever comes first makes it, or a link by its name. Raises OSError."""
    mine = os.getuid()
    if os.lstat(path).st_uid not in (0, mine) or os.stat(path).st_uid != mine:
        return "belongs to another user"
    if os.stat(path).st_mode & 0o022:
        return "can be written by others (chmod go-w)"
    return ""


class Hold:
    """An entry (an unpacked environment, say) that is kept while this is open.

    The descriptor may be inherited: a lock lasts until every process that has it is gone, so an executor's
    parent that is given it (``pass_fds``) keeps its environment for as long as it lives.
    """

    def __init__(self, prefix: str, descriptor: int, marker: Marker) -> None:
        self.prefix = prefix
        self.python = marker.python
        self.platform = marker.platform
        self.digest = marker.digest
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Place:
    """Where one entry lies in a cache."""

    def __init__(self, cache: str, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise CacheError(f"{name!r} can't be the name of an environment")
        self.cache = cache
        self.name = name
        self.path = os.path.join(cache, name)
        self.lock = self.path + ".lock"
        self.use = self.path + ".use"
        self.marker = self.path + ".json"
        self.making = self.path + ".making"
        self.removing = self.path + ".removing"

    def read(self) -> Marker | None:
        """The marker, if the entry is whole."""
        try:
            with open(self.marker, "rb") as file:
                return msgspec.json.decode(file.read(), type=Marker)
        except (FileNotFoundError, ValueError):
            return None

    def write(self, marker: Marker) -> None:
        temporary = f"{self.marker}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(msgspec.json.encode(marker))
        os.replace(temporary, self.marker)

    def clear(self) -> None:
        """Remove all but the locks. ``lock`` must be held exclusively."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.marker)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, self.removing)
        for path in (self.removing, self.making):
            _remove_tree(path)


def hold(name: str, cache: str) -> Hold | None:
    """The entry of that name, if it is there and whole. Waits while somebody makes it.

    Raises CacheError."""
    place = Place(cache, name)
    if not os.path.exists(place.lock):
        return None
    descriptor = lock(place, exclusive=False)
    try:
        marker = place.read()
        if marker is None or not os.path.isdir(place.path):
            return None
        if marker.boot == boot_id() or _survived(place, marker):
            os.utime(place.lock)
            prefix = os.path.join(place.path, marker.prefix) if marker.prefix else place.path
            return Hold(prefix, _lock_use(place, fcntl.LOCK_SH), marker)
    finally:
        os.close(descriptor)
    with locked(place):
        if place.read() == marker:  # nobody has made it anew meanwhile
            place.clear()
    return None


def lock(place: Place, *, exclusive: bool, wait: bool = True) -> int:
    """A descriptor that holds ``place.lock``. Raises BlockingIOError without ``wait``, CacheError."""
    mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    while True:
        descriptor = _flock(place, place.lock, mode if wait else mode | fcntl.LOCK_NB)
        if _is_current(descriptor, place.lock):
            return descriptor
        os.close(descriptor)


@contextlib.contextmanager
def locked(place: Place, *, wait: bool = True) -> Iterator[int]:
    """The exclusive lock for a while. Raises as ``lock``."""
    descriptor = lock(place, exclusive=True, wait=wait)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def fill(place: Place, make: Callable[[], Marker]) -> None:
    """Have ``make`` put an entry at ``place.path`` (by way of ``place.making``), unless somebody else just
    did, and may use it by now. It has the exclusive lock. Whatever it raises leaves nothing behind. Raises
    also as ``lock``."""
    with locked(place):
        if place.read() is not None and os.path.isdir(place.path):
            return
        place.clear()
        try:
            place.write(make())
        except BaseException:
            place.clear()
            _remove_locks(place)
            raise


def drop(name: str, cache: str) -> None:
    """Remove an entry, unless somebody uses it."""
    place = Place(cache, name)
    if os.path.exists(place.lock):
        _remove_unused(place)


def _lock_use(place: Place, mode: int) -> int:
    """A descriptor that holds ``place.use``. ``place.lock`` must be held: so the file stays what it is."""
    return _flock(place, place.use, mode)


def _flock(place: Place, path: str, mode: int) -> int:
    try:
        # For writing: network file systems give exclusive locks on nothing else.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CacheError(
            f"{place.cache} can't be used as cache ({error}); set GRAPHVINE_CACHE_DIR"
        ) from error
    try:
        fcntl.flock(descriptor, mode)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError as error:
        os.close(descriptor)
        raise CacheError(
            f"files in {place.cache} can't be locked ({error}); "
            "set GRAPHVINE_CACHE_DIR to a directory on a local disk"
        ) from error
    return descriptor


def _is_current(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


# -- room ---------------------------------------------------------------------------------------------------


def make_room(cache: str, most_bytes: int, free: int, keep: str) -> None:
    """Remove least recently used entries that nobody uses until the others take ``most_bytes`` at most
    and ``free`` bytes of the disk are free, and what killed processes left. ``keep`` is not touched."""
    kept: list[tuple[float, int, Place]] = []
    for place in places(cache):
        if place.name == keep:
            continue
        marker = place.read()
        if marker is None:
            _remove_unused(place)
        else:
            kept.append((_last_used(place), marker.total_bytes, place))
    total = sum(size for _, size, _ in kept)
    for _, size, place in sorted(kept, key=lambda entry: entry[0]):
        if total <= most_bytes and free_bytes(cache) >= free:
            return
        if _remove_unused(place):
            total -= size


def places(cache: str) -> list[Place]:
    """All entries of a cache, whole or not."""
    names = {name[: -len(".lock")] for name in os.listdir(cache) if name.endswith(".lock")}
    return [Place(cache, name) for name in sorted(names) if _NAME.fullmatch(name)]


def free_bytes(path: str) -> int:
    """What this user may still write there."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _last_used(place: Place) -> float:
    try:
        return os.stat(place.lock).st_mtime
    except FileNotFoundError:
        return 0.0


def _remove_unused(place: Place) -> bool:
    try:
        with locked(place, wait=False):
            os.close(_lock_use(place, fcntl.LOCK_EX | fcntl.LOCK_NB))
            place.clear()
            _remove_locks(place)
    except BlockingIOError:
        return False
    return True


def _remove_locks(place: Place) -> None:
    """``place.lock`` must be held exclusively: it goes last."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place.use)
    os.unlink(place.lock)


def _remove_tree(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        try:
            shutil.rmtree(path)
        except PermissionError:
            # Kept directories have the modes of those they were made of.
            os.chmod(path, 0o700)
            for directory, names, _ in os.walk(path):
                for name in names:
                    if not os.path.islink(os.path.join(directory, name)):
                        os.chmod(os.path.join(directory, name), 0o700)
            shutil.rmtree(path)


def remove_contents(directory: str, *, itself: bool) -> None:
    """Remove what is in a directory, and the directory ``itself``."""
    if itself:
        _remove_tree(directory)
        return
    with os.scandir(directory) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(entry.path)
            else:
                os.unlink(entry.path)


# -- whole or not -------------------------------------------------------------------------------------------


def boot_id() -> str:
    """Changes with every start of the machine."""
    try:
        with open(_BOOT_ID) as file:
            return file.read().strip()
    except OSError:
        return ""


def measure(path: str) -> tuple[int, int]:
    """Bytes of all files below a directory, and how many files there are."""
    total = files = 0
    stack = [path]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
                    files += 1
    return total, files


def _survived(place: Place, marker: Marker) -> bool:
    """Whether all is there after a reboot. Bytecode that was added since does no harm."""
    total, files = measure(place.path)
    if total < marker.total_bytes or files < marker.files:
        return False
    marker.boot = boot_id()
    place.write(marker)
    return True


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no more room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
