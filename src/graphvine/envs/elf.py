"""What a shared library or program says of itself: which libraries it needs, where it looks for them.

Read straight from the file (ELF, 64 bits, little-endian: all that wheels are made for), so that thousands of
them take no second. Which file a name leads to is the loader's business: ``resolve`` asks it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import struct
import subprocess

import msgspec

from graphvine.envs.metadata import numbers

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RUNPATH = 1, 5, 14, 29
_DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
_RESOLVED = re.compile(r"\s*(?P<name>\S+) => (?P<path>/\S+)")


class Elf(msgspec.Struct, frozen=True):
    """``needed``: names of libraries. ``runpath``: DT_RUNPATH, which makes the loader ignore the paths of
    whatever loaded this file. ``glibc``: the newest glibc version it asks for, "" for none."""

    needed: tuple[str, ...] = ()
    soname: str = ""
    runpath: str = ""
    glibc: str = ""


def read(path: str) -> Elf | None:
    """None for whatever is no such file. Raises OSError."""
    with open(path, "rb") as file:
        if file.read(6) != b"\x7fELF\x02\x01":
            return None
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with data, contextlib.suppress(struct.error, IndexError, ValueError):
        return _Reader(data).read()
    return None


def resolve(path: str) -> dict[str, str]:
    """Names of libraries and the files that the loader takes for them, as things are here and now."""
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(["ldd", path], capture_output=True, text=True, env=environment, check=False)
    found = (_RESOLVED.match(line) for line in done.stdout.splitlines())
    return {match["name"]: match["path"] for match in found if match}


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._loads: list[tuple[int, int, int]] = []
        self._dynamic: list[tuple[int, int]] = []
        self._read_headers()
        self._strings = next((value for tag, value in self._dynamic if tag == _DT_STRTAB), 0)

    def read(self) -> Elf:
        texts = {tag: self._string(value) for tag, value in self._dynamic if tag in (_DT_SONAME, _DT_RUNPATH)}
        return Elf(
            needed=tuple(self._string(value) for tag, value in self._dynamic if tag == _DT_NEEDED),
            soname=texts.get(_DT_SONAME, ""),
            runpath=texts.get(_DT_RUNPATH, ""),
            glibc=self._newest_glibc(),
        )

    def _read_headers(self) -> None:
        (at,) = struct.unpack_from("<Q", self._data, 32)
        size, count = struct.unpack_from("<HH", self._data, 54)
        for header in range(at, at + size * count, size):
            kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", self._data, header)
            if kind == _PT_LOAD:
                self._loads.append((address, offset, length))
            elif kind == _PT_DYNAMIC:
                entries = struct.iter_unpack("<qQ", self._data[offset : offset + length // 16 * 16])
                self._dynamic = [(tag, value) for tag, value in entries if tag]

    def _offset(self, address: int) -> int:
        for start, offset, length in self._loads:
            if start <= address < start + length:
                return address - start + offset
        raise ValueError(address)

    def _string(self, index: int) -> str:
        at = self._offset(self._strings + index)
        return self._data[at : self._data.find(b"\0", at)].decode(errors="replace")

    def _newest_glibc(self) -> str:
        table = dict(self._dynamic)
        if _DT_VERNEED not in table:
            return ""
        found = [""]
        at = self._offset(table[_DT_VERNEED])
        for _ in range(table.get(_DT_VERNEEDNUM, 0)):
            _, count, _, entry, after = struct.unpack_from("<HHIII", self._data, at)
            entry += at
            for _ in range(count):
                _, _, _, name, next_entry = struct.unpack_from("<IHHII", self._data, entry)
                version = self._string(name)
                if version.startswith("GLIBC_2"):
                    found.append(version.removeprefix("GLIBC_"))
                entry += next_entry
            at += after
        return max(found, key=numbers)
