"""Commands run in this process as an executor runs them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphvine.protocol.outcomes import Failed
from graphvine.protocol.trees import NewTree, Tree
from graphvine.taskvine.remote import command as commands
from graphvine.taskvine.remote import outlets as taken
from graphvine.taskvine.remote.contents import SMALL_BYTES, Absent, SmallFile, resolved
from graphvine.taskvine.remote.description import (
    Command,
    Context,
    Mount,
    Outlet,
    Status,
    decode_status,
    encode,
)
from graphvine.taskvine.remote.outlets import SHORT_OUTPUT_BYTES, Bundle, output_of, pick
from graphvine.worker import scratch
from graphvine.worker.notes import take_note


@pytest.fixture(autouse=True)
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "cache"))
    scratch.begin(str(tmp_path))
    yield tmp_path
    scratch.end_task()
    scratch._parent = ""


def run(line: str, *inputs: Any, **options: Any) -> tuple[Any, Status]:
    made = commands.run(inputs, encode(Command(line, **options)))
    return made, decode_status(take_note())


def outlets(*names: str) -> list[Outlet]:
    return [Outlet(name) for name in names]


def test_the_result_is_the_outputs(tmp_path):
    assert run("echo said")[0] is None
    made, status = run("echo made > x; chmod 700 x", outputs=outlets("x"))
    assert made == SmallFile(b"made\n", 0o700)
    assert (status.word, status.exit_code, status.missing) == ("success", 0, [])
    assert run("echo 1 > x; echo 2 > y", outputs=outlets("x", "y"))[0] == Bundle(
        [SmallFile(b"1\n"), SmallFile(b"2\n")]
    )
    large, _ = run(f"head -c {SMALL_BYTES + 1} /dev/zero > x", outputs=outlets("x"))
    assert isinstance(large, NewTree)
    assert os.path.getsize(large.path) == SMALL_BYTES + 1
    assert scratch.holds(large.path)


def test_each_of_several_outputs_can_be_picked():
    line = f"head -c {SMALL_BYTES + 1} /dev/zero > a; echo b > b; mkdir c; echo c > c/c"
    made, status = run(line, outputs=outlets("a", "b", "c", "d"))
    assert status.missing == ["d"]
    assert status.word == "output missing"
    whole = Tree(made.path, 0)
    a, b, c, d = (pick([whole], position) for position in range(4))
    assert isinstance(a, NewTree)
    assert os.path.getsize(a.path) == SMALL_BYTES + 1
    assert b == SmallFile(b"b\n")
    assert isinstance(c, NewTree)
    assert os.listdir(c.path) == ["c"]
    assert isinstance(d, Absent)
    assert pick([Bundle([SmallFile(b"x")])], 0) == SmallFile(b"x")
    assert "why" in pick([Failed("raised", "Traceback\nwhy\n")], 0).reason


def test_one_output_in_another(tmp_path):
    made, status = run("mkdir d; echo 1 > d/x", outputs=outlets("d", "d/x", "d/x"))
    assert status.word == "success"
    assert [os.listdir(Path(made.path, "0")), Path(made.path, "1").read_text()] == [["x"], "1\n"]
    assert Path(made.path, "2").read_text() == "1\n"


def test_what_an_output_links_to_is_copied(tmp_path):
    (tmp_path / "input").write_bytes(bytes(SMALL_BYTES + 1))
    tree = Tree(str(tmp_path / "input"), SMALL_BYTES + 1)
    made, _ = run("ln -s x y", tree, inputs=[Mount(0, "x")], outputs=outlets("y"))
    assert os.stat(made.path).st_ino != os.stat(tmp_path / "input").st_ino
    assert (tmp_path / "input").exists()


def test_inputs_of_every_kind(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_text("f")
    inputs = [SmallFile(b"small", 0o755), Tree(str(tmp_path / "tree"), 1), b"bytes"]
    mounts = [Mount(0, "d/small"), Mount(1, "t"), Mount(2, "b"), Mount(1, "s", symlink=True)]
    _, status = run(
        "cat d/small t/f b s/f; test -x d/small && test -L s && test ! -L t", *inputs, inputs=mounts
    )
    assert (status.output, status.exit_code) == (b"smallfbytesf", 0)


def test_what_is_copied_can_be_written_to(tmp_path):
    (tmp_path / "input").write_text("before\n")
    (tmp_path / "input").chmod(0o444)
    tree = Tree(str(tmp_path / "input"), 7)
    made, _ = run("echo after >> x", tree, inputs=[Mount(0, "x", copied=True)], outputs=outlets("x"))
    assert made.data == b"before\nafter\n"
    assert (tmp_path / "input").read_text() == "before\n"


@pytest.mark.parametrize("value", [Absent("gone"), Failed("raised", "gone"), Failed("killed", "")])
def test_without_an_input_nothing_is_run(tmp_path, value):
    made, status = run(f"touch {tmp_path}/ran", value, inputs=[Mount(0, "x")], outputs=outlets("y"))
    assert status.word == "input missing"
    assert status.reason.startswith("x: ")
    assert status.exit_code == -1
    assert isinstance(made, Absent)
    assert not (tmp_path / "ran").exists()


def test_errors_of_ours_are_told_without_their_class(tmp_path):
    value = Failed("raised", "Traceback ...\ngraphvine.taskvine.remote.sources.SourceError: http://x: gone\n")
    assert run("true", value, inputs=[Mount(0, "x")])[1].reason == "x: http://x: gone"


def test_what_is_in_the_way_of_an_input_is_said(tmp_path):
    file = SmallFile(b"x")
    for names, reason in (
        (("a", "a/b/c"), "a/b/c cannot be put into the sandbox: a is an input, too, and no directory"),
        (("a/b", "a"), "a cannot be put into the sandbox: other inputs stand below it"),
        (("a", "n" * 300), "File name too long"),
    ):
        mounts = [Mount(slot, name) for slot, name in enumerate(names)]
        made, status = run("true", file, file, inputs=mounts, outputs=outlets("y"))
        assert isinstance(made, Absent)
        assert (status.word, status.exit_code) == ("input missing", -1)
        assert reason in status.reason
    assert run("cat a", file, inputs=[Mount(0, "a")])[1].output == b"x"


def test_a_command_that_removes_all_there_is(tmp_path):
    made, status = run("cd ..; rm -rf *", outputs=outlets("y"))
    assert isinstance(made, Absent)
    assert status.word == "stdout missing"
    assert "removed" in status.reason
    assert run("echo next")[1].output == b"next\n"


def test_an_input_that_is_written_to_is_named(tmp_path, caplog):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "data").write_text("before\n")
    run("echo after >> x", Tree(str(tmp_path / "7" / "data"), 7), inputs=[Mount(0, "x")])
    assert "'echo after >> x' wrote to its input x" in caplog.text
    assert not (tmp_path / "7").exists()


def test_long_output_is_kept_beside_the_file_that_consumers_get():
    size = SHORT_OUTPUT_BYTES + 1
    made, status = run(f"head -c {size} /dev/zero; echo x > x", outputs=outlets("x"))
    assert (status.output, status.kept_bytes) == (b"", size)
    whole = Tree(made.path, 0)
    assert output_of([whole]) == bytes(size)
    assert Path(resolved(whole).path).read_text() == "x\n"
    made, _ = run(f"head -c {size} /dev/zero", outputs=outlets("x"))
    assert isinstance(resolved(Tree(made.path, 0)), Absent)


def test_output_is_bounded(monkeypatch):
    monkeypatch.setattr(taken, "OUTPUT_BYTES", 50_000)
    made, status = run("head -c 60000 /dev/zero")
    output = output_of([Tree(made.path, 0)])
    assert status.kept_bytes == 60_000
    assert output[:50_000] == bytes(50_000)
    assert output[50_000:] == b"\n[standard output is cut here: it had 60000 bytes]\n"


def test_variables(monkeypatch):
    monkeypatch.setenv("UNWANTED", "1")
    line = 'echo "$A|$UNWANTED|$VINE_SANDBOX|$TMPDIR"; pwd; test -d $TMPDIR'
    _, status = run(line, variables={"A": "x" * 5000, "UNWANTED": None})
    first, where = status.output.decode().split()
    a, unwanted, sandbox, temporary = first.split("|")
    assert (a, unwanted, sandbox, status.exit_code) == ("x" * 5000, "", where, 0)
    assert not temporary.startswith(sandbox)


def test_nothing_is_left_for_the_next_command(tmp_path):
    line = "mkdir -p d/e; chmod 0 d/e; touch x .hidden $TMPDIR/y ../z; chmod 500 ."
    run(line)
    _, status = run("ls -A . .. $TMPDIR")
    assert status.output.decode().split() == [
        ".:", "..:", "output", "sandbox", "tmp", f"{scratch.lasting()}/tmp:",
    ]  # fmt: skip
    run("rm -rf $PWD $TMPDIR")
    assert run("ls -A")[1].output == b""


def test_ends(tmp_path):
    assert run("kill -TERM $$")[1].word == "signal"
    assert run("kill -TERM $$")[1].exit_code == signal.SIGTERM
    assert run("exit 300")[1].exit_code == 300 % 256
    status = run("echo begun; sleep 60", max_s=0.1)[1]
    assert (status.word, status.output) == ("max wall time", b"begun\n")
    assert status.exit_code == signal.SIGKILL
    status = run("sleep 60", max_s=60, end_s=1.0)[1]
    assert status.word == "max end time"


def test_an_environment_must_be_one(tmp_path):
    (tmp_path / "junk").write_text("no archive")
    for value in (SmallFile(b"x"), Tree(str(tmp_path / "junk"), 10)):
        made, status = run("true", value, contexts=[Context(0, "name")], outputs=outlets("x"))
        assert status.word == "input missing", status
        assert status.reason.startswith("its environment: ")
        assert isinstance(made, Absent)


@pytest.mark.parametrize(
    "line",
    [
        "echo x >> d/sub/f",
        "sed -i s/b/c/ d/sub/f; echo x >> d/g",
        "echo new > s/new",
        "rm s/sub/f",
        "mkdir s/e",
    ],
)
def test_a_directory_that_is_written_to_is_nobody_else_s(tmp_path, caplog, line):
    data = tmp_path / "7" / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "f").write_text("before\n")
    (data / "g").write_text("g\n")
    tree = Tree(str(data), 9)
    mounts = [Mount(0, "d"), Mount(0, "s", symlink=True)]
    _, status = run("cat d/g s/sub/f; touch d/more; mv d/g d/h; mkdir d/e", tree, inputs=mounts)
    assert status.output == b"g\nbefore\n"
    assert not caplog.text, "what is its own may be changed"
    assert sorted(os.listdir(data)) == ["g", "sub"]
    run(line, tree, inputs=mounts)
    assert "wrote to its input" in caplog.text
    assert not (tmp_path / "7").exists()


def test_what_there_was_no_room_for_is_not_called_missing(tmp_path):
    for value in (Absent("gone", no_room=True), Failed("storage", "http://x/f: the disk is full")):
        made, status = run("true", value, inputs=[Mount(0, "x")], outputs=outlets("y"))
        assert status.word == "sandbox exhaustion"
        assert status.reason.startswith("x: ")
        assert made.no_room
