"""Work in a child process, and how children end."""

from __future__ import annotations

import os
import random
import signal

import pytest

from graphvine.worker.forking import run_in_child


def test_what_the_child_says_arrives_whatever_its_length() -> None:
    for length in (0, 1, 100, 3_000_000):
        end = run_in_child(lambda length=length: b"x" * length)  # type: ignore[misc]
        assert end.data == b"x" * length
        assert end.status == 0
        assert end.peak_mb > 1


def test_it_is_another_process_with_a_random_state_of_its_own() -> None:
    random.seed(1)
    first, second = (run_in_child(lambda: f"{os.getpid()} {random.random()}".encode()) for _ in range(2))
    assert first.data is not None
    assert second.data is not None
    for one, other in zip(first.data.split(), second.data.split(), strict=True):
        assert one != other
    assert int(first.data.split()[0]) != os.getpid()


@pytest.mark.parametrize(
    ("act", "code"),
    [(lambda: os._exit(7), 7), (lambda: os.kill(os.getpid(), signal.SIGKILL), -9), (lambda: 1 / 0, 1)],
)
def test_a_child_that_dies_says_nothing_and_its_end_is_known(act: object, code: int) -> None:
    end = run_in_child(act)  # type: ignore[arg-type]
    assert end.data is None
    assert os.waitstatus_to_exitcode(end.status) == code


def test_a_child_that_dies_and_leaves_a_process_with_its_pipe_is_not_waited_for() -> None:
    gate_out, gate_in = os.pipe()

    def die() -> bytes:
        if os.fork() == 0:
            os.read(gate_out, 1)
            os._exit(0)
        os._exit(3)

    end = run_in_child(die)
    os.write(gate_in, b"x")
    os.close(gate_in)
    os.close(gate_out)
    assert end.data is None
    assert os.waitstatus_to_exitcode(end.status) == 3
