"""What is said to a worker in one turn, in which order."""

from __future__ import annotations

from graphvine.manager.workers import Outbox
from graphvine.protocol.messages import Assign, Cancel, Drop, Recall, TaskOrder, Welcome


def test_what_is_taken_away_comes_first_but_what_was_just_given_can_be_called_back() -> None:
    box = Outbox()
    box.recalls.append(7)
    box.orders.append(TaskOrder(7, 1, 0, []))
    box.drops.append(3)
    box.cancels.append(4)
    box.welcome(Welcome(1, 1.0, 100))
    assert [type(message) for message in box.take()] == [Welcome, Cancel, Drop, Assign, Recall]
    assert box.take() == []
