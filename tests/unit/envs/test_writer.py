"""Archives as files: the same bytes for the same contents, readable by everybody, whole or not there."""

from __future__ import annotations

import os
import random
import subprocess
import tarfile

import pytest

from graphvine.envs.errors import ChangedError
from graphvine.envs.extract import extract
from graphvine.envs.items import data_item, file_item, link_item, walk
from graphvine.envs.stream import Stream
from graphvine.envs.writer import digest_of, write

LONG = "directory/" * 12 + "n" * 120


@pytest.fixture
def items(tmp_path):
    large = tmp_path / "large"
    large.write_bytes(random.Random(2).randbytes(5_000_000) * 2)
    large.chmod(0o700)
    (tmp_path / "first").write_bytes(b"1")
    return [
        file_item(str(tmp_path / "first"), "first"),
        data_item(LONG, b"long"),
        file_item(str(large), "dir/large"),
        data_item("not-ascii-\udce9-\u00fc", b""),
        link_item("link", "dir/large"),
    ]


@pytest.mark.parametrize("compression", ["zst", "gz"])
def test_what_goes_in_comes_out(tmp_path, items, compression):
    path, target = str(tmp_path / "archive"), tmp_path / "target"
    sizes: list[int] = []
    name = write(
        path, items, compression, lambda item: b"2" if item.target == "first" else None, sizes.append
    )
    assert name == digest_of(path)
    assert sizes[-1] == sum(item.size for item in items)
    target.mkdir()
    with Stream(path) as stream:
        extract(stream, str(target))
    assert (target / "first").read_bytes() == b"2"
    assert (target / LONG).read_bytes() == b"long"
    assert (target / "link").read_bytes() == (tmp_path / "large").read_bytes()
    assert os.access(target / "dir/large", os.X_OK)
    assert sorted(os.listdir(target)) == sorted(
        ["first", "dir", "directory", "link", "not-ascii-\udce9-\u00fc"]
    )
    assert write(str(tmp_path / "again"), items, compression, lambda item: None) != name
    os.utime(tmp_path / "large", (1, 1))
    again = write(
        str(tmp_path / "again"), items, compression, lambda item: b"2" if item.target == "first" else None
    )
    assert again == name


def test_gzip_and_tar_of_others_read_it(tmp_path, items):
    path = str(tmp_path / "a.tar.gz")
    write(path, items, "gz", lambda item: None)
    with tarfile.open(path) as tar:
        assert tar.getnames() == [item.target for item in items]
    listed = subprocess.run(["tar", "tzf", path], capture_output=True, check=True).stdout.decode()
    assert len(listed.splitlines()) == len(items)


@pytest.mark.parametrize("size", [9, 11])
def test_a_file_that_changes_meanwhile_is_an_error(tmp_path, size):
    (tmp_path / "file").write_bytes(b"0123456789")
    item = file_item(str(tmp_path / "file"), "file")
    (tmp_path / "file").write_bytes(b"x" * size)
    with pytest.raises(ChangedError, match="changed while it was packed"):
        write(str(tmp_path / "archive"), [item], "zst", lambda item: None)
    assert os.listdir(tmp_path) == ["file"]


def test_links_that_lead_out_become_what_they_lead_to(tmp_path):
    root = tmp_path / "root"
    outside = tmp_path / "outside"
    (root / "inner").mkdir(parents=True)
    outside.mkdir()
    (outside / "file").write_bytes(b"outside")
    (outside / "back").symlink_to(root)
    (root / "file").write_bytes(b"inside")
    (root / "inner" / "kept").symlink_to("../file")
    (root / "inner" / "absolute").symlink_to(root / "file")
    (root / "inner" / "self").symlink_to(root)
    (root / "out").symlink_to(outside)
    (root / "nowhere").symlink_to("nothing")
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "x.pyc").touch()
    found = {item.target: item.link or item.source for item in walk(str(root), "t")}
    assert found["t/inner/kept"] == "../file"
    assert found["t/inner/absolute"] == str(root / "file")
    assert os.path.samefile(found["t/out/file"], outside / "file")
    assert "t/nowhere" not in found
    assert not [target for target in found if "pycache" in target or target.count("/out") > 1]
    assert "t/file" in found
