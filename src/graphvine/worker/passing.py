"""Messages between the agent and its executors that may be too long for their socket (see ``packets``)."""

from __future__ import annotations

import os
import secrets

from graphvine.worker.packets import MAX_MESSAGE_BYTES, REFERENCE

#: Where a message goes when the disk is full: it is read at once, and then it is gone.
_SPARE_DIRECTORY = "/dev/shm"


def refer(message: bytes, scratch: str) -> bytes:
    """``message`` itself, or, when it is long, a reference to a new file that holds it: in ``scratch``, or in
    memory when there is no room. Raises OSError when there is none anywhere."""
    if len(message) <= MAX_MESSAGE_BYTES:
        return message
    try:
        return REFERENCE + os.fsencode(_write(message, scratch))
    except OSError:
        return REFERENCE + os.fsencode(_write(message, _SPARE_DIRECTORY))


def _write(message: bytes, directory: str) -> str:
    path = os.path.join(directory, f"graphvine-message-{os.getpid()}-{secrets.token_hex(8)}")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        try:
            file.write(message)
            file.flush()
        except OSError:
            os.unlink(path)
            os.ftruncate(file.fileno(), 0)
            raise
    return path


def resolve(message: memoryview) -> memoryview:
    """The message itself, read from its file (which is then removed) if it is a reference."""
    if message[:1] != REFERENCE:
        return message
    path = os.fsdecode(bytes(message[1:]))
    with open(path, "rb") as file:
        content = file.read()
    os.unlink(path)
    return memoryview(content)


def forget(message: bytes) -> None:
    """Undo ``refer`` for a message that was not sent."""
    if message[:1] == REFERENCE:
        os.unlink(os.fsdecode(message[1:]))
