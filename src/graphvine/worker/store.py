"""The files a worker holds: memory tier first, within a budget, then local disk.

- ``store.directory`` shows every file under its number, whichever tier it lies on (one that lies on disk is a
  symbolic link there), so a path once given stays good until the file is dropped.
- A file appears by a rename and disappears by unlink: it is whole or not there, and who has it open keeps it.
- A tree (``protocol.trees``) is a directory where a value is a file. Trees lie on disk, always: whoever makes
  or receives one writes it there, and the kernel keeps in memory what is read.
- Above the budget the least recently used files are copied to disk by a thread; until a copy is whole and in
  place the file stays where it is. State changes in the agent's thread only, when ``completed`` is called.
- A large file that is dropped may become a spare (``spare``): its memory serves the next one.
- All methods are called from one thread, but ``lookup``, which may be called from any.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import stat
import threading
from collections import OrderedDict
from queue import SimpleQueue

import msgspec

from graphvine.protocol import tree_files
from graphvine.protocol.directories import OwnedDirectory, sweep
from graphvine.worker import spare
from graphvine.worker.mailbox import Mailbox
from graphvine.worker.removal import Remover
from graphvine.worker.spare import Spares

#: Spilling begins above the first share of the budget and goes on down to the second.
_SPILL_ABOVE = 0.9
_SPILL_DOWN_TO = 0.75
#: With less than this free, there is no memory tier (containers often have 64 MB of /dev/shm).
_TINY_BYTES = 256 * 2**20
_COPY_BYTES = 16 * 2**20
#: Memory of dropped files kept for new ones: one part in so many of the budget.
_SPARE_SHARE = 4


class Spilled(msgspec.Struct):
    """A file now lies on disk; its path is the same."""

    file: int
    size: int


class SpillFailed(msgspec.Struct):
    """A file could not be moved to disk (full?). It stays in memory, and nothing more is moved until
    something is dropped."""

    file: int
    reason: str


StoreEvent = Spilled | SpillFailed


class Usage(msgspec.Struct, frozen=True):
    files: int
    memory_bytes: int
    disk_bytes: int


class StoreFullError(OSError):
    """Neither tier has room; the message says how much each holds."""


class _Copied(msgspec.Struct):
    """A spill's copy is whole at ``path`` (or there is none, and ``reason`` says why)."""

    file: int
    token: int
    path: str
    reason: str


