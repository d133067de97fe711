"""What is printed is cut to whole lines, kept in bounded logs, and passed on within an allowance."""

from __future__ import annotations

import os
import select
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from graphvine.protocol.messages import Output
from graphvine.worker.output import Allowance, Log, Outlet, Pipe, Printed


def test_a_log_stays_short_and_has_the_last_words(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(str(path), limit_bytes=100)
    for number in range(100):
        log.write(b"line %03d\n" % number)
    log.close()
    text = (tmp_path / "log.old").read_text() + path.read_text()
    assert len(text) <= 200
    assert text.endswith("line 098\nline 099\n")
    assert (tmp_path / "log.old").stat().st_size <= 100


def test_a_log_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "absent" / "log"))
    log.write(b"x")
    log.close()
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.binary(max_size=20) | st.just(b"\n"), max_size=30))
def test_whole_lines_come_out_and_nothing_is_lost(parts: list[bytes]) -> None:
    pipe = Pipe(1)
    try:
        pieces = [pipe.lines(part) for part in parts]
        assert all(not piece or piece.endswith(b"\n") for piece in pieces)
        assert b"".join(pieces) + pipe.rest() == b"".join(parts)
        assert pipe.rest() == b""
    finally:
        pipe.close()


def test_a_line_without_end_is_passed_on_in_parts() -> None:
    pipe = Pipe(1)
    assert pipe.lines(b"x" * 10_000) == b"x" * 10_000
    pipe.close()


def test_what_is_left_of_a_dead_executor_is_read(tmp_path: Path) -> None:
    outlet = Outlet(4, str(tmp_path / "log"))
    with select.epoll() as poll:
        out, error = outlet.pipes
        os.write(out.writer, b"one\ntwo")
        os.write(error.writer, b"wrong\n")
        assert outlet.on_readable(out, poll) == [Printed(4, 1, b"one\n")]
        outlet.close_writers()
        assert outlet.drain() == [Printed(4, 1, b"two"), Printed(4, 2, b"wrong\n")]
    assert outlet.last_words() == "one\ntwowrong\n"
    outlet.close()


def test_what_is_beyond_the_allowance_is_counted_and_said_later() -> None:
    allowance = Allowance(burst_bytes=10, rate_bytes_s=2.0)
    assert allowance.pass_on(Printed(1, 1, b"12345678"), 100.0) == [Output(1, b"12345678")]
    assert allowance.pass_on(Printed(1, 1, b"1234"), 100.0) == []
    assert allowance.pass_on(Printed(1, 2, b"1234"), 100.5) == []
    assert allowance.pass_on(Printed(1, 2, b"1234"), 101.0) == [Output(2, b"", 8), Output(2, b"1234")]
    assert allowance.excuse() == []
    assert allowance.pass_on(Printed(1, 2, b"12345678901"), 1000.0) == []
    assert allowance.excuse() == [Output(2, b"", 11)]
