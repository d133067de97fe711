from __future__ import annotations

import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphvine.protocol import tree_files
from graphvine.protocol.tree_files import Reader, Take, Writer, load, remove, scan, stored_sizes, take_in
from graphvine.protocol.trees import BadTreeError, Entry, Head, NewTree


def make_directory(path: Path) -> Path:
    """One with a little of everything."""
    (path / "sub" / "deep").mkdir(parents=True)
    (path / "empty").mkdir()
    (path / "script").write_bytes(b"#!/bin/sh\n")
    (path / "script").chmod(0o755)
    (path / "sub" / "large").write_bytes(os.urandom(300_000))
    (path / "sub" / "nothing").write_bytes(b"")
    (path / "sub" / "deep" / "link").symlink_to("../large")
    os.utime(path / "script", (1_000_000, 1_000_000))
    os.utime(path / "empty", (2_000_000, 2_000_000))
    return path


def picture(path: Path) -> dict[str, tuple[int, object]]:
    """All there is to see of a tree."""
    found: dict[str, tuple[int, object]] = {}
    for one in [path, *sorted(path.rglob("*"))]:
        name = str(one.relative_to(path))
        if one.is_symlink():
            found[name] = (0, os.readlink(one))
        else:
            state = one.stat()
            time = int(state.st_mtime)
            found[name] = (state.st_mode, one.read_bytes() if one.is_file() else time)
    return found


def flat(directory: Path, step: int = 10_000) -> bytes:
    with Reader(str(directory)) as reader:
        return b"".join(reader.read(offset, step) for offset in range(0, reader.size, step))


@pytest.mark.parametrize("how", ["move", "link", "copy"])
def test_a_directory_is_taken_in(how: Take, tmp_path: Path) -> None:
    source = make_directory(tmp_path / "source")
    before = picture(source)
    stored = tmp_path / "7"
    size = take_in(NewTree(str(source)), str(stored), lambda path: how)
    assert size == stored_sizes(str(stored))[0] == len(flat(stored))
    assert picture(stored / "data") == before
    assert source.exists() == (how != "move")
    tree = load(str(stored))
    assert (tree.path, tree.size) == (str(stored / "data"), 300_010)
    shared = [(stored / "data" / "script").stat().st_nlink, (stored / "data/sub/large").stat().st_nlink]
    assert shared == ([2, 2] if how == "link" else [1, 1])


@pytest.mark.parametrize("step", [1, 7, 1000, 10**6])
def test_what_is_read_as_a_stream_is_written_as_it_was(step: int, tmp_path: Path) -> None:
    source = make_directory(tmp_path / "source")
    if step == 1:
        (source / "sub" / "large").write_bytes(b"short")
    before = picture(source)
    take_in(NewTree(str(source)), str(tmp_path / "7"), lambda path: "move")
    stream = flat(tmp_path / "7")
    writer = Writer(str(tmp_path / "8"))
    for offset in range(0, len(stream), step):
        writer.feed(stream[offset : offset + step])
        assert writer.received == min(len(stream), offset + step)
    writer.finish()
    assert picture(tmp_path / "8" / "data") == before
    assert flat(tmp_path / "8") == stream
    assert load(str(tmp_path / "8")).size == load(str(tmp_path / "7")).size


@pytest.mark.parametrize("content", [b"", b"only this"])
def test_a_single_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "file").chmod(0o751)
    take_in(NewTree(str(tmp_path / "file")), str(tmp_path / "7"), lambda path: "move")
    writer = Writer(str(tmp_path / "8"))
    writer.feed(flat(tmp_path / "7"))
    writer.finish()
    got = tmp_path / "8" / "data"
    assert got.read_bytes() == content
    assert got.stat().st_mode & 0o777 == 0o751


def test_any_part_can_be_read_while_it_arrives_and_after_it_got_its_name(tmp_path: Path) -> None:
    source = make_directory(tmp_path / "source")
    take_in(NewTree(str(source)), str(tmp_path / "7"), lambda path: "move")
    stream = flat(tmp_path / "7")
    writer = Writer(str(tmp_path / "coming"))
    half = len(stream) // 2
    writer.feed(stream[:half])
    assert writer.head is not None
    with Reader(str(tmp_path / "coming"), writer.head) as reader:
        assert reader.read(0, half) == stream[:half]
        writer.feed(stream[half:])
        writer.finish()
        os.rename(tmp_path / "coming", tmp_path / "8")
        chance = random.Random(1)
        for _ in range(50):
            begin, length = chance.randrange(len(stream)), chance.randrange(5000)
            assert reader.read(begin, length) == stream[begin : begin + length]


