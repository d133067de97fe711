"""Batches of messages to frames of bytes, and back, checked.

A frame is one byte (the protocol version) and a msgpack list of messages. Whatever does not decode to the
messages expected from that side raises ``ProtocolError`` and has no other effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

import msgspec

from graphvine.protocol.messages import PROTOCOL_VERSION, ToFactory, ToManager, ToWorker

#: Senders cut their batches so that frames stay below this: large ones would keep others waiting.
FRAME_BYTES = 16 * 2**20

#: What a manager sends may be longer: the modules or the set-up of a context go in one piece.
MAX_FRAME_BYTES = 256 * 2**20

#: No honest batch of a worker is longer: its longest piece is an exception (see ``worker.failures``).
MAX_TO_MANAGER_BYTES = 2 * FRAME_BYTES

Row = TypeVar("Row")

_VERSION = bytes([PROTOCOL_VERSION])
_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(list[ToWorker])
_to_factory = msgspec.msgpack.Decoder(list[ToFactory])
_to_manager = msgspec.msgpack.Decoder(list[ToManager])


class ProtocolError(Exception):
    """A frame that the other side, at this version, would not have sent."""


def encode(batch: Sequence[ToWorker] | Sequence[ToFactory] | Sequence[ToManager]) -> bytes:
    """One frame that holds ``batch``."""
    buffer = bytearray(_VERSION)
    _encoder.encode_into(batch, buffer, 1)
    return bytes(buffer)


def encode_frames(batch: Sequence[ToWorker] | Sequence[ToFactory] | Sequence[ToManager]) -> list[bytes]:
    """``batch`` as one frame; when that would be large, as one frame for each message."""
    frame = encode(batch)
    if len(frame) <= FRAME_BYTES or len(batch) == 1:
        return [frame]
    return [encode((message,)) for message in batch]  # type: ignore[arg-type]


def portions(rows: Iterable[Row], weigh: Callable[[Row], int]) -> Iterator[list[Row]]:
    """``rows`` in portions of which each fits into a frame: what a long message is made of."""
    portion: list[Row] = []
    weight = 0
    for row in rows:
        mine = weigh(row)
        if portion and weight + mine > FRAME_BYTES:
            yield portion
            portion, weight = [], 0
        portion.append(row)
        weight += mine
    if portion:
        yield portion


def decode_to_worker(frame: bytes | memoryview) -> list[ToWorker]:
    """The messages a manager sent. Raises ProtocolError."""
    return cast("list[ToWorker]", _decode(frame, _to_worker, MAX_FRAME_BYTES))


def decode_to_factory(frame: bytes | memoryview) -> list[ToFactory]:
    """The messages a manager sent to a factory. Raises ProtocolError."""
    return cast("list[ToFactory]", _decode(frame, _to_factory, MAX_FRAME_BYTES))


def decode_to_manager(frame: bytes | memoryview) -> list[ToManager]:
    """The messages a worker sent. Raises ProtocolError."""
    return cast("list[ToManager]", _decode(frame, _to_manager, MAX_TO_MANAGER_BYTES))


def _decode(
    frame: bytes | memoryview,
    decoder: msgspec.msgpack.Decoder,  # type: ignore[type-arg]
    most: int,
) -> list:  # type: ignore[type-arg]
    view = memoryview(frame)
    if len(view) > most:
        raise ProtocolError(f"a frame of {len(view)} bytes; the limit is {most}")
    if len(view) == 0:
        raise ProtocolError("an empty frame")
    if view[0] != PROTOCOL_VERSION:
        raise ProtocolError(f"protocol version {view[0]}; this side speaks version {PROTOCOL_VERSION}")
    try:
        return decoder.decode(view[1:])  # type: ignore[no-any-return]
    # Text that is none, and lists in lists in lists.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a batch of messages: {str(error)[:200]}") from None
