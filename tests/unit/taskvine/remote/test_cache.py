"""Files that a node keeps: whole, verified, within a cap, for several processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from graphvine.envs import cache as caches
from graphvine.envs.packing import name_archive
from graphvine.taskvine.remote.cache import NodeCache, content_name, environment_name


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(str(tmp_path / "cache"), 1000)


def made(tmp_path: Path, name: str, data: bytes = b"data") -> str:
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


def age(tmp_path: Path, *names: str) -> None:
    """As if these had been used one after the other, long ago."""
    for number, name in enumerate(names):
        os.utime(tmp_path / "cache" / f"file.{name}.lock", (number, number))


def test_a_file_and_a_directory(cache, tmp_path):
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "sub" / "x").write_text("x")
    (tmp_path / "d" / "sub" / "x").chmod(0o755)
    (tmp_path / "d" / "link").symlink_to("sub/x")
    assert not cache.take("d", str(tmp_path / "got"))
    assert cache.put("d", str(tmp_path / "d"))
    assert cache.take("d", str(tmp_path / "got"))
    assert (tmp_path / "got" / "link").read_text() == "x"
    assert os.access(tmp_path / "got" / "sub" / "x", os.X_OK)
    assert cache.put("f", made(tmp_path, "f"))
    assert cache.take("f", str(tmp_path / "g"))
    assert (tmp_path / "g").read_bytes() == b"data"


def test_what_was_damaged_is_not_given_out(cache, tmp_path):
    cache.put("f", made(tmp_path, "f"))
    (tmp_path / "cache" / "file.f" / "data").write_bytes(b"dada")
    assert not cache.take("f", str(tmp_path / "g"))
    assert not (tmp_path / "g").exists()
    assert cache.names() == []


def test_the_least_recently_used_goes_first(cache, tmp_path):
    for name in "abc":
        cache.put(name, made(tmp_path, name, bytes(300)))
    age(tmp_path, "b", "a", "c")
    assert cache.take("b", str(tmp_path / "got"))
    cache.put("d", made(tmp_path, "d", bytes(400)))
    assert "a" not in cache.names()
    assert "b" in cache.names()


def test_what_is_larger_than_the_cap_is_not_kept(cache, tmp_path):
    cache.put("a", made(tmp_path, "a", bytes(100)))
    assert not cache.put("big", made(tmp_path, "big", bytes(1001)))
    assert cache.names() == ["a"]


@pytest.mark.parametrize("name", ["", "..", ".lock", "a/b", "a\0"])
def test_names(cache, tmp_path, name):
    with pytest.raises(ValueError, match="cannot be the name"):
        cache.take(name, str(tmp_path / "x"))


def test_a_cache_that_cannot_be_used_has_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = NodeCache(str(tmp_path / "file" / "cache"), 1000)
    assert not cache.put("a", made(tmp_path, "a"))
    assert not cache.take("a", str(tmp_path / "x"))
    assert "not kept" in caplog.text


PUT_AND_TAKE = """
import sys
from pathlib import Path
from graphvine.taskvine.remote.cache import NodeCache

directory, number = sys.argv[1], int(sys.argv[2])
cache = NodeCache(f"{directory}/cache", 3000)
for turn in range(40):
    name = f"n{(number + turn) % 7}"
    path = Path(directory, f"{number}-{turn}")
    path.write_bytes(name.encode() * 200)
    cache.put(name, str(path))
    target = Path(directory, f"got-{number}-{turn}")
    if cache.take(name, str(target)):
        assert target.read_bytes() == name.encode() * 200
"""


def test_several_processes_at_once(tmp_path):
    commands = [[sys.executable, "-c", PUT_AND_TAKE, str(tmp_path), str(number)] for number in range(4)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(60) for process in processes] == [0] * 4
    cache = NodeCache(str(tmp_path / "cache"), 3000)
    assert 0 < len(cache.names()) <= 7
    left = {entry.name.split(".")[2] for entry in (tmp_path / "cache").iterdir() if entry.name.count(".") > 1}
    assert left == {"json", "lock", "use"}


def test_names_of_contents(tmp_path):
    a, b = made(tmp_path, "a", b"same"), made(tmp_path, "b", b"same")
    assert content_name(a) == content_name(b) != content_name(made(tmp_path, "c", b"other"))


def test_an_archive_has_one_name_whoever_needs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "cache"))
    path = str(tmp_path / "packed.tar.gz")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(made(tmp_path, "member"), "member")
    assert environment_name(content_name(path)) == name_archive(path).name


PUTTING = """
import os, sys
from graphvine.taskvine.remote import cache
def digest(path):
    print(path, flush=True)
    os.read(0, 1)
cache.digest = digest
cache.NodeCache(sys.argv[1], 1000).put("one", sys.argv[2])
"""


def test_what_a_killed_process_left_is_removed(cache, tmp_path):
    file, directory = made(tmp_path, "file"), str(tmp_path / "cache")
    with subprocess.Popen(
        [sys.executable, "-c", PUTTING, directory, file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        theirs = other.stdout.readline().strip()
        cache.put("two", made(tmp_path, "large", bytes(999)))
        assert os.path.exists(theirs), "somebody is at it"
        other.send_signal(signal.SIGKILL)
    assert not cache.take("one", str(tmp_path / "got"))
    cache.put("three", file)
    assert not os.path.exists(theirs)
    assert cache.put("one", file)
    assert cache.take("one", str(tmp_path / "got"))


def test_environments_and_files_share_one_cap(cache, tmp_path):
    directory = str(tmp_path / "cache")
    cache.put("old", made(tmp_path, "old", bytes(400)))
    cache.put("used", made(tmp_path, "used", bytes(400)))
    age(tmp_path, "old", "used")
    caches.make_room(directory, 1000 - 500, 0, "an-environment")
    assert cache.names() == ["used"]


def test_directories_that_cannot_be_written_to_are_removed_all_the_same(cache, tmp_path):
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "sub" / "x").write_bytes(bytes(600))
    (tmp_path / "d" / "sub").chmod(0o500)
    cache.put("d", str(tmp_path / "d"))
    cache.put("next", made(tmp_path, "next", bytes(600)))
    assert cache.names() == ["next"]
    (tmp_path / "d" / "sub").chmod(0o700)


@pytest.mark.parametrize("how", ["another user's", "for all to write", "another user's link"])
def test_what_others_could_have_put_there_is_not_taken(tmp_path, monkeypatch, how):
    if "user" in how and os.geteuid() != 0:
        pytest.skip("two users need root")
    above = tmp_path / "common"
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(above))
    cache = NodeCache()
    assert cache.put("x", made(tmp_path, "x"))
    assert cache.take("x", str(tmp_path / "first"))
    if how == "another user's":
        os.chown(above, 1000, 1000)
    elif how == "for all to write":
        above.chmod(0o777)
    else:
        above.rename(tmp_path / "elsewhere")
        above.symlink_to(tmp_path / "elsewhere")
        os.chown(above, 1000, 1000, follow_symlinks=False)
    assert not cache.take("x", str(tmp_path / "second"))
    assert not (tmp_path / "second").exists()
    assert not cache.put("y", made(tmp_path, "y"))
    os.chown(above, os.getuid(), os.getgid(), follow_symlinks=False)
    above.chmod(0o700)


def test_its_directories_are_for_their_owner_only(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "common"))
    before = os.umask(0)
    try:
        assert NodeCache().put("x", made(tmp_path, "x"))
    finally:
        os.umask(before)
    assert (tmp_path / "common").stat().st_mode & 0o777 == 0o700
