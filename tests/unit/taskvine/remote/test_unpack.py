"""Archives: every compression, and nothing that leaves its directory."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from graphvine.taskvine.remote.unpack import BadArchiveError, unpack


def archive(path: Path, mode: str, *members: tuple[tarfile.TarInfo, bytes]) -> str:
    with tarfile.open(path, mode) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def named(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar(tmp_path, mode):
    path = archive(tmp_path / "a", mode, (named("d/run", mode=0o755), b"x"), (named("e"), b"y"))
    unpack(path, str(tmp_path / "out"))
    assert (tmp_path / "out" / "d" / "run").read_bytes() == b"x"
    assert os.access(tmp_path / "out" / "d" / "run", os.X_OK)


def test_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w") as packed:
        packed.writestr("d/x", "x")
    unpack(str(tmp_path / "a"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "d" / "x").read_text() == "x"


@pytest.mark.parametrize(
    "info",
    [
        named("../out-of-it"),
        named("link", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        named("link", type=tarfile.LNKTYPE, linkname="../../x"),
        named("pipe", type=tarfile.FIFOTYPE),
    ],
    ids=["parent", "absolute link", "link out", "pipe"],
)
def test_what_leads_out_is_refused(tmp_path, info):
    path = archive(tmp_path / "a", "w", (info, b""))
    (tmp_path / "out").mkdir()
    with pytest.raises(BadArchiveError):
        unpack(path, str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path)) == ["a", "out"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_symbolic_links_are_what_they_are_and_nothing_is_written_through_them(tmp_path, mode):
    (tmp_path / "elsewhere").mkdir()
    targets = {"absolute": str(tmp_path / "elsewhere"), "out": "../elsewhere", "in": "x"}
    links = [(named(name, type=tarfile.SYMTYPE, linkname=target), b"") for name, target in targets.items()]
    unpack(archive(tmp_path / "a", mode, *links, (named("x"), b"1")), str(tmp_path / "good"))
    assert {
        path.name: os.readlink(path) for path in (tmp_path / "good").iterdir() if path.is_symlink()
    } == targets
    assert (tmp_path / "good" / "in").read_bytes() == b"1"
    for through in ("absolute/y", "out/y"):
        with pytest.raises(BadArchiveError, match="outside the destination"):
            unpack(archive(tmp_path / "b", mode, *links, (named(through), b"2")), str(tmp_path / "bad"))
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("damage", ["rubbish", "cut", "flipped", "empty"])
def test_damaged(tmp_path, damage):
    path = Path(archive(tmp_path / "a", "w:gz", (named("x"), os.urandom(100_000))))
    data = path.read_bytes()
    path.write_bytes(
        {
            "rubbish": b"no archive at all" * 50,
            "cut": data[:50_000],
            "flipped": data[:50_000] + b"\0\0\0\0" + data[50_004:],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(BadArchiveError, match="cannot be unpacked"):
        unpack(str(path), str(tmp_path / "out"))


def test_what_is_no_archive_is_said_in_one_line(tmp_path):
    (tmp_path / "no.tar").write_text("words\n")
    with pytest.raises(BadArchiveError) as caught:
        unpack(str(tmp_path / "no.tar"), str(tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert "it is no tar (plain, or compressed with" in str(caught.value)
