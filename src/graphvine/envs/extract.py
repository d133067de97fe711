"""A tar stream made into a directory, without trusting its names.

Rules:
- Nothing is written outside the target: absolute names and ``..`` are refused, and symbolic links are made
  last, so that nothing is ever written through one. Where a link leads is the archive's own business (a
  virtual environment that others packed may have ``bin/python -> /usr/bin/python3``).
- Hard links may name files of the archive only. Devices, pipes and sockets are refused.
- Times of files are kept where the archive is not ours: Python's bytecode files go by them. In ours nothing
  does, and files that look new are safe from whatever cleans temporary directories.
- The stream is read to its end: an archive that was cut short, or broken in the middle, is an error.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from graphvine.envs.errors import UnsafeArchiveError
from graphvine.envs.metadata import MEMBER, Metadata, decode
from graphvine.envs.stream import Stream, damaged

#: How much is read from the stream, and written to a file, at once.
_BUFFER_BYTES = 2**20
#: How much to read at once where only the beginning is wanted.
_FIRST_BYTES = 16 * 1024
#: Above this a metadata member is none of ours.
_MAX_METADATA_BYTES = 64 * 2**20


def extract(stream: Stream, target: str, on_file: Callable[[], None] | None = None) -> Metadata | None:
    """Unpack into the directory ``target``, which must be there and empty. Returns what the archive says of
    itself, if it does. Raises DamagedArchiveError, OSError."""
    return _Extraction(stream, target, on_file or (lambda: None)).run()


def read_metadata(stream: Stream) -> Metadata | None:
    """What an archive says of itself, in its first member; None where it does not. Raises as ``extract``."""
    for tar, member in members(stream, _FIRST_BYTES):
        if member.isfile() and member.name == MEMBER:
            return _decoded(stream, tar, member)
        return None
    raise damaged(stream.path, "it is empty")


def members(stream: Stream, buffer: int = _BUFFER_BYTES) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """All members in order, and the end checked. The stream stands at the member's content."""
    try:
        # tarfile's own reader of streams copies its whole buffer at every small read.
        forward = cast(BinaryIO, _Forward(stream, buffer))
        with tarfile.open(fileobj=forward, mode="r:", errors="surrogateescape") as tar:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # it would keep them all
                yield tar, member
            _check_end(stream, tar)
    except tarfile.TarError as error:
        raise damaged(stream.path, str(error)) from error


def _check_end(stream: Stream, tar: tarfile.TarFile) -> None:
    """tarfile takes any unreadable header for the end: after a true one there are only zeros."""
    content = _content(tar)
    while block := content.read(_BUFFER_BYTES):
        if block.count(0) != len(block):
            raise damaged(stream.path, "a header in it is not readable")
    stream.finish()


def _content(tar: tarfile.TarFile) -> BinaryIO:
    """What tarfile reads from; what it offers for members adds three layers to each read."""
    return cast(BinaryIO, tar.fileobj)


