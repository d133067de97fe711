"""What a worker says that may not have files enough open."""

from __future__ import annotations

import resource

from graphvine.worker.descriptors import PER_EXECUTOR, RESERVE, too_few


def test_the_limit_is_raised_when_it_is_needed(limits: list[int]) -> None:
    assert too_few(64) is None
    assert limits == [1024, 4096]
    assert too_few(128) is None
    assert limits == [4096, 4096]


def test_it_is_said_how_many_cores_there_can_be(limits: list[int]) -> None:
    limits[:] = [RESERVE + 3 * PER_EXECUTOR, RESERVE + 3 * PER_EXECUTOR]
    assert too_few(3) is None
    said = too_few(4)
    assert said is not None
    assert "give the worker fewer cores (at most 3)" in said


def test_with_too_few_for_any_no_number_is_advised(limits: list[int]) -> None:
    limits[:] = [64, 64]
    said = too_few(1)
    assert said is not None
    assert said.endswith("this process may have 64 (ulimit -n); raise the limit")


def test_there_may_be_no_limit(limits: list[int]) -> None:
    limits[:] = [resource.RLIM_INFINITY] * 2
    assert too_few(10**6) is None
