"""Sending one file over a link that has been greeted (see ``protocol.bulk``)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Executor, Future

import xxhash

from graphvine.protocol.bulk import ANSWER, CHECKSUM, NOT_HELD, NOT_YET, NOT_YET_S
from graphvine.worker.arrivals import Arrival, ArrivalFailedError
from graphvine.worker.content import Content, open_content

#: A smaller file is hashed before it is sent, a larger one while it is sent.
_HASH_BESIDE_FROM = 2**20

#: A worker that was named as one that will pass a file on is told so itself within this time.
COMING_S = 10.0

#: A stored file's path, the content itself, or a file that is just arriving. None: not held.
Held = str | bytes | Arrival | None


class Served:
    """What a holder sends: knows its files' checksums, so that each is computed once."""

    def __init__(self, helpers: Executor, remembered: int = 10_000) -> None:
        """``helpers``: threads that hash while the file is being sent."""
        self._helpers = helpers
        self._checksums: dict[int, int] = {}
        self._remembered = remembered

    def answer(
        self,
        link: socket.socket,
        file: int,
        offset: int,
        coming: bool,
        lookup: Callable[[int, float], Held],
    ) -> None:
        """Send a file from byte ``offset``. ``coming``: it may be about to begin to come here. ``lookup``:
        what there is of a file, waiting so long for it. Raises OSError: then the link is of no use."""
        held = lookup(file, 0.0)
        if held is None and coming:
            link.sendall(NOT_YET)
            held = lookup(file, COMING_S)
        if isinstance(held, Arrival):
            content = self._await(link, held)
            if content is not None:
                self._pass_on(link, file, offset, held, content)
                return
            # Perhaps it has got into the store in this moment.
            held = lookup(file, 0.0)
        if isinstance(held, bytes):
            link.sendall(ANSWER.pack(len(held), False) + held[offset:])
            link.sendall(CHECKSUM.pack(xxhash.xxh3_64_intdigest(held)))
        else:
            self._send_stored(link, file, offset, held if isinstance(held, str) else None)

    def _send_stored(self, link: socket.socket, file: int, offset: int, path: str | None) -> None:
        try:
            content = open_content(path) if path is not None else None
        except FileNotFoundError:
            content = None
        if content is None:
            link.sendall(NOT_HELD)
            return
        try:
            self._send_whole(link, file, offset, content)
        finally:
            content.close()

    def _send_whole(self, link: socket.socket, file: int, offset: int, content: Content) -> None:
        checksum = self._checksums.get(file)
        beside: Future[int] | None = None
        if checksum is None:
            if content.size >= _HASH_BESIDE_FROM:
                beside = self._helpers.submit(content.checksum)
            else:
                checksum = content.checksum()
        try:
            link.sendall(ANSWER.pack(content.size, content.tree), socket.MSG_MORE)
            content.send(link, offset, content.size)
        finally:
            # It reads what is about to be closed.
            if beside is not None:
                checksum = beside.result()
        assert checksum is not None
        self._remember(file, checksum)
        link.sendall(CHECKSUM.pack(checksum))

    def _await(self, link: socket.socket, arrival: Arrival) -> Content | None:
        """The content of what begins to arrive; None when it will not."""
        try:
            patience_s = 0.0
            while not arrival.wait_for_begin(patience_s):
                link.sendall(NOT_YET)
                patience_s = NOT_YET_S
            return arrival.open()
        except ArrivalFailedError:
            return None

    def _pass_on(
        self, link: socket.socket, file: int, offset: int, arrival: Arrival, content: Content
    ) -> None:
        """Send what arrives as it arrives."""
        try:
            link.sendall(ANSWER.pack(content.size, content.tree))
            while offset < content.size:
                there = arrival.wait_beyond(offset)
                content.send(link, offset, there)
                offset = there
        finally:
            content.close()
        checksum = arrival.wait_for_checksum()
        self._remember(file, checksum)
        link.sendall(CHECKSUM.pack(checksum))

    def _remember(self, file: int, checksum: int) -> None:
        if len(self._checksums) >= self._remembered:
            self._checksums.clear()
        self._checksums[file] = checksum
