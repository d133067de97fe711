"""A helper of the agent's that unpacks one environment (see ``unpacking``, which starts it).

Run as ``python -m graphvine.worker.unpacker DESCRIPTOR NAME CACHE``. It ends with the agent.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from graphvine.envs.aliases import known, of_archive
from graphvine.envs.errors import PackedEnvironmentError
from graphvine.envs.interpreter import clean_environment
from graphvine.envs.unpack import Hold, acquire, hold
from graphvine.worker.forking import die_with
from graphvine.worker.unpacking import Absent, Found, FromHelper, Unusable

_MAX_PATH_BYTES = 2**14
#: Activation scripts set variables; one that takes longer waits for something that does not come.
_ACTIVATION_S = 120.0
_ACTIVATE = 'for script in "$@"; do . "$script" >&2; done; env -0'
#: What a shell sets by itself.
_SHELL_VARIABLES = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})


class _Look:
    """One environment, looked for and unpacked."""

    def __init__(self, control: socket.socket, name: str, cache: str) -> None:
        self._control = control
        self._name = name
        self._cache = cache
        self._began = 0.0
        """When something began to be unpacked."""

    def run(self) -> None:
        try:
            self._run()
        except (PackedEnvironmentError, OSError) as error:
            self._say(Unusable(str(error) or type(error).__name__))

    def _run(self) -> None:
        archive = ""
        cache = self._cache or _default_cache()
        name = known(self._name, cache)
        present = hold(name, cache)
        if present is None:
            self._say(Absent())
            archive = os.fsdecode(self._control.recv(_MAX_PATH_BYTES))
            if not archive:
                return
            name = of_archive(archive, self._name, cache)
        held = acquire(archive, name, cache, python=platform.python_version(), progress=self._on_progress)
        unpacked_s = time.monotonic() - self._began if self._began else -1.0
        self._say(Found(held.prefix, unpacked_s, activation_variables(held.prefix)), held)
        if present is not None:
            present.close()

    def _on_progress(self, *_: int) -> None:
        # Not called by one that waits while somebody else unpacks.
        if not self._began:
            self._began = time.monotonic()

    def _say(self, message: FromHelper, held: Hold | None = None) -> None:
        descriptors = [held.fileno()] if held is not None else []
        socket.send_fds(self._control, [msgspec.msgpack.encode(message)], descriptors)


def activation_variables(prefix: str) -> dict[str, str]:
    """What the activation scripts of a conda environment set (ROOT has one, say)."""
    scripts = sorted(str(path) for path in Path(prefix, "etc/conda/activate.d").glob("*.sh"))
    if not scripts:
        return {}
    before = clean_environment() | {
        "CONDA_PREFIX": prefix,
        "PATH": os.pathsep.join([f"{prefix}/bin", os.environ.get("PATH", os.defpath)]),
    }
    try:
        done = subprocess.run(
            ["bash", "-c", _ACTIVATE, "bash", *scripts],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=before,
            timeout=_ACTIVATION_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"graphvine: {prefix} is used without its activation scripts: {error}", file=sys.stderr)
        return {}
    after = dict(entry.split("=", 1) for entry in os.fsdecode(done.stdout).split("\0") if "=" in entry)
    return {
        name: value
        for name, value in after.items()
        if before.get(name) != value and name not in _SHELL_VARIABLES
    }


def _default_cache() -> str:
    from graphvine.envs import cache

    return os.path.abspath(cache.default_directory())


def main() -> None:
    die_with(os.getppid())
    control = socket.socket(fileno=int(sys.argv[1]))
    with control:
        _Look(control, sys.argv[2], sys.argv[3]).run()


if __name__ == "__main__":
    main()
