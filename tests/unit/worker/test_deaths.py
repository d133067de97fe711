from __future__ import annotations

from pathlib import Path

from graphvine.worker.deaths import OutOfMemoryKills, explain, tail


def test_signals_are_named() -> None:
    killed = "killed by SIGKILL (signal 9); perhaps because the memory it was allowed ran out"
    assert explain(9, 0.0, False, "") == killed
    assert explain(11 | 0x80, 0.0, False, "").startswith("killed by SIGSEGV (signal 11)")
    assert explain(35, 0.0, False, "").startswith("killed by a signal (signal 35)")


def test_exit_codes_memory_and_last_words() -> None:
    text = explain(3 << 8, 1234.4, True, "one\ntwo")
    assert text.startswith("exited with code 3; its memory had reached 1234 MB; ")
    assert "memory ran out" in text
    assert text.endswith("output:\none\ntwo")


def test_the_tail_is_of_this_life_only_and_short(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier life\n")
    begin = log.stat().st_size
    assert tail(str(log), begin) == ""
    with log.open("a") as file:
        file.writelines(f"line {i}\n" for i in range(1000))
    lines = tail(str(log), begin).splitlines()
    assert lines == [f"line {i}" for i in range(960, 1000)]


def test_a_log_that_is_absent_or_binary_does_no_harm(tmp_path: Path) -> None:
    assert tail(str(tmp_path / "absent")) == ""
    (tmp_path / "log").write_bytes(b"\xff\xfe")
    assert tail(str(tmp_path / "log")) == "\ufffd\ufffd"


def test_no_kill_no_growth() -> None:
    assert OutOfMemoryKills().grown() is False
