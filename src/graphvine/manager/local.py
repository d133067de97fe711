"""The embedded worker: a worker process of the manager's own, started when the first work arrives.

It gets the connection on its standard input, and that pipe stays open: when the manager's process ends, in
whatever way, the worker reads the end of it, and leaves. A thread per process waits for its end, so that a
killed worker is known at once and another one takes its place.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from graphvine.protocol.connection import Connection

#: A worker that ends this often in a row without having joined is not started again.
MAX_FALSE_STARTS = 3
_LOG_TAIL_BYTES = 2000
#: Like ``-m graphvine.worker``, but a user's ``queue.py`` in the working directory is not taken for Python's.
_START = "import sys; sys.path.remove(''); from graphvine.worker.__main__ import main; sys.exit(main())"


class LocalWorker:
    """One embedded worker process after another, one at a time."""

    def __init__(
        self,
        connection: Connection,
        cores: float | None,
        log_directory: Path,
        on_exit: Callable[[int, str], None],
    ) -> None:
        """``cores`` None: all there are. ``on_exit(pid, how)`` is called from a thread of its own."""
        self._connection = connection
        self._cores = cores
        self._log_directory = log_directory
        self._on_exit = on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._waiter: threading.Thread | None = None
        self._started = 0
        self._log_begin = 0
        """Where in the log the words of the present process begin."""
        self._false_starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def hopeless(self) -> bool:
        """Whether starting it again is no use."""
        return self._false_starts >= MAX_FALSE_STARTS

    def start(self) -> None:
        """Start the process. Raises OSError."""
        self._started += 1
        self._log_directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", _START, "--embedded", "--log-dir", str(self._log_directory)]
        if self._cores is not None:
            command += ["--cores", f"{self._cores:g}"]
        with open(self._log, "ab") as log:
            self._log_begin = log.tell()
            # A session of its own: Ctrl-C at the user's terminal is for the user's process.
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        assert process.stdin is not None
        self._process = process
        try:
            process.stdin.write(msgspec.json.encode(self._connection) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended already: the waiter says how
        name = f"graphvine-local-worker-{self._started}"
        self._waiter = threading.Thread(target=self._wait, args=(process,), name=name, daemon=True)
        self._waiter.start()

    def on_joined(self, pid: int) -> None:
        if pid == self.pid:
            self._false_starts = 0

    def on_ended(self) -> None:
        """Its end was seen; ``start`` may be called again unless ``hopeless``."""
        self._false_starts += 1
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

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
        if process is None or process.stdin is None or waiter is None:
            return
        process.stdin.close()
        waiter.join(grace_s)
        if waiter.is_alive():
            process.kill()
            waiter.join()
        self._process = None

    @property
    def _log(self) -> Path:
        return self._log_directory / "worker.log"

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        self._on_exit(process.pid, how)


def _environment() -> dict[str, str]:
    """The user's environment, made so that the worker finds this very graphvine."""
    environment = dict(os.environ)
    parent = Path(__file__).resolve().parents[2]
    # Where it is installed the interpreter finds it; named on the path, site-packages would hide the stdlib.
    if parent.name not in ("site-packages", "dist-packages"):
        others = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
        environment["PYTHONPATH"] = os.pathsep.join([*others, str(parent)])
    return environment
