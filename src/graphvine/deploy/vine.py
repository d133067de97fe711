"""TaskVine's ``Factory``: a factory process, steered by attributes of an object.

    workers = vine.Factory("condor", manager_name="barney")
    workers.cores, workers.memory, workers.max_workers = 4, 8000, 50
    with workers:
        ...

Attributes are the options of ``graphvine factory``. They lie in its configuration file, so those that are
changed while it runs count from then on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

from graphvine.deploy.errors import DeployError
from graphvine.deploy.factory import system_for
from graphvine.deploy.factory_options import ACCEPTED, FactoryOptions, make_options, option_name
from graphvine.protocol.connection import connection_files, read_connection
from graphvine.protocol.directories import OwnedDirectory, sweep
from graphvine.protocol.interpreter import calling, start_bound

_START = calling("graphvine.cli", "main")
#: How long a factory that was told to end may take to cancel its jobs.
_STOP_S = 120.0
_FIELDS = frozenset(FactoryOptions.__struct_fields__)
_OWN = frozenset({"_options", "_process", "_directory", "_finalizer", "_log_file"})


class Factory:
    """Keeps workers for a manager, from ``start`` to ``stop``; a context manager."""

    def __init__(
        self,
        batch_type: str = "local",
        manager: Any = None,
        manager_host_port: str | None = None,
        manager_name: str | None = None,
        factory_binary: str | None = None,
        worker_binary: str | None = None,
        log_file: str | os.PathLike[str] | None = None,
    ) -> None:
        """``batch_type``: "local", "condor", "slurm", or a template ("pbs", "lsf", "sge", ...). For one of
        ``manager`` (or its name), ``manager_host_port`` (of this user, on this machine) and ``manager_name``
        (perhaps a regular expression). ``log_file``: what the factory says; without one only its warnings, on
        standard error. ``factory_binary``, ``worker_binary``: nothing to do. Raises ValueError, TypeError."""
        self._options: dict[str, Any] = {"batch_type": batch_type}
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: OwnedDirectory | None = None
        self._finalizer: weakref.finalize[Any, Factory] | None = None
        self._log_file = log_file
        if isinstance(manager, str) and manager_name is None:
            # As TaskVine's manual has it: Factory("condor", "barney").
            manager, manager_name = None, manager
        named = [manager is not None, manager_host_port is not None, manager_name is not None]
        if sum(named) != 1:
            raise ValueError("give one of manager, manager_host_port and manager_name")
        if manager_name is not None:
            self._options["manager_name"] = manager_name
        elif manager is not None:
            if not hasattr(manager, "connection_file"):
                raise TypeError(f"manager={manager!r}: give a manager, or its name")
            self._options["connection_file"] = str(manager.connection_file)
        else:
            self._options["connection_file"] = str(_file_of_port(str(manager_host_port)))

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an option. Raises AttributeError, DeployError."""
        if name in _OWN:
            object.__setattr__(self, name, value)
            return
        key = option_name(name)
        if key not in _FIELDS | ACCEPTED:
            raise AttributeError(f"{name} is no option of a factory; there are: {', '.join(sorted(_FIELDS))}")
        before = dict(self._options)
        self._options[key] = value
        try:
            make_options(self._options)
        except DeployError:
            object.__setattr__(self, "_options", before)
            raise
        if self._process is not None:
            self._write()

    def __getattr__(self, name: str) -> Any:
        """An option that was set, or its default. Raises AttributeError."""
        key = option_name(name)
        if name.startswith("_") or key not in _FIELDS | ACCEPTED:
            raise AttributeError(f"{name} is no option of a factory")
        return self._options.get(key, getattr(make_options(self._options), key, None))

    def start(self) -> Factory:
        """Start it, if it does not run already. Raises DeployError."""
        if self._process is not None:
            return self
        system_for(make_options(self._options))  # what is wrong is said here, not by another process
        sweep(tempfile.gettempdir())
        self._directory = OwnedDirectory(tempfile.gettempdir())
        self._write()
        command = [sys.executable, "-c", _START, "factory", "--lifeline", "--config", str(self._config)]
        if self._log_file is None:
            self._process = start_bound([*command, "--quiet"], None)
        else:
            with open(self._log_file, "ab") as log:
                self._process = start_bound(command, log.fileno())
        self._finalizer = weakref.finalize(self, _stop, self._process, self._directory, os.getpid())
        return self

    def stop(self) -> None:
        """End it, with all its jobs, if it runs."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._directory = self._finalizer = None

    def __enter__(self) -> Factory:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _config(self) -> Path:
        assert self._directory is not None
        return Path(self._directory.path) / "config.json"

    def _write(self) -> None:
        """The configuration file, whole at any time."""
        scratch = self._config.with_suffix(".new")
        scratch.write_text(json.dumps(self._options), encoding="utf-8")
        scratch.replace(self._config)


def _stop(process: subprocess.Popen[bytes], directory: OwnedDirectory, pid: int) -> None:
    if os.getpid() != pid:
        return  # a forked child: the factory is its parent's
    assert process.stdin is not None
    process.stdin.close()
    # One that packs an environment does not look at its input yet.
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    directory.remove()


def _file_of_port(address: str) -> Path:
    """The connection file of this user's manager at ``host:port``. Raises ValueError."""
    port = address.rpartition(":")[2]
    for path in connection_files():
        if str(read_connection(path).port) == port:
            return path
    raise ValueError(f"manager_host_port={address!r}: no manager of yours listens on that port here")
