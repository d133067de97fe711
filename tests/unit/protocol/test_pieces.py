"""Files put together from pieces."""

from __future__ import annotations

import os
from collections import deque

import pytest

from graphvine.protocol.messages import Piece, Pull
from graphvine.protocol.pieces import (
    PIECE_BYTES,
    PIECES_AHEAD,
    Assembler,
    Damaged,
    make_piece,
    not_held,
    piece_of,
)


def bring(content: bytes) -> bytes:
    """Pull all of ``content``, never more than the agreed number of pieces ahead."""
    assembler = Assembler(7, len(content), requester=3)
    asked = deque(assembler.first_pulls())
    while asked:
        assert len(asked) <= PIECES_AHEAD
        pull = asked.popleft()
        following = assembler.on_piece(make_piece(pull, memoryview(content)))
        if following is not None:
            assert isinstance(following, Pull)
            asked.append(following)
    assert assembler.complete
    assert not assembler.tree
    return bytes(assembler.value)


@pytest.mark.parametrize("size", [1, 100, PIECE_BYTES, PIECE_BYTES + 1, 6 * PIECE_BYTES + 5])
def test_a_file_arrives_whole(size: int) -> None:
    content = os.urandom(size)
    assert bring(content) == content


def test_a_tree_is_handed_out_in_order_whatever_order_it_came_in() -> None:
    content = os.urandom(3 * PIECE_BYTES + 5)
    assembler = Assembler(7, len(content), requester=3)
    taken = b""
    pulls = assembler.first_pulls()
    for number in (1, 0, 3, 2):
        pull = pulls[number]
        data = content[pull.offset : pull.offset + pull.length]
        assert assembler.on_piece(piece_of(pull, data, len(content), tree=True)) is None
        taken += b"".join(assembler.take_flat())
        if number == 1:
            assert taken == b""
    assert assembler.tree
    assert assembler.complete
    assert taken == content


def test_a_value_does_not_go_on_as_a_tree() -> None:
    assembler = Assembler(7, PIECE_BYTES + 1, requester=3)
    first, second = assembler.first_pulls()
    assembler.on_piece(piece_of(first, bytes(PIECE_BYTES), PIECE_BYTES + 1, tree=False))
    assert isinstance(assembler.on_piece(piece_of(second, b"x", PIECE_BYTES + 1, tree=True)), Damaged)


def test_damage_absence_and_strange_offsets_are_found_out() -> None:
    content = os.urandom(1000)
    assembler = Assembler(7, 1000, requester=3)
    (pull,) = assembler.first_pulls()
    good = make_piece(pull, memoryview(content))
    flipped = bytes([good.data[0] ^ 1]) + good.data[1:]
    for bad in (
        Piece(7, 0, 1000, flipped, good.checksum, 3),
        Piece(7, 1, 1000, good.data, good.checksum, 3),
        Piece(7, -5, 1000, good.data, good.checksum, 3),
        not_held(pull),
    ):
        assert isinstance(assembler.on_piece(bad), Damaged)
        assert not assembler.complete
