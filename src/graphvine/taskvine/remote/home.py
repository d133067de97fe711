"""The directories in which the commands and calls of an executor run, one after the other.

    sandbox/          the working directory
    tmp/              for temporary files, beside it, so that it is not among what a command lists
    output            what a command writes to standard output and standard error

They stay, empty, from one to the next, as making and removing them takes longer than many a command does.

What one has left is found by listing them all, and that is a tenth of what a short command costs. So after
two that left nothing the kernel is asked to tell of the first change to any of the three directories
(inotify); while it tells of none, there is nothing to look for. Once it has, they are listed again.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import stat

from graphvine.protocol import tree_files
from graphvine.worker import scratch

OUTPUT = "output"
_SANDBOX = "sandbox"
_TMP = "tmp"
#: Out of the way of those who close everything up to some small number.
_FROM = 100
#: After so many that have left nothing, the next one probably does so, too.
_QUIET = 2
#: IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF; IN_ONLYDIR,
#: IN_ONESHOT: what makes many files is not slowed down by it.
_CHANGES = 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800 | 0x0100_0000 | 0x8000_0000
_EVENTS_BYTES = 4096
_libc = ctypes.CDLL(None, use_errno=True)


class Bell:
    """Rings when something is changed in one of some directories, once for each. Raises OSError where the
    kernel has none (left)."""

    def __init__(self) -> None:
        descriptor: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        _check(descriptor)
        try:
            self._descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FROM)
        finally:
            os.close(descriptor)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def watch(self, *directories: str) -> None:
        """From now on. Raises OSError."""
        for directory in directories:
            _check(_libc.inotify_add_watch(self._descriptor, os.fsencode(directory), ctypes.c_uint(_CHANGES)))

    def rang(self) -> bool:
        """Whether it did since this was asked last."""
        if not self._poll.poll(0):
            return False
        # A task may have closed it. Then whatever there was to be heard was not.
        with contextlib.suppress(OSError):
            os.read(self._descriptor, _EVENTS_BYTES)
        return True

    def close(self) -> None:
        os.close(self._descriptor)


class Home:
    """Those of one process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sandbox = f"{path}/{_SANDBOX}"
        self.tmp = f"{path}/{_TMP}"
        self.pid = os.getpid()
        self._furnished = False
        """Both directories were there, and empty, when they were looked at last."""
        self._output = -1
        self._bell: Bell | None = None
        self._deaf = False
        """There is no bell to be had."""
        self._armed = False
        """It rings at the next change."""
        self._quiet = 0
        """So many in a row have left nothing."""

    def furnish(self) -> None:
        """Have the directories. Raises OSError."""
        if self._furnished and self.is_untouched():
            return
        for path in (self.sandbox, self.tmp):
            if not os.path.isdir(path):
                os.mkdir(path)

    def is_untouched(self) -> bool:
        """Whether it is known that nothing was made, changed or removed in the directories."""
        if self._armed and (self._bell is None or self._bell.rang()):
            self._armed = False
        return self._armed

    def empty(self, untouched: bool = False) -> None:
        """Leave nothing for the next one. ``untouched``: this was asked before."""
        if untouched or self.is_untouched():
            self._empty_output()
            return
        self._quiet = 0 if self._clean() else self._quiet + 1
        if self._quiet >= _QUIET and not self._deaf:
            self._arm()

    def close(self) -> None:
        """Let go of what is open."""
        self.give_up_output()
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    # -- what a command prints -------------------------------------------------------------------------

    @property
    def output_path(self) -> str:
        return f"{self.path}/{OUTPUT}"

    def open_output(self) -> int:
        """The file for it, empty. It stays open; not to be closed. Raises OSError."""
        if self._has_output():
            os.lseek(self._output, 0, os.SEEK_SET)
            return self._output
        self.give_up_output()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.output_path)  # it has another name, too
        descriptor = os.open(self.output_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._output = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FROM)
        finally:
            os.close(descriptor)
        self._output_is = os.fstat(self._output)
        return self._output

    def give_up_output(self) -> None:
        """The file belongs to somebody else now."""
        if self._found_output() is not None:
            os.close(self._output)
        self._output = -1

    def _found_output(self) -> os.stat_result | None:
        """What the file is, while it is open."""
        if self._output < 0:
            return None
        try:
            found = os.fstat(self._output)
        except OSError:
            return None  # a task has closed it
        return found if os.path.samestat(found, self._output_is) else None

    def _has_output(self) -> bool:
        """Whether the file is open, and nobody has it under another name."""
        found = self._found_output()
        return found is not None and found.st_nlink == 1

    def _empty_output(self) -> None:
        found = self._found_output()
        if found is not None and found.st_size and found.st_nlink == 1:
            os.ftruncate(self._output, 0)

    # -- after a command -------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Have the bell ring at the next change, if that can be."""
        directories = self.path, self.sandbox, self.tmp
        try:
            if self._bell is None:
                self._bell = Bell()
                # Some file systems know of no such thing, and say nothing.
                self._bell.watch(*directories)
                for path in directories:
                    os.utime(path)
                    if not self._bell.rang():
                        self._deaf = True
                        return
            self._bell.watch(*directories)
        except OSError:
            self._deaf = True
            return
        # Something may have come since it was looked at, by what a call has left running.
        self._armed = not self._clean()

    def _clean(self) -> bool:
        """Remove what was left; whether there was anything."""
        self._furnished = False
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            # This one has removed it, with its own sandbox.
            return True
        furniture, found, output = 0, False, False
        for name in names:
            path = f"{self.path}/{name}"
            status = os.lstat(path)
            if name in (_SANDBOX, _TMP) and stat.S_ISDIR(status.st_mode):
                furniture += 1
                found |= _clean_directory(path, status)
            elif name == OUTPUT and self._has_output() and os.path.samestat(status, self._output_is):
                self._empty_output()
                output = True
            else:
                tree_files.remove(path)
                found |= name != OUTPUT
        if not output:
            self.give_up_output()
        self._furnished = furniture == len((_SANDBOX, _TMP))
        return found or not self._furnished


_home: Home | None = None


def here() -> Home:
    """The one of this process, for the task that is running. Raises RuntimeError outside of a task,
    OSError."""
    global _home
    path = scratch.lasting()
    if _home is None or _home.pid != os.getpid() or _home.path != path:
        if _home is not None and _home.pid == os.getpid():
            _home.close()
        _home = Home(path)
    return _home


def _clean_directory(path: str, status: os.stat_result) -> bool:
    """Remove what lies in a directory; whether there was anything."""
    locked = status.st_mode & 0o700 != 0o700
    if locked:
        os.chmod(path, 0o700)
    names = os.listdir(path)
    for name in names:
        tree_files.remove(f"{path}/{name}")
    return locked or bool(names)


def _check(number: int) -> None:
    if number < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
