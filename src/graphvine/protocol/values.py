"""Python values as bytes: inline for small ones, a mapped file for large ones.

Pickle protocol 5 with buffers out of band (PEP 574). A value file is

    magic (8 bytes) | number of buffers (u64) | length of the pickle (u64) | length of each buffer (u64 each)
    | the pickle | each buffer, at the next multiple of 64 bytes

so that whoever reads it maps the file and gets its arrays without a copy. Maps are private: an array got
from one may be written to, and the file stays as it is. Plain pickle comes first, cloudpickle only for what
plain pickle cannot carry; then what many values share is pickled apart (``commons``), as the last buffers.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import pickle
import resource
import stat
import struct
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

MAGIC = b"gvvalue1"
_HEAD = struct.Struct("<8sQQ")
_ALIGN = 64
#: The memory of value files at least this large may be used again.
REUSED_BYTES = 2**20
#: writev takes at most this many pieces a call (Linux: IOV_MAX).
_MAX_PIECES = 1024
#: The user's script in a pickle: ``__main__``, or ``__mp_main__`` in a child that multiprocessing spawned.
MAIN = b"_main__"
_READ_AND_WRITE = mmap.PROT_READ | mmap.PROT_WRITE


class UnpicklableError(Exception):
    """Neither pickle nor cloudpickle can carry a value; the message says what and why."""


class DamagedValueError(Exception):
    """Bytes that are not a whole value file."""


#: Types (not Python's own) whose values plain pickle could not carry: not tried again.
_beyond_pickle: weakref.WeakSet[type] = weakref.WeakSet()


class _Buffers:
    """Which buffers of a value go out of band: all that no longer fit within ``in_band_bytes``."""

    def __init__(self, in_band_bytes: int) -> None:
        self._room = in_band_bytes
        self.apart: list[pickle.PickleBuffer] = []

    def __call__(self, buffer: pickle.PickleBuffer) -> bool:
        """Called by the pickler: whether it is to go in band."""
        if self._room > 0:
            with memoryview(buffer) as view:
                size = view.nbytes if view.contiguous else self._room + 1
            if size <= self._room:
                self._room -= size
                return True
        self.apart.append(buffer)
        return False


def dumps(value: object, in_band_bytes: int = 0) -> tuple[bytes, list[memoryview]]:
    """The pickle of ``value`` and its out-of-band buffers. Raises UnpicklableError.

    Of its buffers, ``in_band_bytes`` at most stay in the pickle: a small value is its pickle alone."""
    buffers = _Buffers(in_band_bytes)
    kind = type(value)
    if kind in _beyond_pickle:
        return _dumps_with_commons(value, in_band_bytes)
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=buffers)
        by_reference = MAIN in data
    except Exception:  # noqa: BLE001 -- pickle passes on whatever a __reduce__ raises
        by_reference = True
        if kind.__module__ != "builtins":
            _beyond_pickle.add(kind)
    if by_reference:
        # What lives in __main__ pickles by reference here and is found nowhere else.
        return _dumps_with_commons(value, in_band_bytes)
    try:
        return data, [buffer.raw() for buffer in buffers.apart]
    except BufferError:
        # Not contiguous: carried in band.
        return _cloudpickle(value), []


def _dumps_with_commons(value: object, in_band_bytes: int) -> tuple[bytes, list[memoryview]]:
    from graphvine.protocol import commons

    buffers = _Buffers(in_band_bytes)
    try:
        data, shared = commons.dumps(value, buffers)
        if shared and not buffers.apart and len(data) + sum(map(len, shared)) <= in_band_bytes:
            return _cloudpickle(value), []
        return data, [*(buffer.raw() for buffer in buffers.apart), *(memoryview(one) for one in shared)]
    except BufferError:
        return _cloudpickle(value), []
    except Exception as error:
        raise _unpicklable(value, error) from error


def _cloudpickle(value: object) -> bytes:
    import cloudpickle

    try:
        return cloudpickle.dumps(value, protocol=5)  # type: ignore[no-any-return]
    except Exception as error:
        raise _unpicklable(value, error) from error


def _unpicklable(value: object, error: Exception) -> UnpicklableError:
    return UnpicklableError(f"{type(value).__name__} cannot be pickled: {error}")


def size_of(data: bytes, buffers: Sequence[memoryview]) -> int:
    """Bytes of the value file of these parts."""
    return sum(map(len, layout(data, buffers)))


def layout(data: bytes, buffers: Sequence[memoryview]) -> list[bytes | memoryview]:
    """The pieces of a value file, in order, padding included."""
    lengths = [buffer.nbytes for buffer in buffers]
    head = _HEAD.pack(MAGIC, len(buffers), len(data)) + struct.pack(f"<{len(lengths)}Q", *lengths)
    pieces: list[bytes | memoryview] = [head, data]
    position = len(head) + len(data)
    for buffer, length in zip(buffers, lengths, strict=True):
        gap = -position % _ALIGN
        pieces += [bytes(gap), buffer.cast("B") if buffer.format != "B" or buffer.ndim != 1 else buffer]
        position += gap + length
    return pieces


def write(descriptor: int, pieces: Iterable[bytes | memoryview]) -> int:
    """Write all of ``pieces`` to a file. Returns the bytes written. Raises OSError (ENOSPC and the like)."""
    queue = [memoryview(piece) for piece in pieces if len(piece)]
    total = 0
    while queue:
        written = os.writev(descriptor, queue[:_MAX_PIECES])
        total += written
        done = 0
        while done < len(queue) and written >= queue[done].nbytes:
            written -= queue[done].nbytes
            done += 1
        del queue[:done]
        if written:
            queue[0] = queue[0][written:]
    return total


def loads_inline(data: bytes | memoryview) -> Any:
    """The value of an inline pickle (one without out-of-band buffers)."""
    return pickle.loads(data)


def loads_file(path: str) -> Any:
    """The value in a value file, its buffers mapped privately. Raises OSError, DamagedValueError."""
    return loads(map_file(path), path)


def map_file(path: str) -> memoryview:
    """A private map of a value file: writable, and the file stays as it is. Raises OSError (also when the
    file was just dropped; IsADirectoryError when it is a tree), DamagedValueError.

    The memory of a large file may be used again for another when it is dropped (see ``worker.spare``): so
    as long as the map lives, a shared lock says that it is in use.

    Each map has a descriptor of its own. Where half of those that this process may have are taken, the file
    is read instead: the rest are for what else opens files here."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a tree", path)
        size = state.st_size
        if size < _HEAD.size:
            raise DamagedValueError(f"{path}: {size} bytes are not a value file")
        if size >= REUSED_BYTES:
            lock_for_reading(descriptor, path)
        if _are_scarce(descriptor):
            return _copy(descriptor, size, path)
        # It duplicates the descriptor, and so the lock, and has them as long as anybody uses it.
        return memoryview(mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=_READ_AND_WRITE))
    finally:
        os.close(descriptor)


