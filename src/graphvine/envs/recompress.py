"""An archive as gzip: for nodes that have tar and gzip, and nothing newer.

Done once for each content: the result lies beside the packed archives in the user's cache, under the name
that the content has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from graphvine.envs import packing, writer
from graphvine.envs.stream import Stream

_BLOCK_BYTES = 2**20
_GZIP = b"\x1f\x8b"


def as_gzip(archive: str, progress: Callable[[int, int], None] | None = None) -> str:
    """The path of an archive with the same content that gzip can read: the one that is given, if it can.

    ``progress`` is called with how much of the archive was read, and its size. Raises PackedEnvironmentError,
    OSError."""
    with open(archive, "rb") as file:
        if file.read(len(_GZIP)) == _GZIP:
            return archive
    path = os.path.join(packing.directory(), packing.name_archive(archive).name + writer.SUFFIXES["gz"])
    if not os.path.exists(path):
        size = os.path.getsize(archive)
        with Stream(archive, ahead=True) as stream:
            writer.write_gzip(path, _blocks(stream, lambda done: progress and progress(done, size)))
    os.utime(path)
    return path


def _blocks(stream: Stream, progress: Callable[[int], object]) -> Iterator[bytes]:
    """All of it; an archive that was cut short is found out."""
    while block := stream.read(_BLOCK_BYTES):
        yield block
        progress(stream.read_bytes)
    stream.finish()
