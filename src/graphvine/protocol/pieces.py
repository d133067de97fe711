"""Bytes that go over the manager's own connections, because no direct link can be made.

No I/O here. Whoever needs the bytes asks for them piece by piece (``Pull``), only as fast as it takes them
in, so that the manager between two workers holds nothing.
"""

from __future__ import annotations

import msgspec
import xxhash

from graphvine.protocol.messages import Piece, Pull

PIECE_BYTES = 2**20
#: Pieces asked for ahead: keeps the link busy over a round trip without crowding out control messages.
PIECES_AHEAD = 4


def make_piece(pull: Pull, content: memoryview) -> Piece:
    """The answer to ``pull`` by a holder of the file's ``content``."""
    data = bytes(content[pull.offset : pull.offset + pull.length])
    return Piece(pull.file, pull.offset, len(content), data, xxhash.xxh3_64_intdigest(data), pull.requester)


def not_held(pull: Pull) -> Piece:
    """The answer when the file is not held (any more)."""
    return Piece(pull.file, pull.offset, -1, b"", 0, pull.requester)


class Damaged(msgspec.Struct):
    """A piece that can't be used; the file must be pulled again, or elsewhere."""

    reason: str


class Assembler:
    """Puts one file together from its pieces, in memory given by the caller (``into``: all its bytes)."""

    def __init__(self, file: int, into: memoryview, requester: int) -> None:
        self.file = file
        self.into = into
        self._requester = requester
        self._asked = 0
        self._missing = len(into)

    @property
    def complete(self) -> bool:
        return self._missing == 0

    def first_pulls(self) -> list[Pull]:
        """What to ask for first; afterwards each piece says what is next."""
        return [pull for _ in range(PIECES_AHEAD) if (pull := self._next()) is not None]

    def on_piece(self, piece: Piece) -> Pull | Damaged | None:
        """Take a piece in. Returns what to ask for next, if anything, or what is wrong."""
        if piece.total != len(self.into):
            return Damaged("no holder has it any more")
        end = piece.offset + len(piece.data)
        if piece.offset < 0 or end > len(self.into) or not piece.data:
            return Damaged(f"the piece at {piece.offset} lies outside the file")
        if xxhash.xxh3_64_intdigest(piece.data) != piece.checksum:
            return Damaged(f"the piece at {piece.offset} was damaged on its way")
        self.into[piece.offset : end] = piece.data
        self._missing -= len(piece.data)
        return self._next()

    def _next(self) -> Pull | None:
        if self._asked >= len(self.into):
            return None
        offset = self._asked
        length = min(PIECE_BYTES, len(self.into) - offset)
        self._asked += length
        return Pull(self.file, offset, length, self._requester)
