"""What is said to a worker in one turn, in which order."""

from __future__ import annotations

from graphvine.manager.workers import Outbox
from graphvine.protocol.messages import Assign, Cancel, Drop, Recall, Source, TaskOrder, Welcome


def test_what_is_taken_away_comes_first_but_what_was_just_given_can_be_called_back() -> None:
    box = Outbox()
    box.recalls.append(7)
    box.orders.append(TaskOrder(7, 1, 0, []))
    box.drops.append(3)
    box.cancels.append(4)
    box.welcome(Welcome(1, 1.0, 100))
    assert [type(message) for message in box.take()] == [Welcome, Cancel, Drop, Assign, Recall]
    assert box.take() == []


def test_nothing_is_said_of_a_file_that_is_dropped() -> None:
    box = Outbox()
    box.values.update({3: b"three", 4: b"four"})
    box.sources += [Source(5, 10, []), Source(6, 10, [])]
    box.updates.append(Source(7, 10, []))
    box.update_values[8] = b"eight"
    for number in (3, 5, 7, 8):
        box.drop(number)
    box.orders.append(TaskOrder(9, 1, 0, []))
    drop, assign = box.take()
    assert drop == Drop([3, 5, 7, 8])
    assert isinstance(assign, Assign)
    assert assign.values == {4: b"four"}
    assert assign.sources == [Source(6, 10, [])]
