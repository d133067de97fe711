"""Compiled code without what only a debugger reads: a third of an environment, as many wheels come with it.

A copy is written in which the sections ``.debug_*`` are empty. Nothing that is ever loaded changes, nor its
place, and the names of functions stay, for profilers and for traces of crashes. Whatever is not laid out as
linkers do (program first, then the rest, and nothing behind that) is left as it is.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from typing import BinaryIO

_LOADED = 2  # SHF_ALLOC
_NULL, _NOBITS = 0, 8  # SHT_*
#: Below this a copy is not worth it.
_LEAST_BYTES = 16 * 1024
_HEADER = struct.Struct("<IIQQQQIIQQ")
_DEBUGGING = (b".debug_", b".zdebug_")


def write_without(path: str, output: str) -> bool:
    """Write a copy to ``output`` unless there is next to nothing to leave out, or the file is no such file.
    Returns whether there is one. Raises OSError."""
    with open(path, "rb") as file:
        if file.read(6) != b"\x7fELF\x02\x01":
            return False
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with data, contextlib.suppress(struct.error, IndexError, ValueError):
        found = _Sections(data)
        if found.saved_bytes() < _LEAST_BYTES or not found.are_in_order():
            return False
        with open(output, "wb") as target:
            found.write(target)
        return True
    return False


class _Section:
    def __init__(self, data: mmap.mmap, at: int) -> None:
        fields: tuple[int, ...] = _HEADER.unpack_from(data, at)
        self.name, self.kind, self.flags, self.address, self.offset, self.size = fields[:6]
        self.alignment = fields[8]
        self._link, self._info, self._entry = fields[6], fields[7], fields[9]
        self.is_debugging = False

    @property
    def is_loaded(self) -> bool:
        return bool(self.flags & _LOADED)

    @property
    def end(self) -> int:
        """Of what it takes of the file."""
        return self.offset + (0 if self.kind in (_NULL, _NOBITS) else self.size)

    def packed(self) -> bytes:
        place = (self.name, self.kind, self.flags, self.address, self.offset, self.size)
        return _HEADER.pack(*place, self._link, self._info, self.alignment, self._entry)


class _Sections:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        programs: int
        self._headers: int
        programs, self._headers = struct.unpack_from("<QQ", data, 32)
        program_size, program_count, size, count, names = struct.unpack_from("<HHHHH", data, 54)
        if size != _HEADER.size:
            raise ValueError("other headers than are known")
        self._all = [_Section(data, self._headers + number * size) for number in range(count)]
        table = self._all[names]
        for section in self._all:
            name = data[table.offset + section.name : table.offset + section.name + 8]
            section.is_debugging = name.startswith(_DEBUGGING) and not section.is_loaded
        self._begin = max([64, programs + program_size * program_count, *self._ends(programs, program_count)])
        """Where that ends which is loaded."""
        self._headers_end = self._headers + size * count

    def _ends(self, at: int, count: int) -> list[int]:
        segments = (struct.unpack_from("<IIQQQQ", self._data, at + 56 * number) for number in range(count))
        loaded = [section.end for section in self._all if section.is_loaded]
        return [offset + length for _, _, offset, _, _, length in segments] + loaded

    def saved_bytes(self) -> int:
        return sum(section.end - section.offset for section in self._all if section.is_debugging)

    def are_in_order(self) -> bool:
        """Whether all that is not loaded lies behind what is, and nothing unknown behind that."""
        last: int = max([self._headers_end, self._begin, *(section.end for section in self._all)])
        begins: list[int] = [self._headers, *(section.offset for section in self._moved())]
        return last == len(self._data) and min(begins) >= self._begin

    def _moved(self) -> list[_Section]:
        """Sections with contents behind what is loaded, in order."""
        found = [one for one in self._all if not one.is_loaded and one.kind not in (_NULL, _NOBITS)]
        return sorted(found, key=lambda one: one.offset)

    def write(self, file: BinaryIO) -> None:
        file.write(self._data[: self._begin])
        for section in self._moved():
            _pad(file, section.alignment)
            content = self._data[section.offset : section.end]
            section.offset = file.tell()
            if section.is_debugging:
                section.size = section.flags = 0
            else:
                file.write(content)
        _pad(file, 8)
        headers = file.tell()
        for section in self._all:
            file.write(section.packed())
        file.seek(40)
        file.write(struct.pack("<Q", headers))
        file.seek(0, os.SEEK_END)


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(b"\0" * (-file.tell() % max(1, alignment)))
