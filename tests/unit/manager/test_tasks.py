"""States, the table of legal transitions, and what a plan's tables say."""

from __future__ import annotations

import pytest

from graphvine.manager.tasks import (
    AHEAD,
    DISPATCHED,
    DONE,
    LEGAL,
    READY,
    RELEASED,
    STATE_NAMES,
    WAITING,
    CheckedStates,
    IllegalTransitionError,
    consumers_of,
)


def test_every_state_has_a_row_and_can_be_left() -> None:
    states = {WAITING, READY, AHEAD, DISPATCHED, DONE, RELEASED}
    assert set(LEGAL) == states == set(range(len(STATE_NAMES)))
    assert all(after and after <= states for after in LEGAL.values())


@pytest.mark.parametrize("before", sorted(LEGAL))
@pytest.mark.parametrize("after", sorted(LEGAL))
def test_only_what_the_table_says_is_allowed(before: int, after: int) -> None:
    states = CheckedStates(1, base=7)
    bytearray.__setitem__(states, 0, before)
    if after in LEGAL[before]:
        states[0] = after
        assert states[0] == after
    else:
        with pytest.raises(
            IllegalTransitionError, match=f"task 7: {STATE_NAMES[before]} -> {STATE_NAMES[after]}"
        ):
            states[0] = after


def test_an_illegal_transition_tells_the_whole_story() -> None:
    states = CheckedStates(3, base=100)
    states[1] = READY
    states[1] = DISPATCHED
    with pytest.raises(IllegalTransitionError, match="task 101: waiting -> ready -> dispatched -> ahead"):
        states[1] = AHEAD


def test_consumers_come_once_per_slot_and_in_order() -> None:
    consumers = consumers_of([(), (0, 0), (0, -1), (1,)])
    assert [tuple(each) for each in consumers] == [(1, 1, 2), (3,), (), ()]
