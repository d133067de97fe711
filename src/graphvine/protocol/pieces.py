"""Bytes that go over the manager's own connections, because no direct link can be made.

No I/O here. Whoever needs the bytes asks for them piece by piece (``Pull``), only as fast as it takes them
in, so that the manager between two workers holds little.
"""

from __future__ import annotations

import msgspec
import xxhash

from graphvine.protocol.messages import Piece, Pull

#: What is to be heard in between waits for so much to be encrypted and decrypted: a millisecond each.
PIECE_BYTES = 2**18
#: Pieces of one file that the manager asks for ahead.
PIECES_AHEAD = 16
#: Pieces under way at once on one path (see ``pace``).
MOST_AHEAD = 32


def make_piece(pull: Pull, content: memoryview) -> Piece:
    """The answer to ``pull`` by a holder of the value's (or blob's) ``content``."""
    data = bytes(content[pull.offset : pull.offset + pull.length])
    return piece_of(pull, data, len(content), tree=False)


def piece_of(pull: Pull, data: bytes, total: int, *, tree: bool) -> Piece:
    """The answer to ``pull``: ``data`` of a file of ``total`` bytes."""
    checksum = xxhash.xxh3_64_intdigest(data)
    return Piece(pull.file, pull.offset, total, data, checksum, pull.requester, tree)


def not_held(pull: Pull) -> Piece:
    """The answer when the file is not held (any more)."""
    return Piece(pull.file, pull.offset, -1, b"", 0, pull.requester)


class Damaged(msgspec.Struct):
    """A piece that can't be used; the file must be pulled again, or elsewhere."""

    reason: str


class Assembler:
    """Puts one file of ``size`` bytes together from its pieces: a value in memory (``value``), while what
    comes of a tree is to be taken from here in its order (``take_flat``)."""

    def __init__(self, file: int, size: int, requester: int) -> None:
        self.file = file
        self.size = size
        self.tree = False
        """Known when the first piece came."""
        self.value = memoryview(b"")
        self._requester = requester
        self._asked = 0
        self._missing = size
        self._early: dict[int, bytes] = {}
        """Pieces of a tree that were not taken yet, by offset."""
        self._taken = 0

    @property
    def complete(self) -> bool:
        return self._missing == 0

    def first_pulls(self) -> list[Pull]:
        """What to ask for first; afterwards each piece says what is next."""
        return [pull for _ in range(PIECES_AHEAD) if (pull := self._next()) is not None]

    def on_piece(self, piece: Piece) -> Pull | Damaged | None:
        """Take a piece in. Returns what to ask for next, if anything, or what is wrong."""
        if piece.total != self.size:
            return Damaged("no holder has it any more")
        end = piece.offset + len(piece.data)
        if piece.offset < 0 or end > self.size or not piece.data:
            return Damaged(f"the piece at {piece.offset} lies outside the file")
        if xxhash.xxh3_64_intdigest(piece.data) != piece.checksum:
            return Damaged(f"the piece at {piece.offset} was damaged on its way")
        if self._missing == self.size:
            self.tree = piece.tree
            if not piece.tree:
                self.value = memoryview(bytearray(self.size))
        elif piece.tree != self.tree:
            return Damaged("one piece is of a tree and another of a value")
        if self.tree:
            self._early[piece.offset] = piece.data
        else:
            self.value[piece.offset : end] = piece.data
        self._missing -= len(piece.data)
        return self._next()

    def take_flat(self) -> list[bytes]:
        """The next bytes of a tree, as far as they came without a gap; each once."""
        taken = []
        while (data := self._early.pop(self._taken, None)) is not None:
            taken.append(data)
            self._taken += len(data)
        return taken

    def _next(self) -> Pull | None:
        if self._asked >= self.size:
            return None
        offset = self._asked
        length = min(PIECE_BYTES, self.size - offset)
        self._asked += length
        return Pull(self.file, offset, length, self._requester)
