"""A small note that a running task attaches to its result, and that travels with the news of it."""

from __future__ import annotations

#: More than this does not travel with the news of a result.
MAX_NOTE_BYTES = 64 * 1024

_note = b""


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
