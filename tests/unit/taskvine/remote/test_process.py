"""Processes of commands, begun and ended in this process as in an executor."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphvine.taskvine.remote import process
from graphvine.taskvine.remote.spawning import Environment, PlainSpawner, Spawner


@pytest.fixture
def output(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "output", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(autouse=True, params=[Spawner, PlainSpawner])
def spawner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_spawner", request.param())


def run(line: str, output: int, directory: Path, **variables: str) -> tuple[int, str]:
    os.ftruncate(output, 0)
    os.lseek(output, 0, os.SEEK_SET)
    environment = Environment({**os.environ, **variables})
    end = process.run(line, str(directory), environment, output, math.inf)
    return end.code, os.pread(output, 100_000, 0).decode()


@pytest.mark.parametrize(
    ("mode", "content"),
    [
        (0o644, "#!/bin/sh\necho ran"),
        (0o755, "echo ran $0"),  # it says nothing of what is to run it
        (0o755, "#!/nowhere/at/all\n"),
        (None, ""),
    ],
)
@pytest.mark.parametrize("line", ["./prog a", "prog a"])
def test_what_cannot_be_begun_is_the_shell_s_to_tell(tmp_path, output, mode, content, line):
    if mode is not None:
        (tmp_path / "prog").write_text(content)
        (tmp_path / "prog").chmod(mode)
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    shell = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=tmp_path,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert run(line, output, tmp_path, **variables) == (shell.returncode, shell.stdout.decode())


def test_a_command_has_its_own_directory_group_and_descriptors(tmp_path, output):
    (tmp_path / "sandbox").mkdir()
    before = os.getcwd()
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # as libraries do that know nothing of commands
    try:
        script = "import os; print(os.getcwd(), os.getpgrp() == os.getpid(), os.listdir('/proc/self/fd'))"
        _, said = run(f"{sys.executable} -c '{script}'".replace("'/proc", '"/proc').replace("fd')", 'fd")'),
                      output, tmp_path / "sandbox")  # fmt: skip
    finally:
        os.close(reader)
        os.close(writer)
    where, own, descriptors = said.split(" ", 2)
    assert (where, own) == (str(tmp_path / "sandbox"), "True")
    assert sorted(eval(descriptors)) == ["0", "1", "2", "3"], "the last one is that of the listing"
    assert os.getcwd() == before


def test_a_working_directory_that_lost_its_name_is_no_hindrance(tmp_path, output):
    (tmp_path / "gone").mkdir()
    before = os.getcwd()
    os.chdir(tmp_path / "gone")
    try:
        (tmp_path / "gone").rmdir()
        assert run("pwd", output, tmp_path, PWD=str(tmp_path)) == (0, f"{tmp_path}\n")
        assert os.stat(".").st_nlink == 0
    finally:
        os.chdir(before)


def test_signals_that_the_executor_ignores_or_blocks_are_the_command_s(tmp_path, output):
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGPIPE)}
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        code, said = run("cat /proc/self/status", output, tmp_path)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        for number, handler in handlers.items():
            signal.signal(number, handler)
    masks = dict(line.split(":\t") for line in said.splitlines() if line.startswith("Sig"))
    assert code == 0
    # Beyond 31 are the C library's own.
    assert int(masks["SigIgn"], 16) & 0x7FFF_FFFF == int(masks["SigBlk"], 16) == 0


def test_descriptors_are_kept_back_where_the_kernel_cannot_do_it_at_once(tmp_path, output, monkeypatch):
    class Old:
        def syscall(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(process, "_libc", Old())
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        assert run(f"test -e /proc/self/fd/{writer}", output, tmp_path)[0] == 1
        assert not os.get_inheritable(writer)
    finally:
        os.close(reader)
        os.close(writer)


def test_daemons_end_with_their_command_and_other_children_do_not(tmp_path, output):
    with subprocess.Popen(["sleep", "60"]) as mine:
        _, said = run("(setsid sleep 60 & echo $!) ; wait", output, tmp_path)
        assert not Path(f"/proc/{int(said)}").exists()
        assert mine.poll() is None
        mine.kill()
    value = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(value))
    assert value.value == 0, "orphans go where they went before"


def test_a_variable_that_no_program_can_be_given_is_named(tmp_path, output):
    with pytest.raises(OSError, match="the variable LONG has 200005 bytes"):
        run("echo $LONG", output, tmp_path, LONG="x" * 200_000)
    with pytest.raises(OSError, match="the command line has 200005 bytes"):
        run("echo " + "x" * 200_000, output, tmp_path)


def test_memory_is_that_of_the_command_and_not_of_who_begins_it(tmp_path, output):
    ours = b"x" * (300 * 2**20)
    end = process.run("true", str(tmp_path), Environment({**os.environ}), output, math.inf)
    assert len(ours) == 300 * 2**20
    assert end.peak_mb < 100


def test_memory_of_what_a_command_begins_counts(tmp_path, output, monkeypatch):
    """The command, which waits for two others, ends when all three were seen together."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    ours, real = b"x" * (300 * 2**20), process.tree_mb
    descriptor = os.open(gate, os.O_RDWR)

    def look(pid: int) -> float:
        seen = real(pid)
        if seen > 80:
            os.write(descriptor, b"11")
        return seen

    monkeypatch.setattr(process, "tree_mb", look)
    one = f'{sys.executable} -c "import os; x = bytes([1]) * (40 * 2**20); os.read(0, 1)" < {gate}'
    end = process.run(f"{one} & {one} & wait", str(tmp_path), Environment({**os.environ}), output, math.inf)
    os.close(descriptor)
    assert len(ours) == 300 * 2**20
    assert end.code == 0
    assert 80 < end.peak_mb < 250
