"""Frames decode to what was said, and nothing else decodes at all."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphvine.protocol.codec import (
    FRAME_BYTES,
    ProtocolError,
    decode_to_manager,
    decode_to_worker,
    encode,
    encode_frames,
    portions,
)
from graphvine.protocol.messages import (
    Assign,
    BlobData,
    Drop,
    Heartbeat,
    Piece,
    Report,
    Resources,
    Source,
    TaskDone,
    TaskOrder,
)


def test_a_batch_for_a_worker_comes_back() -> None:
    batch = [
        Assign(
            [TaskOrder(5, 9, 0, [1, 2], 3, 1)],
            blobs=[BlobData(9, 0, b"payload")],
            values={1: b"one"},
            sources=[Source(2, 10**6, [4])],
            requests={5: Resources(2.0, 1000.0)},
        ),
        Drop([1, 2, 3]),
    ]
    assert decode_to_worker(encode(batch)) == batch


def test_a_batch_for_the_manager_comes_back() -> None:
    batch = [Report(done=[TaskDone(1, 4, b"four", 1e9, 0.5)], lost=[3]), Heartbeat(1, 10.0, 0.0)]
    assert decode_to_manager(encode(batch)) == batch


def test_each_side_refuses_the_messages_of_its_own_kind() -> None:
    with pytest.raises(ProtocolError):
        decode_to_manager(encode([Drop([1])]))
    with pytest.raises(ProtocolError):
        decode_to_worker(encode([Heartbeat(0, 0.0, 0.0)]))


def test_another_version_is_named() -> None:
    frame = bytes([7]) + encode([Drop([])])[1:]
    with pytest.raises(ProtocolError, match=r"version 7.*version 1"):
        decode_to_worker(frame)


@given(st.binary(max_size=300))
def test_rubbish_never_does_more_than_raise(rubbish: bytes) -> None:
    for decode in (decode_to_worker, decode_to_manager):
        try:
            batch = decode(b"\x01" + rubbish)
        except ProtocolError:
            continue
        assert all(isinstance(message, msgspec.Struct) for message in batch)


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="empty"):
        decode_to_manager(b"")


def test_a_large_batch_is_several_frames() -> None:
    batch = [Piece(1, 0, FRAME_BYTES, bytes(FRAME_BYTES // 3), 0, 2) for _ in range(4)]
    assert len(encode_frames(batch[:2])) == 1
    frames = encode_frames(batch)
    assert [message for frame in frames for message in decode_to_manager(frame)] == batch
    assert max(map(len, frames)) < FRAME_BYTES


def test_portions_are_in_order_and_hold_what_one_alone_is_too_large_for() -> None:
    rows = [FRAME_BYTES, 1, FRAME_BYTES - 1, 1, 2 * FRAME_BYTES, 1]
    found = list(portions(rows, int))
    assert found == [[FRAME_BYTES], [1, FRAME_BYTES - 1], [1], [2 * FRAME_BYTES], [1]]
    assert list(portions([], int)) == []
