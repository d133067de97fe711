"""The limit of open files, and what is said when it is reached."""

from __future__ import annotations

import resource

from graphvine.manager.descriptors import RESERVE, no_room


def test_the_limit_is_raised_when_it_is_needed(limits: list[int]) -> None:
    assert no_room(1023 - RESERVE) is None
    assert limits == [1024, 4096]
    assert no_room(1024 - RESERVE) is None
    assert limits == [4096, 4096]


def test_at_the_end_it_is_said_what_to_do(limits: list[int]) -> None:
    assert no_room(4095 - RESERVE) is None
    said = no_room(4096 - RESERVE)
    assert said is not None
    assert f"more than {4096 - RESERVE} workers" in said
    assert "4096 files open (ulimit -n)" in said


def test_there_may_be_no_limit(limits: list[int]) -> None:
    limits[:] = [resource.RLIM_INFINITY] * 2
    assert no_room(10**9) is None


def test_a_process_may_have_too_few_for_any_worker(limits: list[int]) -> None:
    limits[:] = [64, 64]
    assert no_room(0) == (
        f"a manager needs {RESERVE} open files and one for each worker, and this process may have 64 "
        "(ulimit -n); raise the limit"
    )
