"""What goes into an archive: files and links with their names there, found by walking directories.

Rules:
- Bytecode that lies around is left out: the archive gets its own (``envs.bytecode``).
- A symbolic link that stays within what is packed is kept; any other becomes what it leads to, so that
  nothing in the archive needs anything outside. One that leads nowhere is left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

import msgspec

#: Directories that nothing needs at work.
NEVER = frozenset(
    {"__pycache__", ".git", ".hg", ".mypy_cache", ".pytest_cache", ".ruff_cache", "node_modules"}
)
_BYTECODE = (".pyc", ".pyo")


class Item(msgspec.Struct):
    """One member. ``source``: the file whose contents it gets, unless there is ``data`` or ``link``."""

    target: str
    source: str = ""
    mode: int = 0o644
    size: int = 0
    mtime_ns: int = 0
    link: str = ""
    data: bytes | None = None


def file_item(path: str, target: str) -> Item:
    """A file, or what a link leads to. Raises OSError."""
    status = os.stat(path)
    return Item(target, path, stat.S_IMODE(status.st_mode), status.st_size, status.st_mtime_ns)


def data_item(target: str, data: bytes, mode: int = 0o644) -> Item:
    return Item(target, mode=mode, size=len(data), data=data)


def link_item(target: str, leads_to: str) -> Item:
    return Item(target, link=leads_to)


Skip = Callable[[str, str], bool]


def walk(root: str, target: str, skip: Skip | None = None) -> Iterator[Item]:
    """All files below a directory. ``skip(directory relative to root, name)`` leaves out. Raises OSError."""
    return _Walk(root, skip or (lambda directory, name: False)).below(root, target, "", ())


class _Walk:
    def __init__(self, root: str, skip: Skip) -> None:
        self._real_root = os.path.realpath(root)
        self._skip = skip

    def below(self, path: str, target: str, inside: str, entered: tuple[str, ...]) -> Iterator[Item]:
        """``entered``: directories that links led to on the way here."""
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if entry.name in NEVER or entry.name.endswith(_BYTECODE) or self._skip(inside, entry.name):
                continue
            below = f"{target}/{entry.name}" if target else entry.name
            deeper = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_symlink():
                yield from self._link(entry, below, deeper, entered)
            elif entry.is_dir():
                yield from self.below(entry.path, below, deeper, entered)
            elif entry.is_file():
                status = entry.stat()
                mode = stat.S_IMODE(status.st_mode)
                yield Item(below, entry.path, mode, status.st_size, status.st_mtime_ns)

    def _link(
        self, entry: os.DirEntry[str], target: str, inside: str, entered: tuple[str, ...]
    ) -> Iterator[Item]:
        real = os.path.realpath(entry.path)
        leads_to = os.readlink(entry.path)
        if not os.path.exists(real):
            return
        if not os.path.isabs(leads_to) and real.startswith(self._real_root + os.sep):
            yield link_item(target, leads_to)
        elif entry.is_file():
            yield file_item(real, target)
        elif entry.is_dir() and not _leads_back(real, entry.path, entered):
            yield from self.below(entry.path, target, inside, (*entered, real))


def _leads_back(real: str, path: str, entered: tuple[str, ...]) -> bool:
    here = os.path.realpath(os.path.dirname(path)) + os.sep
    return real in entered or here.startswith(real + os.sep)
