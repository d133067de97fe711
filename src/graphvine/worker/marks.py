"""The small shared page on which an executor marks what it has begun, so that its death can be explained.

The executor writes, the pool reads after the executor is dead.
"""

from __future__ import annotations

import mmap
import os
import struct

#: Packet and task that have begun; NOTHING when between packets.
LAYOUT = struct.Struct("<qq")
NOTHING = -1


def make_page() -> int:
    """A descriptor of a new page, on which nothing has begun."""
    descriptor = os.memfd_create("graphvine-marks", os.MFD_CLOEXEC)
    os.write(descriptor, LAYOUT.pack(NOTHING, NOTHING))
    os.ftruncate(descriptor, mmap.PAGESIZE)
    return descriptor


def map_page(descriptor: int) -> mmap.mmap:
    return mmap.mmap(descriptor, mmap.PAGESIZE)


def read_mark(page: mmap.mmap) -> tuple[int | None, int | None]:
    """Packet and task that had begun and were not finished, or (None, None)."""
    packet, task = LAYOUT.unpack_from(page)
    return (packet, task) if packet != NOTHING else (None, None)
