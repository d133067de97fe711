"""How many tasks more a manager would like to have."""

from __future__ import annotations

import itertools

import pytest

from graphvine.taskvine.tuning import Tuning, hungry


@pytest.mark.parametrize(
    ("minimum", "factor", "asked", "workers", "expected"),
    [
        (11, 2, [], 0, 11),
        (2, 2, [12], 0, 1),
        (2, 2, [12, 12], 0, 0),
        # A worker of 12 cores: one runs and takes all of it, the other waits.
        (2, 2, [12, 12], 1, 1),
        (5, 2, [12, 12], 1, 4),
        (5, 2, [], 1, 24),
        (5, 2, [1], 1, 23),
        (5, 3, [1], 1, 35),
        (5, 3, [1, 11], 1, 5),
        (5, 10, [1, 11, 2], 1, 53),
        (5, 2, [1] * 24, 1, 0),
        (5, 2, [0, 0], 1, 5),
    ],
)
def test_as_taskvine_counts(minimum, factor, asked, workers, expected):
    tuning = Tuning()
    tuning.set("hungry-minimum", minimum)
    tuning.set("hungry-minimum-factor", factor)
    assert hungry(iter(asked), len(asked), workers, 12.0 * workers, tuning) == expected


def test_no_more_tasks_are_looked_at_than_need_be():
    asked = itertools.repeat(1.0)
    assert hungry(asked, 10**9, 1, 12.0, Tuning()) == 0
