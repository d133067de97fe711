"""Sending one file over a link that has been greeted (see ``protocol.bulk``)."""

from __future__ import annotations

import mmap
import os
import socket
from concurrent.futures import Executor, Future

import xxhash

from graphvine.protocol.bulk import CHECKSUM, NOT_HELD, SIZE
from graphvine.worker.spare import SENT_MODE

#: A smaller file is hashed before it is sent, a larger one while it is sent.
_HASH_BESIDE_FROM = 2**20


class Served:
    """What a holder sends: knows its files' checksums, so that each is computed once."""

    def __init__(self, helpers: Executor, remembered: int = 10_000) -> None:
        """``helpers``: threads that hash while the file is being sent."""
        self._helpers = helpers
        self._checksums: dict[int, int] = {}
        self._remembered = remembered

    def answer(self, link: socket.socket, file: int, content: str | bytes | None) -> None:
        """Send a file (its path or content; None: not held). Raises OSError: then the link is of no use."""
        if isinstance(content, str):
            try:
                descriptor = os.open(content, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                content = None
            else:
                try:
                    self._send_file(link, file, descriptor)
                finally:
                    os.close(descriptor)
                return
        if content is None:
            link.sendall(SIZE.pack(NOT_HELD))
            return
        checksum = xxhash.xxh3_64_intdigest(content)
        link.sendall(SIZE.pack(len(content)))
        link.sendall(content)
        link.sendall(CHECKSUM.pack(checksum))

    def _send_file(self, link: socket.socket, file: int, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        # Its pages may be on their way long after they were sent: they must not be written over.
        os.fchmod(descriptor, SENT_MODE)
        checksum = self._checksums.get(file)
        beside: Future[int] | None = None
        if checksum is None:
            if size >= _HASH_BESIDE_FROM:
                beside = self._helpers.submit(checksum_of, descriptor, size)
            else:
                checksum = checksum_of(descriptor, size)
        try:
            link.sendall(SIZE.pack(size), socket.MSG_MORE)
            send_from(link, descriptor, size)
        finally:
            # It reads the descriptor, which is about to be closed.
            if beside is not None:
                checksum = beside.result()
        assert checksum is not None
        if len(self._checksums) >= self._remembered:
            self._checksums.clear()
        self._checksums[file] = checksum
        link.sendall(CHECKSUM.pack(checksum))


def send_from(link: socket.socket, descriptor: int, size: int) -> None:
    """Send the first ``size`` bytes of a file. Raises OSError, BlockingIOError when nobody takes them."""
    offset = 0
    while offset < size:
        sent = os.sendfile(link.fileno(), descriptor, offset, size - offset)
        if not sent:
            raise OSError("the file was cut short")
        offset += sent


def checksum_of(descriptor: int, size: int) -> int:
    """xxh3_64 of an open file."""
    if not size:
        return xxhash.xxh3_64_intdigest(b"")
    with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as mapped:
        return xxhash.xxh3_64_intdigest(mapped)
