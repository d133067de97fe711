"""Commands of batch systems: what they print, and the many ways in which they fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphvine.deploy.batch import JobState, read_tail, run_command, tail
from graphvine.deploy.errors import BatchCommandError, DeployError
from graphvine.protocol.errors import GraphvineError


def test_what_a_command_prints() -> None:
    assert (
        run_command(["sh", "-c", "cat; echo $WORD"], stdin="in\n", environment={"WORD": "out"}) == "in\nout\n"
    )


def test_a_command_runs_where_it_is_told(tmp_path: Path) -> None:
    assert run_command(["pwd"], directory=tmp_path).strip() == str(tmp_path)


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(BatchCommandError, match="can't run condor_nothing: No such file"):
        run_command(["condor_nothing"])


def test_what_a_failing_command_says_is_told() -> None:
    with pytest.raises(BatchCommandError, match="exit code 3: no such partition") as raised:
        run_command(["sh", "-c", "echo no such partition >&2; exit 3"])
    assert raised.value.output == "no such partition"
    assert isinstance(raised.value, DeployError)
    assert isinstance(raised.value, GraphvineError)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # The child holds the pipe open; it is only closed when the child is dead, too.
    command = ["sh", "-c", f"sleep 1000 > {pipe} & cat"]
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(BatchCommandError, match=r"sh did not answer in 0\.3 s"):
            run_command(["sh", "-c", f"{command[2]}; wait"], time_limit_s=0.3)
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_the_end_of_a_jobs_output(tmp_path: Path) -> None:
    path = tmp_path / "out"
    assert read_tail(path) == ""
    path.write_text("one\ntwo\nthree\n")
    assert read_tail(path) == "one\ntwo\nthree\n"
    assert read_tail(path, 8) == "three\n"
    assert read_tail(path, 3) == "ee\n"


def test_a_long_text_is_cut_at_its_beginning() -> None:
    assert tail("abcdef", 6) == "abcdef"
    assert tail("abcdef", 2) == "...ef"


def test_which_states_are_final() -> None:
    over = {state for state in JobState if state.is_over}
    assert over == {JobState.FINISHED, JobState.REMOVED, JobState.GONE}
