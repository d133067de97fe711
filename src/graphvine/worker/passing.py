"""Messages between the agent and its executors that may be too long for their socket (see ``packets``)."""

from __future__ import annotations

import os
import secrets

from graphvine.worker.packets import MAX_MESSAGE_BYTES, REFERENCE


def refer(message: bytes, scratch: str) -> bytes:
    """``message`` itself, or, when it is long, a reference to a new file in ``scratch`` that holds it."""
    if len(message) <= MAX_MESSAGE_BYTES:
        return message
    path = os.path.join(scratch, f"message-{os.getpid()}-{secrets.token_hex(8)}")
    with open(path, "xb") as file:
        file.write(message)
    return REFERENCE + os.fsencode(path)


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
