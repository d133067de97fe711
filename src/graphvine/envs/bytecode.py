"""Bytecode for every source in an archive, such that it stays valid wherever it is unpacked.

- Python takes bytecode of the usual kind for stale when the source's time differs; ours has the kind that is
  not compared with its source at all (unchecked hash), and thereby no import has to look at the source.
- What is there and up to date is used, under another header. The rest is compiled by the environment's own
  Python, in as many processes as there are cores; sources that don't compile go without.
"""

from __future__ import annotations

import _imp
import contextlib
import os
import struct
import subprocess
from collections.abc import Callable

import msgspec

from graphvine.envs.interpreter import clean_environment
from graphvine.envs.items import Item, file_item
from graphvine.envs.survey import Survey

HEADER_BYTES = 16
_UNCHECKED = 0b01
_SCRIPT = r"""
import json, py_compile, sys
for source, output, shown in json.load(sys.stdin):
    try:
        py_compile.compile(
            source, output, shown, doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    except (py_compile.PyCompileError, ValueError, OSError, RecursionError, MemoryError):
        pass
    print(flush=True)
"""


class Reused(msgspec.Struct):
    """Bytecode that is there: written anew with another header. ``source``: what it was compiled from."""

    path: str
    source: str


class Bytecode(msgspec.Struct):
    """``items``: one per bytecode file; those in ``reused`` (by target) need another header."""

    items: list[Item]
    reused: dict[str, Reused]


def bytecode_for(
    items: list[Item], survey: Survey, staging: str, progress: Callable[[int, int], None] | None = None
) -> Bytecode:
    """Bytecode files for all sources among ``items``; new ones are written to ``staging``."""
    made = Bytecode([], {})
    missing: list[Item] = []
    for item in items:
        if not item.target.endswith(".py") or not item.source:
            continue
        cached = _cached(item.source, survey.cache_tag)
        if _is_valid(cached, item, bytes.fromhex(survey.magic)):
            status = os.stat(cached)
            target = _cached(item.target, survey.cache_tag)
            made.items.append(Item(target, cached, 0o644, status.st_size, status.st_mtime_ns))
            made.reused[target] = Reused(cached, item.source)
        else:
            missing.append(item)
    outputs = _compile(missing, survey, staging, progress)
    for item, output in zip(missing, outputs, strict=True):
        if os.path.exists(output):
            compiled = file_item(output, _cached(item.target, survey.cache_tag))
            compiled.mode = 0o644
            made.items.append(compiled)
    return made


def with_unchecked_header(reused: Reused, magic: str) -> bytes:
    """The bytecode under a header of the unchecked kind. Raises OSError."""
    with open(reused.path, "rb") as file:
        code = file.read()
    with open(reused.source, "rb") as file:
        source = file.read()
    raw = bytes.fromhex(magic)
    digest = _imp.source_hash(int.from_bytes(raw, "little"), source)
    return raw + struct.pack("<I", _UNCHECKED) + digest + code[HEADER_BYTES:]


def _cached(path: str, tag: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, "__pycache__", f"{name[:-3]}.{tag}.pyc")


def _is_valid(path: str, source: Item, magic: bytes) -> bool:
    """Whether Python itself would take it for up to date, by time and size."""
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError:
        return False
    if len(header) < HEADER_BYTES or header[:4] != magic:
        return False
    flags, mtime, size = struct.unpack("<III", header[4:])
    seconds = source.mtime_ns // 10**9
    return bool(flags == 0 and mtime == seconds & 0xFFFFFFFF and size == source.size & 0xFFFFFFFF)


def _compile(
    missing: list[Item], survey: Survey, staging: str, progress: Callable[[int, int], None] | None
) -> list[str]:
    outputs = [os.path.join(staging, f"{number}.pyc") for number in range(len(missing))]
    if not missing:
        return outputs
    # What a traceback shows is set by the importer; this only must not name this machine's directories.
    orders = [
        (os.path.abspath(item.source), output, item.target)
        for item, output in zip(missing, outputs, strict=True)
    ]
    count = min(len(os.sched_getaffinity(0)), 1 + len(missing) // 50)
    with contextlib.ExitStack() as stack:
        compilers = [
            stack.enter_context(
                subprocess.Popen(
                    [survey.executable, "-I", "-S", "-W", "ignore", "-c", _SCRIPT],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=clean_environment(),
                    cwd="/",
                )
            )
            for _ in range(count)
        ]
        for number, compiler in enumerate(compilers):
            assert compiler.stdin is not None
            compiler.stdin.write(msgspec.json.encode(orders[number::count]))
            compiler.stdin.close()
        _follow(compilers, len(missing), progress)
    return outputs


def _follow(
    compilers: list[subprocess.Popen[bytes]], total: int, progress: Callable[[int, int], None] | None
) -> None:
    """One line comes for each file."""
    done = 0
    for compiler in compilers:
        assert compiler.stdout is not None
        for _ in compiler.stdout:
            done += 1
            if progress is not None:
                progress(done, total)
