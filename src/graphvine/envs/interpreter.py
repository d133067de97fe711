"""Asking an environment's own Python: whether it starts, and what it is."""

from __future__ import annotations

import os
import subprocess

import msgspec

from graphvine.envs.errors import NoPythonError, WrongPlatformError
from graphvine.envs.metadata import this_glibc, this_platform

#: A Python that has not said its version after so long hangs. Slow disks take seconds.
_PATIENCE_S = 300.0
_PROBE = (
    "import sys, platform, json\n"
    "kind = f'{sys.platform}-{platform.machine()}'\n"
    "json.dump({'python': platform.python_version(), 'platform': kind}, sys.stdout)"
)


class Interpreter(msgspec.Struct, frozen=True):
    """``python``: its full version."""

    python: str
    platform: str


def clean_environment() -> dict[str, str]:
    """The environment variables without those that would lead a Python astray."""
    led_astray = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONPLATLIBDIR", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in led_astray}


def ask(python: str) -> Interpreter:
    """Start it. Raises NoPythonError, and WrongPlatformError where that is why it does not start."""
    try:
        done = subprocess.run(
            [python, "-I", "-S", "-c", _PROBE],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=clean_environment(),
            timeout=_PATIENCE_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise NoPythonError(
            f"{python} leads to an interpreter (or needs a loader) that is not on this machine: the "
            "environment is not self-contained. Pack it with: graphvine env pack"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unstartable(python, str(error)) from error
    if done.returncode:
        raise _unstartable(python, _last_words(done))
    try:
        return msgspec.json.decode(done.stdout, type=Interpreter)
    except msgspec.DecodeError as error:
        raise _unstartable(python, f"it said {done.stdout[:100]!r}") from error


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    said = done.stderr.decode(errors="replace").strip()
    return said.splitlines()[-1] if said else f"exit code {done.returncode}"


def _unstartable(python: str, why: str) -> NoPythonError | WrongPlatformError:
    if "Exec format error" in why:
        return WrongPlatformError(f"{python} was made for another kind of machine; this is {this_platform()}")
    if "GLIBC_" in why:
        return WrongPlatformError(
            f"{python} needs a newer C library than this machine's {this_glibc()} ({why}); "
            "pack the environment on a machine with an older one"
        )
    return NoPythonError(f"{python} does not start: {why}")
