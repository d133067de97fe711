"""Small archives that hold a real Python: a link to the one that runs the tests."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

Contents = Mapping[str, "bytes | str | tarfile.TarInfo"]
MakeArchive = Callable[..., str]


def write_tar(path: Path, contents: Contents, mode: str = "w:gz") -> str:
    """A tar file: bytes become files, text becomes links, a TarInfo stands for itself."""
    with tarfile.open(path, mode) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.fixture
def make_archive(tmp_path) -> MakeArchive:
    """``make_archive(contents, mode="w:gz", name="env.tar.gz")``: an archive with a Python and contents."""

    def make(contents: Contents | None = None, mode: str = "w:gz", name: str = "env.tar.gz") -> str:
        return write_tar(tmp_path / name, {"bin/python": sys.executable, **(contents or {})}, mode)

    return make


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MB; skipped where none can be mounted."""
    directory = tmp_path / "small"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "graphvine-test", str(directory)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a file system")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)
