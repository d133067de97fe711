"""What is taken apart without a shell is what the shell makes of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphvine.taskvine.remote.shell import SHELL, arguments_of, words_of


def as_the_shell_reads(line: str) -> list[str]:
    """The words of a line that begins with a program of no other meaning."""
    done = subprocess.run([SHELL, "-c", f"printf '%s\\0' {line}"], stdout=subprocess.PIPE, check=True)
    return os.fsdecode(done.stdout).split("\0")[:-1]


@given(
    st.lists(st.sampled_from([*"ab.=~'\"$`\\*?[]{}!#%^&;|<>()\t\n -", "  ", "é"]), max_size=8).map("".join)
)
def test_words_are_those_of_the_shell(text):
    line = f"program {text}"
    words = words_of(line)
    if words:
        assert list(words) == as_the_shell_reads(line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ls", ["ls"]),
        ("  ls -l\ta.b,c \n", ["ls", "-l", "a.b,c"]),
        ("./run --x=1 'a  $b' \"c d\"e", ["./run", "--x=1", "a  $b", "c de"]),
        ("python3 -c 'print(1)\nprint(2)'", ["python3", "-c", "print(1)\nprint(2)"]),
        ("true", ["true"]),
        ("prog ''", ["prog", ""]),
    ],
)
def test_lines_that_need_no_shell(line, words):
    assert list(words_of(line)) == words


@pytest.mark.parametrize(
    "line",
    [
        *(
            "",
            " ",
            "a;b",
            "a|b",
            "a&",
            "a>b",
            "a $x",
            "a `b`",
            "a *",
            "a ~",
            "a [b]",
            "a {b,c}",
            "a #b",
            "a\nb",
        ),
        *(
            "x=1 a",
            "'a' b",
            "if",
            "cd /",
            "exit 3",
            ". x",
            "echo x",
            "true x",
            "[ a ]",
            "a \\b",
            'a "$b"',
            "a 'b",
        ),
        *("a !", "-c x", "%1", "a\\\n b", "{ a", "! a", "a=b", "é"),
    ],
)
def test_lines_that_need_one(line):
    assert words_of(line) == ()


def test_programs_are_found_where_the_shell_finds_them(tmp_path: Path):
    for name, mode in (("first", 0o644), ("second", 0o755), ("third", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "prog").write_text("#!/bin/sh\n")
        (tmp_path / name / "prog").chmod(mode)
    path = f"/nowhere:{tmp_path}/first:{tmp_path}/second:{tmp_path}/third"
    assert arguments_of("prog x", {"PATH": path}) == (f"{tmp_path}/second/prog", ("prog", "x"))
    for variables in (
        {},
        {"PATH": f"relative:{path}"},
        {"PATH": f":{path}"},
        {"PATH": "/nowhere"},
        {"PATH": path, "BASH_FUNC_prog%%": "() { echo; }"},
    ):
        assert arguments_of("prog x", variables) == (SHELL, (SHELL, "-c", "prog x"))
    assert arguments_of("./prog", {}) == ("./prog", ("./prog",))
