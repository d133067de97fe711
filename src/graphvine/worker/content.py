"""What a holder sends of a file: a value's bytes, or the flat form of a tree.

Both can be sent in parts, from any byte to any other, and hashed. They hold descriptors: what is dropped
while it is sent stays readable (a tree, as far as its files were opened).
"""

from __future__ import annotations

import mmap
import os
import socket
import stat
from typing import Protocol

import xxhash

from graphvine.protocol.tree_files import Reader
from graphvine.protocol.trees import Entry
from graphvine.worker.spare import SENT_MODE

#: Parts smaller than this are sent together: small packets cost as much as large ones.
_TOGETHER_BYTES = 2**18
_READ_BYTES = 2**20
#: What is read and encrypted at a time: fits the processor's cache.
_ENCRYPTED_BYTES = 2**18


class Content(Protocol):
    """``size``: all of its bytes. ``tree``: whether they are the flat form of one."""

    size: int
    tree: bool

    def send(self, link: socket.socket, begin: int, end: int) -> None:
        """Send bytes ``begin`` to ``end``. Raises OSError (BlockingIOError when nobody takes them)."""
        ...

    def checksum(self) -> int:
        """xxh3_64 of all of it. Raises OSError."""
        ...

    def close(self) -> None: ...


def open_content(path: str) -> Content:
    """What is stored at a path. Raises OSError (FileNotFoundError when nothing is)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    state = os.fstat(descriptor)
    if not stat.S_ISDIR(state.st_mode):
        return ValueContent(descriptor, state.st_size)
    try:
        return TreeContent(Reader(descriptor))
    finally:
        os.close(descriptor)


class ValueContent:
    """An open file. Closes its descriptor."""

    tree = False

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size
        # Its pages may be on their way long after they were sent: they must not be written over.
        os.fchmod(descriptor, SENT_MODE)

    def send(self, link: socket.socket, begin: int, end: int) -> None:
        send_from(link, self._descriptor, begin, end)

    def checksum(self) -> int:
        if not self.size:
            return xxhash.xxh3_64_intdigest(b"")
        with mmap.mmap(self._descriptor, self.size, prot=mmap.PROT_READ) as mapped:
            return xxhash.xxh3_64_intdigest(mapped)

    def close(self) -> None:
        os.close(self._descriptor)


class TreeContent:
    """A stored tree, or one that is arriving. Closes its reader."""

    tree = True

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.size = reader.size

    def send(self, link: socket.socket, begin: int, end: int) -> None:
        small = bytearray(self._reader.head.raw[begin:end])
        for entry, offset, length in self._reader.head.spans(begin, end):
            if length < _TOGETHER_BYTES:
                small += self._read(entry, offset, length)
            if small and (length >= _TOGETHER_BYTES or len(small) >= _TOGETHER_BYTES):
                link.sendall(small)
                small.clear()
            if length >= _TOGETHER_BYTES:
                self._send_file(link, entry, offset, offset + length)
        link.sendall(small)

    def checksum(self) -> int:
        hashed = xxhash.xxh3_64(self._reader.head.raw)
        for entry in self._reader.head.files:
            descriptor = self._reader.open(entry)
            try:
                for offset in range(0, entry.size, _READ_BYTES):
                    hashed.update(os.pread(descriptor, min(_READ_BYTES, entry.size - offset), offset))
            finally:
                os.close(descriptor)
        return hashed.intdigest()

    def close(self) -> None:
        self._reader.close()

    def _read(self, entry: Entry, offset: int, length: int) -> bytes:
        descriptor = self._reader.open(entry)
        try:
            data = os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
        if len(data) != length:
            raise OSError("the file was cut short")
        return data

    def _send_file(self, link: socket.socket, entry: Entry, begin: int, end: int) -> None:
        descriptor = self._reader.open(entry)
        try:
            send_from(link, descriptor, begin, end)
        finally:
            os.close(descriptor)


def send_from(link: socket.socket, descriptor: int, begin: int, end: int) -> None:
    """Send bytes ``begin`` to ``end`` of a file. Raises OSError, BlockingIOError when nobody takes them."""
    if type(link) is not socket.socket:
        encrypt_from(link, descriptor, begin, end)
        return
    while begin < end:
        sent = os.sendfile(link.fileno(), descriptor, begin, end - begin)
        if not sent:
            raise OSError("the file was cut short")
        begin += sent


def encrypt_from(link: socket.socket, descriptor: int, begin: int, end: int) -> None:
    """As ``send_from``, over an encrypted link, so that the bytes have to come here first. Raises OSError."""
    # Read, not mapped: somebody may cut the file short meanwhile.
    part = memoryview(bytearray(min(_ENCRYPTED_BYTES, end - begin)))
    while begin < end:
        count = os.preadv(descriptor, [part[: end - begin]], begin)
        if not count:
            raise OSError("the file was cut short")
        link.sendall(part[:count])
        begin += count
