"""What a running task has to say beside its result: a small note that travels with the news of it, and words
on the way."""

from __future__ import annotations

from collections.abc import Callable

#: More than this does not travel with the news of a result.
MAX_NOTE_BYTES = 64 * 1024

_note = b""
_tell: Callable[[bytes], None] | None = None


def set_note(data: bytes) -> None:
    """Attach ``data`` to the result of the task that is running, whatever becomes of it (unless the process
    dies). The last note counts. Raises ValueError for one that is too long."""
    global _note
    if len(data) > MAX_NOTE_BYTES:
        raise ValueError(f"a note has at most {MAX_NOTE_BYTES} bytes, not {len(data)}")
    _note = bytes(data)


def take_note() -> bytes:
    """The note of the task that just ended; the next one begins without."""
    global _note
    note, _note = _note, b""
    return note


def tell(data: bytes) -> None:
    """Have who waits for the running task hear of ``data`` at once, in the order in which it is said. May be
    called from any thread of the task. Lost when the worker is. Raises ValueError for more than fits a note,
    RuntimeError outside of a task."""
    if len(data) > MAX_NOTE_BYTES:
        raise ValueError(f"a task can tell {MAX_NOTE_BYTES} bytes at a time, not {len(data)}")
    if _tell is None:
        raise RuntimeError("only a task that runs on a worker has somebody to tell")
    _tell(data)


def listen(listener: Callable[[bytes], None]) -> None:
    """Who passes on what is told, in this process."""
    global _tell
    _tell = listener