def _decoded(stream: Stream, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Metadata:
    if member.size > _MAX_METADATA_BYTES:
        raise damaged(stream.path, "its description is too large")
    try:
        return decode(_content(tar).read(member.size))
    except ValueError as error:
        raise damaged(stream.path, f"its description is not readable ({error})") from error


class _Forward:
    """A stream as tarfile wants it: it seeks forward only, but for the byte before the one it stands at."""

    def __init__(self, stream: Stream, buffer: int) -> None:
        self._stream = stream
        self._size = buffer
        self._buffer = memoryview(b"")
        self._start = 0  # where in the stream the buffer begins
        self._at = 0  # where in the buffer we are
        self._last = b""

    def tell(self) -> int:
        return self._start + self._at

    def seek(self, position: int) -> int:
        if position == self.tell() - 1:
            if self._at:
                self._at -= 1
            else:
                self._buffer = memoryview(self._last + self._buffer)
                self._start -= 1
        elif position < self.tell():
            raise tarfile.StreamError("seeking backwards is not allowed")
        while position > self.tell() and self._fill():
            self._at = min(position - self._start, len(self._buffer))
        return self.tell()

    def read(self, size: int) -> bytes:
        if self._at + size <= len(self._buffer):
            data = bytes(self._buffer[self._at : self._at + size])
            self._at += size
            return data
        parts = []
        while size and self._fill():
            part = self._buffer[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _fill(self) -> bool:
        """Whether there is something in the buffer to read."""
        if self._at < len(self._buffer):
            return True
        data = self._stream.read(self._size)
        if data:
            self._last = bytes(self._buffer[-1:])
            self._start += len(self._buffer)
            self._buffer, self._at = memoryview(data), 0
        return bool(data)


class _Extraction:
    def __init__(self, stream: Stream, target: str, on_file: Callable[[], None]) -> None:
        self._stream = stream
        self._target = target
        self._on_file = on_file
        self._directories = {""}
        self._links: list[tuple[str, str]] = []
        self._metadata: Metadata | None = None

    def run(self) -> Metadata | None:
        for tar, member in members(self._stream):
            self._add(tar, member)
        for inside, leads_to in self._links:
            self._make_link(inside, leads_to)
        return self._metadata

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        inside = self._safe(member.name)
        if member.isdir():
            self._make_directory(inside)
            return
        if not inside:
            raise self._unsafe(member.name)
        self._make_directory(os.path.dirname(inside))
        if member.isreg():
            if inside == MEMBER:
                self._metadata = _decoded(self._stream, tar, member)
            else:
                self._write(tar, member, inside)
        elif member.issym():
            self._links.append((inside, member.linkname))
        elif member.islnk():
            self._make_hard_link(inside, self._safe(member.linkname))
        else:
            raise UnsafeArchiveError(
                f"the archive {self._stream.path} holds a device or pipe ({member.name}): it is not used"
            )
        self._on_file()

    def _safe(self, name: str) -> str:
        """A member's name as a path below the target. Raises UnsafeArchiveError."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts:
            raise self._unsafe(name)
        return "/".join(parts)

    def _unsafe(self, name: str) -> UnsafeArchiveError:
        return UnsafeArchiveError(
            f"the archive {self._stream.path} names a file outside of itself ({name}): it is not used"
        )

    def _path(self, inside: str) -> str:
        return f"{self._target}/{inside}"

    def _make_directory(self, inside: str) -> None:
        if inside in self._directories:
            return
        self._make_directory(os.path.dirname(inside))
        try:
            os.mkdir(self._path(inside))
        except FileExistsError as error:
            raise damaged(self._stream.path, f"{inside} is in it as a file and as a directory") from error
        self._directories.add(inside)

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, inside: str) -> None:
        descriptor = self._create(inside, member.mode & 0o777 | 0o400)
        try:
            content, left = _content(tar), member.size
            while left:
                block = memoryview(content.read(min(left, _BUFFER_BYTES)))
                if not block:
                    raise damaged(self._stream.path, f"{inside} is cut short")
                left -= len(block)
                while block:
                    block = block[os.write(descriptor, block) :]
            if self._metadata is None:
                os.utime(descriptor, (member.mtime, member.mtime))
        finally:
            os.close(descriptor)

    def _create(self, inside: str, mode: int) -> int:
        path, flags = self._path(inside), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, mode)
        except FileExistsError:
            self._replace(inside)
            return os.open(path, flags, mode)

    def _replace(self, inside: str) -> None:
        """A name that comes twice: the later one counts, as everywhere with tar."""
        if inside in self._directories:
            raise damaged(self._stream.path, f"{inside} is in it as a file and as a directory")
        os.unlink(self._path(inside))

    def _make_hard_link(self, inside: str, source: str) -> None:
        try:
            os.link(self._path(source), self._path(inside), follow_symlinks=False)
        except FileExistsError:
            if source != inside:
                self._replace(inside)
                os.link(self._path(source), self._path(inside), follow_symlinks=False)
        except (FileNotFoundError, PermissionError) as error:
            raise damaged(self._stream.path, f"{inside} is a link to {source}, which is not in it") from error

    def _make_link(self, inside: str, leads_to: str) -> None:
        try:
            os.symlink(leads_to, self._path(inside))
        except FileExistsError:
            self._replace(inside)
            os.symlink(leads_to, self._path(inside))
