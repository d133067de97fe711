"""Archives unpacked where they are needed: tar, plain or compressed, and zip.

An archive comes from anywhere, so nothing of it may be written beyond its directory: absolute names, ``..``,
hard links that lead out, and what would be written through a symbolic link are refused (``tarfile``'s filter
"data"; PEP 706). A symbolic link itself may lead anywhere, as it does where ``tar`` unpacks.
"""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

from graphvine.protocol.trees import NewTree, Tree
from graphvine.taskvine.remote.contents import (
    Absent,
    SmallFile,
    is_for_lack_of_room,
    place,
    reason_absent,
    resolved,
    telling_full_disks,
)
from graphvine.worker import scratch

_BLOCK = 2**20
_ZSTANDARD = b"\x28\xb5\x2f\xfd"


class BadArchiveError(ValueError):
    """What was to be unpacked is no whole archive, or a dangerous one."""


def untar(inputs: Sequence[Any]) -> NewTree | Absent:
    """The directory that an archive unpacks to. Raises BadArchiveError, FullDiskError, OSError."""
    archive = resolved(inputs[0])
    reason = reason_absent(archive)
    if reason:
        return Absent(reason, is_for_lack_of_room(archive))
    with telling_full_disks("an archive that is unpacked"):
        return _untar(archive)


def _untar(archive: Any) -> NewTree:
    home = scratch.directory()
    target = os.path.join(home, "unpacked")
    os.mkdir(target)
    if isinstance(archive, Tree):
        path = archive.path
    else:
        assert isinstance(archive, SmallFile), "an archive is a file"
        path = os.path.join(home, "archive")
        place(archive, path)
    unpack(path, target)
    return NewTree(target)


def unpack(path: str, target: str) -> None:
    """Unpack an archive into a directory. Raises BadArchiveError, OSError."""
    try:
        if os.path.isdir(path):
            raise BadArchiveError("a directory is no archive")
        with open(path, "rb") as file:
            begin = file.read(4)
        if begin == _ZSTANDARD:
            _unpack_zstandard(path, target)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                packed.extractall(target)
        else:
            with tarfile.open(path) as tar:
                _extract(tar, target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError, zlib.error) as error:
        # tarfile lists what it tried, a line for each.
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if text.startswith("file could not be opened"):
            text = "it is no tar (plain, or compressed with gzip, bzip2, xz or zstd), and no zip"
        raise BadArchiveError(f"the archive cannot be unpacked: {text}") from error
    except OSError as error:
        # gzip and bzip2 say so of a wrong checksum; what the system says has a number.
        if error.errno is None:
            raise BadArchiveError(f"the archive cannot be unpacked: {error}") from error
        raise


def _unpack_zstandard(path: str, target: str) -> None:
    try:
        import zstandard
    except ImportError:
        raise BadArchiveError("the archive is compressed with zstd: install the package zstandard") from None
    try:
        with (
            open(path, "rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            _extract(tar, target)
    except zstandard.ZstdError as error:
        raise BadArchiveError(f"the archive cannot be unpacked: {error}") from error


def _extract(tar: tarfile.TarFile, target: str) -> None:
    tar.extractall(target, filter=_admitted)
    # Checksums stand at the end of compressed streams, beyond what the archive itself needs.
    while tar.fileobj is not None and tar.fileobj.read(_BLOCK):
        pass


def _admitted(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
    """What of a member is unpacked. Raises tarfile.FilterError."""
    try:
        return tarfile.data_filter(member, target)
    except (tarfile.AbsoluteLinkError, tarfile.LinkOutsideDestinationError):
        if not member.issym():
            raise
    link = tarfile.tar_filter(member, target)
    return link.replace(uid=None, gid=None, uname=None, gname=None, deep=False)  # type: ignore[arg-type]
