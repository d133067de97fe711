"""What is said to a worker in one turn, in which order."""

from __future__ import annotations

from graphvine.manager.workers import Outbox
from graphvine.protocol.codec import FRAME_BYTES, encode_frames
from graphvine.protocol.messages import (
    Assign,
    BlobData,
    Cancel,
    Context,
    Drop,
    Recall,
    Source,
    Sources,
    TaskOrder,
    Welcome,
)


def test_what_is_taken_away_comes_first_but_what_was_just_given_can_be_called_back() -> None:
    box = Outbox()
    box.also().recalls.append(7)
    box.orders.append(TaskOrder(7, 1, 0, []))
    box.drops.append(3)
    box.also().cancels.append(4)
    box.also().first.append(Welcome(1, 1.0, 100))
    assert [type(message) for message in box.take()] == [Welcome, Cancel, Drop, Assign, Recall]
    assert box.take() == []


def test_nothing_is_said_of_a_file_that_is_dropped() -> None:
    box = Outbox()
    box.also().values.update({3: b"three", 4: b"four"})
    box.also().sources += [Source(5, 10, []), Source(6, 10, [])]
    box.also().updates.append(Source(7, 10, []))
    box.also().update_values[8] = b"eight"
    for number in (3, 5, 7, 8):
        box.drop(number)
    box.orders.append(TaskOrder(9, 1, 0, []))
    drop, assign = box.take()
    assert drop == Drop([3, 5, 7, 8])
    assert isinstance(assign, Assign)
    assert assign.values == {4: b"four"}
    assert assign.sources == [Source(6, 10, [])]


def test_what_does_not_fit_into_a_frame_goes_before_the_work() -> None:
    box = Outbox()
    values = {number: bytes(8000) for number in range(1, 5001)}
    box.also().values.update(values)
    box.also().contexts.append(Context(9, "name", b"zip", []))
    blobs = [BlobData(6000 + number, 9, bytes(2**20 - 1)) for number in range(40)]
    box.also().blobs += blobs
    box.orders.append(TaskOrder(5001, 6000, 0, list(values)))
    messages = box.take()
    assert max(map(len, encode_frames(messages))) <= FRAME_BYTES
    assert isinstance(messages[-1], Assign)
    assert messages[-1].orders
    told: dict[int, bytes] = {}
    for message in messages[:-1]:
        if isinstance(message, Sources):
            told |= message.values
    assert told == values
    assigns = [message for message in messages if isinstance(message, Assign)]
    assert [blob for assign in assigns for blob in assign.blobs] == blobs
    assert assigns[0].contexts, "a context is known before its first blob comes"
    assert box.take() == []