def _are_scarce(descriptor: int) -> bool:
    """Whether half of the descriptors are taken: one more is the lowest that is free."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    another = os.dup(descriptor)
    os.close(another)
    return soft != resource.RLIM_INFINITY and another >= soft // 2


def _copy(descriptor: int, size: int, path: str) -> memoryview:
    """The content of a file in memory of this process."""
    view = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=_READ_AND_WRITE))
    filled = 0
    while filled < size:
        read = os.readv(descriptor, [view[filled:]])
        if read == 0:
            raise DamagedValueError(f"{path} is cut short: {filled} bytes of {size}")
        filled += read
    return view


def lock_for_reading(descriptor: int, path: str) -> None:
    """Say that an open file is being read, as long as ``descriptor`` is open. Raises FileNotFoundError when
    it is not the file of that name any more."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        still_there = os.path.samestat(os.fstat(descriptor), os.stat(path))
    except BlockingIOError:
        still_there = False
    if not still_there:
        raise FileNotFoundError(errno.ENOENT, "it was just dropped", path)


def loads(view: memoryview, origin: str = "a value") -> Any:
    """The value of a whole value file in memory. Raises DamagedValueError."""
    magic, count, length = _HEAD.unpack_from(view)
    if magic != MAGIC or count * 8 + length > len(view):
        raise DamagedValueError(f"{origin} is not a value file")
    lengths = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    position = _HEAD.size + 8 * count
    data = view[position : position + length]
    position += length
    buffers = []
    for size in lengths:
        position += -position % _ALIGN
        buffers.append(view[position : position + size])
        position += size
    if position > len(view):
        raise DamagedValueError(f"{origin} is cut short: {len(view)} bytes of {position}")
    if bytes(data[:1]) in (pickle.PROTO, b""):
        return pickle.loads(data, buffers=buffers)
    from graphvine.protocol import commons

    return commons.loads(data, buffers)
