"""Reading an archive's bytes, whatever it is compressed with: a stream that tells when it was cut short.

- zstd (ours, and conda-pack's), gzip (conda-pack's and poncho's), bzip2, xz, and a plain tar file are told by
  their first bytes, not by their names.
- Checksums inside (zstd's, gzip's) are checked by whoever decompresses; ``Stream.finish`` reads what is left,
  so that the last one is checked too, and sees that the tar file itself came to its end.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import queue
import threading
import zlib
from typing import BinaryIO, Protocol

import zstandard

from graphvine.envs.errors import DamagedArchiveError

#: Compressed bytes that are decompressed in one go.
_CHUNK_BYTES = 128 * 1024
_BLOCK = 512
#: How many blocks, and of which size, are decompressed before anybody asks.
_AHEAD, _AHEAD_BYTES = 8, 2**20
_FAULTS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError)


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class Stream:
    """The tar file inside an archive, read once from front to back.

    Raises DamagedArchiveError where the archive is not what it should be, FileNotFoundError and such when it
    can't be opened. With ``ahead`` a thread decompresses while its reader does something else.
    ``read_bytes`` counts compressed bytes, for showing progress."""

    def __init__(self, path: str, *, ahead: bool = False) -> None:
        self.path = path
        self._file = open(path, "rb")  # noqa: SIM115 -- closed by close()
        try:
            self._source = _decompressor(self._file, path)
            if ahead:
                self._source = _Ahead(self._source)
        except BaseException:
            self._file.close()
            raise
        self._tail = b""

    @property
    def read_bytes(self) -> int:
        return self._file.tell()

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, b"" at the end."""
        try:
            data = self._source.read(size)
        except _FAULTS as error:
            raise damaged(self.path, str(error)) from error
        if data:
            self._tail = data[-_BLOCK:] if len(data) >= _BLOCK else (self._tail + data)[-_BLOCK:]
        return data

    def finish(self) -> None:
        """Read to the end: raises DamagedArchiveError unless a tar file ends there."""
        while self.read(2**20):
            pass
        if self._tail != bytes(_BLOCK):
            raise damaged(self.path, "it ends too early")

    def close(self) -> None:
        self._source.close()
        self._file.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def damaged(path: str, why: str) -> DamagedArchiveError:
    """The error for an archive that is not whole."""
    return DamagedArchiveError(f"the archive {path} is damaged: {why}. Pack the environment again")


def _decompressor(file: BinaryIO, path: str) -> _Source:
    head = file.read(_BLOCK)
    file.seek(0)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _ZstdSource(file)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(file)
    if head[257:262] == b"ustar":
        return file
    if head.startswith(b"PK\x03\x04"):
        raise DamagedArchiveError(f"{path} is a zip file; pack the environment as .tar.zst or .tar.gz")
    raise DamagedArchiveError(
        f"{path} is no archive of an environment (not zstd, gzip, bzip2, xz or tar); "
        "make one with: graphvine env pack"
    )


class _Ahead:
    """Reads from another source in a thread, a few blocks ahead. Decompressing needs no lock of Python's."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._blocks: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._ready = memoryview(b"")
        self._ended: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="graphvine-decompress", daemon=True)
        self._thread.start()

    def read(self, size: int) -> bytes:
        if not self._ready and self._ended is None:
            block = self._blocks.get()
            if isinstance(block, BaseException):
                self._ended = block
            else:
                self._ready = memoryview(block)
        if not self._ready and not isinstance(self._ended, _End):
            assert self._ended is not None
            raise self._ended
        data, self._ready = bytes(self._ready[:size]), self._ready[size:]
        return data

    def close(self) -> None:
        self._stopped = True
        while self._ended is None:  # the thread may wait for room
            block = self._blocks.get()
            self._ended = block if isinstance(block, BaseException) else None
        self._thread.join()
        self._source.close()

    def _run(self) -> None:
        try:
            while not self._stopped and (data := self._source.read(_AHEAD_BYTES)):
                self._blocks.put(data)
            self._blocks.put(_End())
        except BaseException as error:  # noqa: BLE001 -- raised by whoever reads
            self._blocks.put(error)


class _End(Exception):
    """The last thing in the queue, when nothing went wrong."""


class _ZstdSource:
    """Frames of zstd one after the other. The library's own reader takes a file that was cut short for one
    that ends."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._compressed = b""
        self._ready = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._ready:
            data = self._compressed or self._file.read(_CHUNK_BYTES)
            self._compressed = b""
            if not data:
                if self._begun and not self._frame.eof:
                    raise EOFError("it is cut short")
                return b""
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._begun = True
            self._ready = memoryview(self._frame.decompress(data))
            if self._frame.eof:
                self._compressed = self._frame.unused_data
        data, self._ready = bytes(self._ready[:size]), self._ready[size:]
        return data

    def close(self) -> None:
        self._ready = memoryview(b"")
