"""Archives that others made (conda-pack, poncho, tar): what is in them, told by the names of files."""

from __future__ import annotations

import re

from graphvine.envs.extract import members
from graphvine.envs.metadata import Metadata
from graphvine.envs.stream import Stream

_CONDA = re.compile(r"(?:[^/]+/)?conda-meta/(?P<name>.+)-(?P<version>[^-/]+)-[^-/]+\.json")
_DIST = re.compile(r".*/site-packages/(?P<name>[^/]+)-(?P<version>[^-/]+)\.dist-info/METADATA")
_PYTHON = re.compile(r"(?:[^/]+/)?lib/python(?P<version>3\.\d+)/os\.py")


def look_through(stream: Stream) -> Metadata:
    """Read all of an archive. The Python's patch level is known where conda put it there. Raises
    DamagedArchiveError."""
    packages: dict[str, str] = {}
    python, kind, total, files = "", "unknown", 0, 0
    for _, member in members(stream):
        if not member.isfile():
            continue
        files += 1
        total += member.size
        name = member.name.removeprefix("./")
        if found := _CONDA.fullmatch(name):
            kind = "conda"
            if found["name"] == "python":
                python = found["version"]
        if found := (found or _DIST.fullmatch(name)):
            packages.setdefault(normalized(found["name"]), found["version"])
        elif found := _PYTHON.fullmatch(name):
            python = python or found["version"]
    return Metadata(
        kind=kind, python=python, packages=tuple(sorted(packages.items())), unpacked_bytes=total, files=files
    )


def normalized(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