def test_a_link_that_is_returned_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    take_in(NewTree(str(tmp_path / "link")), str(tmp_path / "7"), lambda path: "copy")
    assert (tmp_path / "7" / "data").read_bytes() == b"x"
    assert not (tmp_path / "7" / "data").is_symlink()


def test_what_cannot_be_a_result_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    pipe, door = tmp_path / "a" / "pipe", tmp_path / "b" / "door"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    door.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(door))
        for path, words in (
            (pipe.parent, f"{pipe} is a named pipe"),
            (door, f"{door} is a socket"),
            (tmp_path / "absent", "there is no file or directory"),
            (Path("/dev/null"), "/dev/null is a device"),
        ):
            with pytest.raises(BadTreeError, match=words):
                take_in(NewTree(str(path)), str(tmp_path / "7"), lambda path: "move")
    assert not (tmp_path / "7").exists()
    assert pipe.parent.exists()


def as_nobody(act: object) -> str:
    """What ``act`` raises in a process without any privilege."""
    assert callable(act)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            act()
        except BaseException as error:  # noqa: BLE001 -- told to the parent
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as file:
        return file.read()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user may enter (pytest's own closes whenever somebody begins to test)."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_may_not_be_read_is_refused(open_path: Path) -> None:
    secret = open_path / "one" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(b"x")
    secret.chmod(0o000)
    closed = open_path / "two" / "closed"
    closed.mkdir(parents=True)
    closed.chmod(0o000)
    for path in (secret, closed):
        said = as_nobody(lambda path=path: scan(str(path.parent)))
        assert said.startswith("BadTreeError")
        assert f"{path} cannot be read" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_directories_that_may_not_be_written_are_moved_and_removed(open_path: Path) -> None:
    open_path.chmod(0o777)

    def act() -> None:
        source = open_path / "source"
        make_directory(source)
        (source / "sub" / "deep").chmod(0o555)
        (source / "sub").chmod(0o555)
        source.chmod(0o555)
        take_in(NewTree(str(source)), str(open_path / "7"), lambda path: "move")
        (open_path / "7/data/sub/deep").chmod(0o000)
        (open_path / "7/data/sub").chmod(0o500)
        remove(str(open_path / "7"))

    assert as_nobody(act) == ""
    assert list(open_path.iterdir()) == []


def test_what_came_before_is_replaced_whatever_it_was(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "file").write_bytes(b"%d" % number)
        take_in(NewTree(str(tmp_path / "file")), str(tmp_path / "made"), lambda path: "move")
        tree_files.put_in_place(str(tmp_path / "made"), str(tmp_path / "7"))
        assert (tmp_path / "7" / "data").read_bytes() == b"%d" % number
    remove(str(tmp_path / "7"))
    (tmp_path / "7").write_bytes(b"a value")
    (tmp_path / "file").write_bytes(b"a tree")
    take_in(NewTree(str(tmp_path / "file")), str(tmp_path / "made"), lambda path: "move")
    tree_files.put_in_place(str(tmp_path / "made"), str(tmp_path / "7"))
    assert [path.name for path in tmp_path.iterdir()] == ["7"]
    assert (tmp_path / "7" / "data").read_bytes() == b"a tree"


def test_a_stream_that_is_cut_short_or_too_long_is_no_tree(tmp_path: Path) -> None:
    raw = Head([Entry(b"", "f", 0o644, 0, 5)]).raw
    for number, stream in enumerate((b"", raw[:10], raw, raw + b"four")):
        writer = Writer(str(tmp_path / str(number)))
        writer.feed(stream)
        with pytest.raises(BadTreeError, match="ended"):
            writer.finish()
    writer = Writer(str(tmp_path / "more"))
    with pytest.raises(BadTreeError, match="more came"):
        writer.feed(raw + b"sixsix")


def test_nothing_is_written_before_the_whole_index_was_checked(tmp_path: Path) -> None:
    evil = Head([Entry(b"", "d", 0o755), Entry(b"x", "l", target=b".."), Entry(b"x/y", "f", 0o644, 0, 1)]).raw
    writer = Writer(str(tmp_path / "7"))
    with pytest.raises(BadTreeError):
        writer.feed(evil + b"1")
    assert list((tmp_path / "7").iterdir()) == []


def test_a_file_that_shrank_is_noticed(tmp_path: Path) -> None:
    source = make_directory(tmp_path / "source")
    take_in(NewTree(str(source)), str(tmp_path / "7"), lambda path: "move")
    os.truncate(tmp_path / "7/data/sub/large", 100)
    with pytest.raises(OSError, match="cut short"):
        flat(tmp_path / "7")


def test_a_tree_that_is_gone_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "7"))
