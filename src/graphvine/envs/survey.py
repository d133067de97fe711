"""Asks an environment's own Python where it lies, where its packages come from, what its bytecode is like.

``_SCRIPT`` runs in that Python, which may be another than ours and know nothing of us: standard library only.
"""

from __future__ import annotations

import os
import subprocess

import msgspec

from graphvine.envs.errors import PackingError
from graphvine.envs.interpreter import clean_environment

_PATIENCE_S = 300.0

_SCRIPT = r"""
import sys
sys.path[:] = [path for path in sys.path if path]
import importlib.util, json, os, platform, site, sysconfig

def editables():
    # Editable installs that are no path: import hooks that map names to where the sources lie.
    found = {}
    for finder in sys.meta_path:
        module = sys.modules.get(getattr(finder, "__module__", None) or type(finder).__module__)
        for name in ("MAPPING", "NAMESPACES"):
            for key, value in (getattr(module, name, None) or {}).items():
                for path in [value] if isinstance(value, str) else value:
                    found.setdefault(key, []).append(path)
        for key, value in (getattr(finder, "known_source_files", None) or {}).items():
            found.setdefault(key, []).append(value)
    return found

user = site.getusersitepackages() if site.ENABLE_USER_SITE else None
paths = sysconfig.get_paths()
json.dump({
    "python": platform.python_version(),
    "platform": f"{sys.platform}-{platform.machine()}",
    "prefix": sys.prefix,
    "base_prefix": sys.base_prefix,
    "executable": os.path.realpath(sys.executable),
    "base_executable": getattr(sys, "_base_executable", None) or sys.executable,
    "standard": sorted({os.path.dirname(os.__file__), paths["stdlib"]}),
    "path": sys.path,
    "site_directories": [
        *site.getsitepackages(), *([user] if user else []), paths["purelib"], paths["platlib"]
    ],
    "editables": editables(),
    "cache_tag": sys.implementation.cache_tag,
    "magic": importlib.util.MAGIC_NUMBER.hex(),
}, sys.stdout)
"""

_PLACES = "import site, sys; print(site.getsitepackages([sys.argv[1]])[0])"


class Survey(msgspec.Struct, frozen=True):
    """``standard``: directories of the standard library. ``path``: its ``sys.path``. ``editables``: names and
    the files or directories that import hooks give them. ``magic``: of its bytecode, in hexadecimal."""

    python: str
    platform: str
    prefix: str
    base_prefix: str
    executable: str
    base_executable: str
    standard: tuple[str, ...]
    path: tuple[str, ...]
    site_directories: tuple[str, ...]
    editables: dict[str, list[str]]
    cache_tag: str
    magic: str


def survey(python: str, *, with_python_path: bool) -> Survey:
    """Ask ``python``. With ``with_python_path`` what PYTHONPATH names counts. Raises PackingError."""
    said = run_in(python, _SCRIPT, with_python_path=with_python_path)
    try:
        return msgspec.json.decode(said, type=Survey)
    except msgspec.DecodeError as error:
        raise PackingError(f"{python} can't be asked about itself: {error}") from error


def run_in(python: str, script: str, *, with_python_path: bool) -> bytes:
    """What a script prints in that Python, with what PYTHONPATH names if that counts. Raises PackingError."""
    environment = clean_environment()
    told = os.environ.get("PYTHONPATH")
    if told and with_python_path:
        parts = [os.path.abspath(part) for part in told.split(os.pathsep) if part]
        environment["PYTHONPATH"] = os.pathsep.join(parts)
    return _run([python, "-c", script], environment)


def site_packages_of(python: str) -> str:
    """Where that interpreter looks for packages below its own prefix, relative to that. (Not every
    distribution's Python looks into ``site-packages``.)"""
    root = "/graphvine-prefix"
    said = _run([python, "-I", "-c", _PLACES, root], clean_environment()).decode().strip()
    return os.path.relpath(said, root)


def _run(command: list[str], environment: dict[str, str]) -> bytes:
    try:
        # In a directory where nothing shadows the standard library.
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackingError(f"{command[0]} does not start: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise PackingError(f"{command[0]} does not start: {said[-500:]}")
    return done.stdout
