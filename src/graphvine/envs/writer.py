"""Writes an archive: a tar stream, compressed by all cores, and named by its own bytes.

What goes in is sorted, and nothing in it depends on when or where it was packed: the same contents give the
same archive. Written beside its place and renamed, so that a killed process leaves no half one.
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Protocol

import xxhash
import zstandard

from graphvine.envs.errors import ChangedError
from graphvine.envs.items import Item

#: Level 3 is as fast as disks are; higher ones cost more than they save on a local network.
_ZSTD_LEVEL = 3
_GZIP_LEVEL = 6
_CHUNK_BYTES = 2**20
#: Each is a gzip member of its own, so that several can be made at once.
_GZIP_BLOCK_BYTES = 4 * 2**20
#: 1980: what reads archives as zip files do knows nothing earlier.
_TIME = 315_532_800
_END = bytes(2 * tarfile.BLOCKSIZE)

SUFFIXES = {"zst": ".tar.zst", "gz": ".tar.gz"}
Contents = Callable[[Item], "bytes | None"]


def write(
    path: str,
    items: Iterable[Item],
    compression: str,
    contents: Contents,
    progress: Callable[[int], None] | None = None,
    *,
    before: bytes = b"",
) -> str:
    """Write the archive; returns the digest of its bytes, 32 hexadecimal digits. ``contents`` may give an
    item other contents of the same size. ``progress`` is called with how many bytes went in. ``before``: what
    the archive begins with, from ``compressed``. Raises ChangedError, OSError."""
    with _appearing(path) as output:
        output.write(before)
        with _compressor(compression, output) as compressor:
            _write_tar(compressor, items, contents, progress or (lambda size: None))
            compressor.write(_END)
    return output.digest.hexdigest()


def compressed(items: Iterable[Item], contents: Contents) -> bytes:
    """These as the beginning of a gzip archive, in gzip members of their own. Raises as ``write``."""
    output = io.BytesIO()
    with _ParallelGzip(output) as compressor:
        _write_tar(compressor, items, contents, lambda size: None)
    return output.getvalue()


def write_gzip(path: str, blocks: Iterable[bytes]) -> None:
    """A file of these bytes, compressed. Raises OSError, and what ``blocks`` raises."""
    with _appearing(path) as output, _compressor("gz", output) as compressor:
        for block in blocks:
            compressor.write(block)


@contextlib.contextmanager
def _appearing(path: str) -> Iterator[_Digested]:
    """A file that is there once it is whole, or not at all."""
    temporary = f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            yield _Digested(file)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def digest_of(path: str) -> str:
    """The same for an archive that is there. Raises OSError."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while data := file.read(_CHUNK_BYTES):
            digest.update(data)
    return digest.hexdigest()


def _write_tar(
    output: _Output, items: Iterable[Item], contents: Contents, progress: Callable[[int], None]
) -> None:
    done = 0
    for item in items:
        output.write(_header(item))
        if item.link:
            continue
        data = item.data if item.data is not None else contents(item)
        if data is None:
            _copy(item, output)
        else:
            output.write(data)
        output.write(bytes(-item.size % tarfile.BLOCKSIZE))
        done += item.size
        progress(done)


def _header(item: Item) -> bytes:
    info = tarfile.TarInfo(item.target)
    info.mode = 0o755 if item.mode & 0o100 else 0o644
    info.mtime = _TIME
    if item.link:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, item.link, 0o777
    else:
        info.size = item.size
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _copy(item: Item, output: _Output) -> None:
    left = item.size
    with open(item.source, "rb", buffering=0) as file:
        while left:
            data = file.read(min(left, _CHUNK_BYTES))
            if not data:
                raise _changed(item)
            left -= len(data)
            output.write(data)
        if file.read(1):
            raise _changed(item)


def _changed(item: Item) -> ChangedError:
    return ChangedError(f"{item.source} changed while it was packed; pack again")


class _Output(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _Digested:
    """A file whose digest is known when it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = xxhash.xxh3_128()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def _compressor(compression: str, output: _Digested) -> contextlib.AbstractContextManager[_Output]:
    if compression == "gz":
        return _ParallelGzip(output)
    return _Zstd(output)


class _Buffered:
    """Small writes gathered into large ones."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[bytes] = []
        self._length = 0

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._length += len(data)
        if self._length >= self._size:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        self._length = 0
        if data:
            self._compress(data)

    def _compress(self, data: bytes) -> None:
        raise NotImplementedError


class _Zstd(_Buffered):
    def __init__(self, output: _Digested) -> None:
        super().__init__(_CHUNK_BYTES)
        self._output = output
        threads = len(os.sched_getaffinity(0))
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=threads, write_checksum=True)
        self._frame = compressor.compressobj()

    def _compress(self, data: bytes) -> None:
        compressed = self._frame.compress(data)
        if compressed:
            self._output.write(compressed)

    def __enter__(self) -> _Zstd:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._flush()
            self._output.write(self._frame.flush())


class _ParallelGzip(_Buffered):
    """Blocks compressed at once and written in order: gzip takes several members for one file."""

    def __init__(self, output: _Output) -> None:
        super().__init__(_GZIP_BLOCK_BYTES)
        self._output = output
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads)
        self._waiting: collections.deque[Future[bytes]] = collections.deque()

    def _compress(self, data: bytes) -> None:
        self._waiting.append(self._pool.submit(gzip.compress, data, _GZIP_LEVEL, mtime=0))
        if len(self._waiting) > 2 * self._threads:
            self._output.write(self._waiting.popleft().result())

    def __enter__(self) -> _ParallelGzip:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._flush()
                while self._waiting:
                    self._output.write(self._waiting.popleft().result())
        finally:
            self._pool.shutdown(cancel_futures=True)
