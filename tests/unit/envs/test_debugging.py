"""Debugging information is left out of compiled code, which loads as before."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path

import msgspec._core
import pytest

from graphvine.envs import elf, libraries
from graphvine.envs.debugging import write_without
from graphvine.envs.items import file_item

EXTENSION = Path(msgspec._core.__file__)
MUCH = 100_000
_SECTION = struct.Struct("<IIQQQQIIQQ")


def with_debugging(path: Path, name: bytes = b".debug_info") -> bytes:
    """A real extension module with one more section, before the names of sections, as linkers have it."""
    data = path.read_bytes()
    (headers,) = struct.unpack_from("<Q", data, 40)
    _, count, names = struct.unpack_from("<HHH", data, 58)
    sections = [list(_SECTION.unpack_from(data, headers + 64 * number)) for number in range(count)]
    table = sections[names]
    texts = data[table[4] : table[4] + table[5]]
    at = len(data)
    sections.append([len(texts), 1, 0, 0, at, MUCH, 0, 0, 1, 0])
    texts += name + b"\0"
    table[4:6] = [at + MUCH, len(texts)]
    body = data + b"d" * MUCH + texts
    body += b"\0" * (-len(body) % 8)
    out = bytearray(body + b"".join(_SECTION.pack(*section) for section in sections))
    struct.pack_into("<Q", out, 40, len(body))
    struct.pack_into("<H", out, 60, count + 1)
    return bytes(out)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    path = tmp_path / "in" / EXTENSION.name
    path.parent.mkdir()
    path.write_bytes(with_debugging(EXTENSION))
    return path


def test_what_is_left_loads_and_says_the_same(built: Path, tmp_path: Path) -> None:
    out = tmp_path / EXTENSION.name
    assert write_without(str(built), str(out))
    assert out.stat().st_size < built.stat().st_size - MUCH + 4096
    assert b"d" * 100 not in out.read_bytes()
    assert elf.read(str(out)) == elf.read(str(EXTENSION))
    spec = importlib.util.spec_from_file_location("msgspec._core", out)
    assert spec is not None
    assert spec.loader is not None
    assert hasattr(importlib.util.module_from_spec(spec), "Struct")
    # Once is enough.
    assert not write_without(str(out), str(tmp_path / "again"))


def test_other_sections_stay(tmp_path: Path) -> None:
    path = tmp_path / "odd.so"
    path.write_bytes(with_debugging(EXTENSION, b".comment2"))
    assert not write_without(str(path), str(tmp_path / "out"))


def test_what_is_laid_out_otherwise_is_left_alone(built: Path, tmp_path: Path) -> None:
    whole = built.read_bytes()
    odd = {
        "something behind it": whole + b"more",
        "cut short": whole[:-100],
        "a header cut short": whole[:40],
        "no such file": b"#!/bin/sh\n",
        "empty": b"",
    }
    # The last segment leads to the end, as where patchelf was at work.
    (programs,) = struct.unpack_from("<Q", whole, 32)
    patched = bytearray(whole)
    struct.pack_into("<Q", patched, programs + 8, len(whole) - 10)
    struct.pack_into("<Q", patched, programs + 32, 10)
    odd["loaded from behind"] = bytes(patched)
    for what, data in odd.items():
        built.write_bytes(data)
        assert not write_without(str(built), str(tmp_path / "out")), what
        assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="ELF")
def test_environments_are_packed_without_it(built: Path, tmp_path: Path) -> None:
    built.chmod(0o755)
    staging = tmp_path / "staging"
    staging.mkdir()
    item = file_item(str(built), "lib/ext.so")
    (packed,) = libraries.bundle([item], "bin/python", str(staging)).items
    assert packed.target == "lib/ext.so"
    assert packed.size < item.size - MUCH + 4096
    assert packed.mode == 0o755
