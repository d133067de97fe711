"""The rest of an environment from whose front a worker was started (``envs.front``), unpacked meanwhile.

- At first only what a worker itself needs is there. Executors, and whatever else runs code of the user's,
  wait for the rest: the zygote and the loop by ``descriptor``, the end of a pipe. (It ends, too, when the
  agent is gone.)
- On a node where several jobs share a copy, one of them unpacks it, and has the lock of the entry
  (``envs.cache``) for as long; so has the ``tar`` that it runs. The others wait for that lock. Where they get
  it and the entry is not whole, who had it was killed: the next one unpacks the rest once more.
- What has failed is said, and the worker ends: nothing can run there.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import threading
from typing import NoReturn

import msgspec

from graphvine.envs import cache
from graphvine.envs.cache import BEGUN, Place

_LAST_WORDS = 500
#: Who unpacks it may have been stopped: nobody waits for ever. As in ``deploy/job.sh``.
_PATIENCE_S = 900
#: How long killed processes are waited for.
_GONE_S = 2.0


class Order(msgspec.Struct, frozen=True):
    """``first``: the byte of the archive at which the rest begins. ``directory``: where it goes. ``entry``:
    of the node's cache, "" where the directory is the job's own. ``lock``: a descriptor by which this process
    has the lock of the entry; -1: another one has. ``removes``: the archive goes when all is there."""

    archive: str
    first: int
    directory: str
    entry: str = ""
    lock: int = -1
    removes: bool = False


def parse(words: list[str]) -> Order:
    """As the job's script says it. Raises ValueError."""
    archive, first, directory, entry, lock, removes = words
    return Order(archive, int(first), directory, entry, int(lock or -1), bool(removes))


class Rest:
    """What is still missing. ``descriptor`` comes to its end when nothing is any more, or never will be
    there."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.descriptor, self._open = os.pipe()
        self.failure = ""
        """Why it will never be there."""
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lock = order.lock

    def start(self) -> None:
        """Begin. Not before the zygote was forked: from here on there is a thread."""
        self._thread = threading.Thread(target=self.run, name="graphvine-unpack", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody here waits for it any more. What is not done is for other jobs of the node; nothing is
        written any more, as batch systems remove a job's directory when it ends."""
        with self._guard:
            self._closed = True
            if self._process is not None:
                self._process.kill()
        if self._thread is not None:
            self._thread.join(_GONE_S)
        self._finish()
        os.close(self.descriptor)

    def _finish(self) -> None:
        with self._guard:
            descriptor, self._open = self._open, -1
        if descriptor >= 0:
            os.close(descriptor)

    # -- in the thread ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Until it is there, or why it never will be is in ``failure``."""
        try:
            if self._order.entry:
                self._complete(Place(*os.path.split(self._order.entry)))
            else:
                self._unpack()
            if self._order.removes:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._order.archive)
            importlib.invalidate_caches()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the loop has to know
            self.failure = (
                f"the rest of the environment can't be unpacked in {self._order.directory}: {error}"
            )
        finally:
            self._finish()

    def _complete(self, place: Place) -> None:
        """Have it be whole: as a rule, wait for who is at it. Raises OSError, PackedEnvironmentError."""
        while self._lock < 0:
            self._await(place)
            if place.read() is not None:
                return
            with contextlib.suppress(BlockingIOError):
                self._lock = cache.lock(place, exclusive=True, wait=False)
        try:
            if place.read() is None:
                self._unpack()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(place.path, BEGUN))
                self._call([sys.executable, "-I", "-m", "graphvine.envs.adopt", place.name, place.cache])
        finally:
            os.close(self._lock)

    def _await(self, place: Place) -> None:
        """Until nobody has its lock to make it. Raises OSError."""
        try:
            # Not this process, for which there would be no end to it.
            self._call(["flock", "-s", "-w", str(_PATIENCE_S), place.lock, "true"])
        except OSError as error:
            raise OSError(f"another job of this node does not come to an end with it {error}") from error

    def _unpack(self) -> None:
        with open(self._order.archive, "rb") as archive:
            archive.seek(self._order.first)
            self._call(["tar", "-xzof", "-", "-C", self._order.directory], stdin=archive.fileno())

    def _call(self, command: list[str], stdin: int = subprocess.DEVNULL) -> None:
        """Run it. Raises OSError."""
        kept = () if self._lock < 0 else (self._lock,)
        with self._guard:
            if self._closed:
                raise OSError("this worker ends")
            self._process = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=kept
            )
        with self._process as process:
            said = process.communicate()[1].decode(errors="replace").strip()
        if process.returncode:
            raise OSError(said[-_LAST_WORDS:] or f"{command[0]} ended with code {process.returncode}")


def complete(words: list[str]) -> None:
    """Have all be there now, for those who can't do without. Exits where that fails."""
    rest = Rest(parse(words))
    rest.run()
    rest.close()
    if rest.failure:
        sys.exit(f"graphvine: {rest.failure}")


def start_again() -> NoReturn:
    """Start this worker anew when all is there: something was missing in the front."""
    where = sys.orig_argv.index("--rest")
    words = sys.orig_argv[where + 1 : where + 7]
    lock = parse(words).lock
    if lock >= 0:
        # Perhaps somebody was at it already, in a thread that has closed it.
        with contextlib.suppress(OSError):
            os.close(lock)
    complete([*words[:4], "", words[5]])
    os.execv(sys.executable, [*sys.orig_argv[:where], *sys.orig_argv[where + 7 :]])