class Store:
    def __init__(
        self,
        memory_directory: str | None,
        disk_directory: str,
        memory_budget_bytes: int | None = None,
        memory_limit_bytes: float = math.inf,
        disk_limit_bytes: float = math.inf,
    ) -> None:
        """Makes ``graphvine-<uid>-<host>-<random>`` (mode 0700) in each of the two parents, after removing
        those that dead workers of this user left there.

        ``memory_directory``: usually "/dev/shm"; None, a missing or a tiny one means everything is on disk.
        ``memory_budget_bytes``: None is a share of what is free there, and of ``memory_limit_bytes``, all
        that this worker and its tasks may use. ``disk_limit_bytes``: files that come from elsewhere are
        refused when so much lies on disk.
        """
        os.makedirs(disk_directory, exist_ok=True)
        sweep(disk_directory)
        self._disk = OwnedDirectory(disk_directory)
        self._disk_limit = disk_limit_bytes
        self._memory = _memory_tier(memory_directory, memory_budget_bytes, memory_limit_bytes)
        self.directory = self._memory.path if self._memory else self._disk.path
        """Where every file is found by number (what ``Hello.store`` says)."""
        self.scratch = os.path.join(self._disk.path, "scratch")
        """A directory for passing things (packets, archives), removed with the store."""
        os.mkdir(self.scratch)
        self._budget = 0
        if memory_directory is not None and self._memory:
            self._budget = (
                default_budget(memory_directory, memory_limit_bytes)
                if memory_budget_bytes is None
                else memory_budget_bytes
            )
        self._spares = Spares(self._memory.path, self._budget // _SPARE_SHARE) if self._memory else None
        self._sizes: dict[int, int] = {}
        self._in_memory: OrderedDict[int, int] = OrderedDict()
        """Files of the memory tier that are not being spilled, least recently used first."""
        self._spilling: dict[int, int] = {}
        """Files of the memory tier that are being copied, and the token of the copy."""
        self._memory_bytes = 0
        self._spilling_bytes = 0
        self._disk_bytes = 0
        self._incoming: dict[int, tuple[str, int]] = {}
        self._incoming_memory_bytes = 0
        self._temporaries = 0
        self._paused = False
        self._spiller = _Spiller(self._disk.path)
        self._remover = Remover()

    @property
    def directories(self) -> tuple[str, ...]:
        """All directories of ours, for ``Pool(watched=...)``."""
        return (self._memory.path, self._disk.path) if self._memory else (self._disk.path,)

    @property
    def fallback_directory(self) -> str:
        """Where executors write when there is no room (the disk tier)."""
        return self._disk.path

    @property
    def descriptor(self) -> int:
        """Readable when ``completed`` has something."""
        return self._spiller.copied.descriptor

    def directory_for_results(self) -> str:
        """Where executors should write: memory while within the budget, else disk."""
        return self.directory if self._room_in_memory(0) else self._disk.path

    def path(self, file: int) -> str | None:
        """Path of a file, None when it is not held. Counts as a use."""
        if file in self._in_memory:
            self._in_memory.move_to_end(file)
        return self.lookup(file)

    def lookup(self, file: int) -> str | None:
        """As ``path``, from any thread, and not counted as a use (for the transfer server)."""
        return f"{self.directory}/{file}" if file in self._sizes else None

    def usage(self) -> Usage:
        return Usage(len(self._sizes), self._memory_bytes, self._disk_bytes)

    # -- files come ------------------------------------------------------------------------------------

    def put_bytes(self, file: int, data: bytes | memoryview) -> str:
        """Store bytes as a file; its path. Raises StoreFullError."""
        size = len(data)
        first = self.incoming(file, size)
        second = self._temporary(self._disk.path, file)
        for path in dict.fromkeys((first, second)):
            try:
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as target:
                    target.write(data)
                    target.truncate()
            except OSError as error:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                last = error
            else:
                self._set_incoming(file, path, size)
                self.adopt(file, size)
                return f"{self.directory}/{file}"
        self.discard(file)
        raise StoreFullError(last.errno, f"no room for {size} bytes ({last.strerror}); {self.usage()}")

    def incoming(self, file: int, size: int) -> str:
        """A temporary path to which a file may be written that is on its way (a fetch, pieces), in the tier
        that has room; then ``adopt`` (which renames), or ``discard``. A spare may lie there: it is written
        over and cut to ``size``, not truncated first. Raises StoreFullError where the limit is reached."""
        in_memory = self._room_in_memory(size) and self._is_free_in_memory(size)
        directory = self.directory if in_memory else self._disk.path
        if directory == self._disk.path and self._disk_bytes + size > self._disk_limit:
            text = (
                f"this worker may use {self._disk_limit:.0f} bytes of disk, and has used {self._disk_bytes}"
            )
            raise StoreFullError(errno.EDQUOT, text)
        path = self._temporary(directory, file)
        spare.take(directory, size, path)
        self._set_incoming(file, path, size)
        return path

    def incoming_tree(self, file: int) -> str:
        """Where the file of ``incoming`` is to be written in case it turns out to be a tree: nothing is there
        yet."""
        return f"{self._disk.path}/{os.path.basename(self._incoming[file][0])}.tree"

    def adopt(self, file: int, size: int) -> bool:
        """Take in a file that an executor wrote (under its number) or that came to ``incoming(file)``.
        False when there is no such file."""
        try:
            if file in self._incoming:
                self._take_incoming(file)
            in_memory = self._find(file)
        except FileNotFoundError:
            return False
        self._forget(file)
        self._sizes[file] = size
        if in_memory:
            self._in_memory[file] = size
            self._memory_bytes += size
            self._spill_what_is_too_much()
        else:
            self._disk_bytes += size
        return True

    def discard(self, file: int) -> None:
        """Remove what was written to ``incoming(file)``."""
        if file in self._incoming:
            self._remover.remove(self.incoming_tree(file))
            self._remover.remove(self._forget_incoming(file))

    def _take_incoming(self, file: int) -> None:
        """Give what came its name. Raises FileNotFoundError."""
        tree = self.incoming_tree(file)
        path = self._forget_incoming(file)
        if tree_files.is_tree(tree):
            # What was kept ready for a value.
            self._remover.remove(path)
            tree_files.put_in_place(tree, f"{self._disk.path}/{file}")
        else:
            os.rename(path, os.path.join(os.path.dirname(path), str(file)))

    def _find(self, file: int) -> bool:
        """Whether a new file lies in the memory tier; one on disk is shown in ``directory``. Raises
        FileNotFoundError."""
        if self._memory is None:
            os.stat(f"{self._disk.path}/{file}")
            return False
        shown = f"{self._memory.path}/{file}"
        on_disk = f"{self._disk.path}/{file}"
        if _is_file(shown):
            # A task that was run again: the older replica, which had been spilled, is not shown any more.
            if file in self._sizes and file not in self._in_memory:
                self._remover.remove(on_disk)
            return True
        os.stat(on_disk)
        self._show(file)
        return False

    def _show(self, file: int) -> None:
        """Put a link to a file on disk in the place of its name in the memory tier, in one step."""
        assert self._memory is not None
        link = f"{self._memory.path}/.link-{file}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(f"{self._disk.path}/{file}", link)
        os.rename(link, f"{self._memory.path}/{file}")

    def _room_in_memory(self, size: int) -> bool:
        return self._memory is not None and (
            self._memory_bytes + self._incoming_memory_bytes + size < self._budget
        )

    def _is_free_in_memory(self, size: int) -> bool:
        """Others write to that file system, too: whoever writes what arrives can't go to disk half-way."""
        assert self._memory is not None
        found = os.statvfs(self._memory.path)
        return found.f_bavail * found.f_frsize >= self._incoming_memory_bytes + size

    def _temporary(self, directory: str, file: int) -> str:
        # Another one each time: who writes to one that was given up must not disturb the next.
        self._temporaries += 1
        return f"{directory}/.in-{file}-{self._temporaries}"

    def _set_incoming(self, file: int, path: str, size: int) -> None:
        if file in self._incoming:
            self._forget_incoming(file)
        self._incoming[file] = (path, size)
        if self._memory and path.startswith(self._memory.path):
            self._incoming_memory_bytes += size

    def _forget_incoming(self, file: int) -> str:
        path, size = self._incoming.pop(file)
        if self._memory and path.startswith(self._memory.path):
            self._incoming_memory_bytes -= size
        return path

    # -- files go --------------------------------------------------------------------------------------

    def drop(self, files: list[int]) -> None:
        """Forget files. Whoever has one open or mapped keeps it."""
        for file in files:
            in_memory = self._in_memory.get(file)
            on_disk = in_memory is None and file in self._sizes and file not in self._spilling
            if not self._forget(file):
                continue
            if in_memory and self._spares and self._spares.keep(f"{self.directory}/{file}", in_memory):
                continue
            for directory in self.directories if on_disk else (self.directory,):
                self._remover.remove(f"{directory}/{file}")
        self._paused = False

    def clear_spares(self) -> None:
        """Give back the memory that is kept for files to come."""
        if self._spares:
            self._spares.clear()

    def _forget(self, file: int) -> bool:
        """Take a file out of the accounts; False when it was not in them."""
        size = self._sizes.pop(file, None)
        if size is None:
            return False
        if self._spilling.pop(file, None) is not None:
            self._memory_bytes -= size
            self._spilling_bytes -= size
        elif self._in_memory.pop(file, None) is not None:
            self._memory_bytes -= size
        else:
            self._disk_bytes -= size
        return True

    def close(self) -> None:
        """Remove everything."""
        self._spiller.close()
        self._remover.close()
        if self._memory:
            self._memory.remove()
        self._disk.remove()

    # -- files go to disk ------------------------------------------------------------------------------

    def completed(self) -> list[StoreEvent]:
        """Put finished copies in place; what was spilled, and what could not be."""
        events: list[StoreEvent] = []
        for copied in self._spiller.copied.take_all():
            event = self._on_copied(copied)
            if event is not None:
                events.append(event)
        self._spill_what_is_too_much()
        return events

    def _spill_what_is_too_much(self) -> None:
        if self._paused or self._memory_bytes - self._spilling_bytes <= self._budget * _SPILL_ABOVE:
            return
        while self._in_memory and self._memory_bytes - self._spilling_bytes > self._budget * _SPILL_DOWN_TO:
            file, size = self._in_memory.popitem(last=False)
            self._spilling_bytes += size
            self._spilling[file] = self._spiller.start(file, f"{self.directory}/{file}")

    def _on_copied(self, copied: _Copied) -> StoreEvent | None:
        file = copied.file
        if self._spilling.get(file) != copied.token:
            # Dropped in the meantime.
            _unlink_if_there(copied.path)
            return None
        del self._spilling[file]
        size = self._sizes[file]
        self._spilling_bytes -= size
        reason = copied.reason
        if not reason:
            try:
                os.rename(copied.path, f"{self._disk.path}/{file}")
                self._show(file)
            except OSError as error:
                _unlink_if_there(copied.path)
                reason = str(error)
        if reason:
            self._in_memory[file] = size
            self._paused = True
            return SpillFailed(file, reason)
        self._memory_bytes -= size
        self._disk_bytes += size
        return Spilled(file, size)


class _Spiller:
    """A thread (begun when first needed) that copies files into the disk tier, one after the other."""

    def __init__(self, directory: str) -> None:
        self.copied: Mailbox[_Copied] = Mailbox()
        self._directory = directory
        self._orders: SimpleQueue[tuple[int, int, str] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._tokens = 0
        self._closing = False

    def start(self, file: int, source: str) -> int:
        """Copy ``source``; the token that its ``_Copied`` will carry."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="graphvine-spill", daemon=True)
            self._thread.start()
        self._tokens += 1
        self._orders.put((file, self._tokens, source))
        return self._tokens

    def close(self) -> None:
        self._closing = True
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
        self.copied.close()

    def _run(self) -> None:
        while (order := self._orders.get()) is not None and not self._closing:
            file, token, source = order
            target = f"{self._directory}/.spill-{file}-{token}"
            try:
                self._copy(source, target)
            except OSError as error:
                _unlink_if_there(target)
                self.copied.put(_Copied(file, token, target, str(error)))
            else:
                self.copied.put(_Copied(file, token, target, ""))

    def _copy(self, source: str, target: str) -> None:
        with open(source, "rb") as reader, open(target, "xb") as writer:
            while not self._closing:
                if not os.sendfile(writer.fileno(), reader.fileno(), None, _COPY_BYTES):
                    return
        raise OSError(errno.ECANCELED, "the store is being closed")


def default_budget(memory_directory: str, limit_bytes: float = math.inf) -> int:
    """Half of what is free in ``memory_directory``, and not more than a third of the free memory, and of what
    this worker may use of it."""
    state = os.statvfs(memory_directory)
    memory = min(_available_memory_bytes(), limit_bytes)
    return int(min(state.f_bavail * state.f_frsize // 2, memory // 3))


def _available_memory_bytes() -> int:
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _memory_tier(parent: str | None, budget_bytes: int | None, limit_bytes: float) -> OwnedDirectory | None:
    if parent is None or not os.path.isdir(parent) or not os.access(parent, os.W_OK):
        return None
    sweep(parent)
    if budget_bytes is None and default_budget(parent, limit_bytes) < _TINY_BYTES // 2:
        return None
    return OwnedDirectory(parent)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _unlink_if_there(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
