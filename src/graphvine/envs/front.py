"""The front of an archive: the few files from which a worker starts, while the rest is still being unpacked.

- What a worker imports until it is connected, and for all that it does itself, is asked of the environment's
  own Python when it is packed (``files``). It is a tenth of the files of an environment, or less; tasks, and
  whatever else is the user's, need the rest.
- In a gzip archive these files come first, behind the description, and both are gzip members of their own
  (``envs.writer``). So ``end_of`` tells at which byte the front ends: what comes before is a tar.gz of its
  own, and so is what comes after. Tools that know nothing of this see one archive like any other.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterable

import msgspec

from graphvine.envs.errors import PackedEnvironmentError
from graphvine.envs.items import Item
from graphvine.envs.metadata import MEMBER, decode
from graphvine.envs.survey import Survey, run_in

_GZIP = b"\x1f\x8b\x08"
_READ_BYTES = 2**16
#: A description is not larger.
_MAX_BYTES = 2**23
_GZIP_STREAM = 31

#: ``warm_up`` and the modules themselves, with what they import only when they need it.
_SCRIPT = r"""
import sys
sys.path[:] = [path for path in sys.path if path]
import importlib, json, os, pkgutil

def load(name):
    try:
        return importlib.import_module(name)
    except Exception:
        return None

# Of this version: others know nothing of it.
found = []
several = load("graphvine.worker.several")
if several and load("graphvine.worker.rest"):
    several.warm_up()
    for package in ("graphvine.worker", "graphvine.protocol"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name not in ("boot", "unpacker"):
                load(f"{package}.{module.name}")
    for name in (
        "concurrent.futures.thread", "difflib", "encodings.ascii", "encodings.idna", "encodings.latin_1",
        "gzip", "linecache", "locale", "logging.handlers", "psutil", "queue", "runpy", "shutil", "ssl",
        "stringprep", "tempfile", "tokenize", "traceback", "zipfile",
    ):
        load(name)
    found = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    with open("/proc/self/maps") as maps:
        found += [line.split(None, 5)[5].strip() for line in maps if "/" in line]
print()
json.dump(sorted({os.path.realpath(path) for path in found if path}), sys.stdout)
"""


def files(python: str, survey: Survey, items: Iterable[Item], *, with_python_path: bool) -> set[str]:
    """Targets of those of ``items``, and of their bytecode, from which a worker starts; none where
    there is no graphvine. ``python``: of the environment. Raises PackingError."""
    said = run_in(python, _SCRIPT, with_python_path=with_python_path)
    needed = set(msgspec.json.decode(said.rpartition(b"\n")[2], type=list[str]))
    if not needed:
        return set()
    names = {os.path.basename(path) for path in needed}
    found = set()
    for item in items:
        if os.path.basename(item.source) in names and os.path.realpath(item.source) in needed:
            found.add(item.target)
            directory, name = os.path.split(item.target)
            if name.endswith(".py"):
                found.add(f"{directory}/__pycache__/{name[:-3]}.{survey.cache_tag}.pyc")
    return found


def belongs(item: Item, front: set[str]) -> bool:
    """Whether an item is one of them, or goes with them: the interpreter, its libraries, and what Python
    looks for when it starts."""
    if not front or item.target in front:
        return bool(front)
    directory, name = os.path.split(item.target)
    if directory == "bin":
        return name.startswith("python")
    if directory == "lib":
        return ".so" in name
    return name.endswith(".pth") or name in (
        "sitecustomize.py",
        "usercustomize.py",
        "_graphvine_certificates.py",
    )


def end_of(path: str) -> int:
    """How many bytes of an archive its front takes, with all before it; 0 if it has none. Raises OSError."""
    with open(path, "rb") as file:
        inflate = zlib.decompressobj(_GZIP_STREAM)
        data = b""
        while not inflate.eof and len(data) < _MAX_BYTES:
            block = file.read(_READ_BYTES)
            if not block:
                return 0
            try:
                data += inflate.decompress(block)
            except zlib.error:
                return 0
        size = _front_bytes(data) if inflate.eof else 0
        end = file.tell() - len(inflate.unused_data) + size
        file.seek(end)
        # Somebody may have compressed it once more, in another way.
        return end if size and file.read(len(_GZIP)) == _GZIP else 0


def _front_bytes(data: bytes) -> int:
    """What a description says of it, if ``data`` is that member and nothing else."""
    try:
        member = tarfile.TarInfo.frombuf(data[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
        if member.name != MEMBER or len(data) != tarfile.BLOCKSIZE + -(-member.size // 512) * 512:
            return 0
        return decode(data[tarfile.BLOCKSIZE :][: member.size]).front_bytes
    except (tarfile.TarError, ValueError, PackedEnvironmentError):
        return 0
