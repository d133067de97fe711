"""The embedded worker: a worker process of the manager's own.

It gets the connection on its standard input, and that pipe stays open: when the manager's process ends, in
whatever way, the worker reads the end of it, and leaves. A thread per process waits for its end, so that a
killed worker is known at once and another one takes its place.

Imports next to nothing, as ``worker.launch`` does: where an embedded worker is wanted in any case, launching
it is the first thing a manager does, and both processes get ready at the same time.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from graphvine.protocol.interpreter import calling, start_bound

#: A worker that ends this often in a row without having joined is not started again.
MAX_FALSE_STARTS = 3
_LOG_TAIL_BYTES = 2000
_START = calling("graphvine.worker.__main__", "start")


class LocalWish(NamedTuple):
    """When an embedded worker is wanted, and with how many cores (None: all)."""

    when: Literal["never", "always", "if alone"]
    cores: float | None = None

    @classmethod
    def stated(cls, local_workers: float | bool | None, public: bool) -> LocalWish:
        """What the user's ``local_workers`` means; ``public``: other machines may join. Raises ValueError."""
        if local_workers is None:
            return cls("if alone" if public else "always")
        if local_workers is True:
            return cls("always")
        if local_workers is False or local_workers == 0:
            return cls("never")
        if not isinstance(local_workers, int | float) or not 0 < local_workers < math.inf:
            raise ValueError(
                f"local_workers={local_workers!r}: give a number of cores, 0 for no local worker"
            )
        if local_workers < 1:
            raise ValueError(
                f"local_workers={local_workers!r}: a task asks for one core unless it is told otherwise, and "
                "would never run; give at least 1"
            )
        return cls("always", float(local_workers))


class LocalWorker:
    """One embedded worker process after another, one at a time."""

    def __init__(self, cores: float | None, log_directory: Path) -> None:
        """``cores`` None: all there are."""
        self._cores = cores
        self._log_directory = log_directory
        self._process: subprocess.Popen[bytes] | None = None
        self._waiter: threading.Thread | None = None
        self._started = 0
        self._log_begin = 0
        """Where in the log the words of the present process begin."""
        self._false_starts = 0
        self._has_joined = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def hopeless(self) -> bool:
        """Whether starting it again is no use."""
        return self._false_starts >= MAX_FALSE_STARTS

    def launch(self) -> None:
        """Start the process, which gets ready and waits to be told of a manager. Raises OSError."""
        self._log_directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", _START, "--embedded", "--log-dir", str(self._log_directory)]
        if self._cores is not None:
            command += ["--cores", f"{self._cores:g}"]
        with open(self._log, "ab") as log:
            self._log_begin = log.tell()
            self._process = start_bound(command, log.fileno())

    def join(self, connection: bytes, on_exit: Callable[[int, str], None]) -> None:
        """Tell the process, launched if it was not, which manager it is for: a line of JSON. ``on_exit(pid,
        how)`` is called from a thread of its own. Raises OSError."""
        if self._process is None:
            self.launch()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        self._started += 1
        with contextlib.suppress(BrokenPipeError):  # it has ended already: the waiter says how
            process.stdin.write(connection + b"\n")
            process.stdin.flush()
        name = f"graphvine-local-worker-{self._started}"
        self._waiter = threading.Thread(target=self._wait, args=(process, on_exit), name=name, daemon=True)
        self._waiter.start()

    @property
    def joining(self) -> bool:
        """Whether the process was told of its manager."""
        return self._process is not None and self._waiter is not None

    def on_joined(self, pid: int) -> None:
        if pid == self.pid:
            self._has_joined = True

    def on_ended(self) -> None:
        """Its end was seen; ``join`` may be called again unless ``hopeless``."""
        self._false_starts = 0 if self._has_joined else self._false_starts + 1
        self._has_joined = False
        if self._process is not None:
            _close_input(self._process)
        self._process = self._waiter = None

    def log_tail(self) -> str:
        """The last lines that the present worker process, or the one that has just ended, wrote."""
        try:
            with open(self._log, "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_begin, size - _LOG_TAIL_BYTES))
                return log.read().decode(errors="replace").strip()
        except OSError as error:
            return f"(no log: {error})"

    def stop(self, grace_s: float) -> None:
        """Close its standard input, wait for it to leave; kill it after ``grace_s``."""
        process, waiter = self._process, self._waiter
        if process is None or process.stdin is None:
            return
        _close_input(process)
        if waiter is None:
            # Launched for a manager that did not come to be: nothing has begun that would have to end well.
            process.kill()
            process.wait()
        else:
            waiter.join(grace_s)
            if waiter.is_alive():
                process.kill()
                waiter.join()
        self._process = self._waiter = None

    @property
    def _log(self) -> Path:
        return self._log_directory / "worker.log"

    def _wait(self, process: subprocess.Popen[bytes], on_exit: Callable[[int, str], None]) -> None:
        code = process.wait()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        on_exit(process.pid, how)


def _close_input(process: subprocess.Popen[bytes]) -> None:
    # What it was told may still be on its way to it, and it gone.
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
