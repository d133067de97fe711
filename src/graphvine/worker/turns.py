"""Turns: what a running task does under one of the manager's limits, in the middle of it.

A task with a limit is let through before it is placed. Sometimes that is too early to tell: a file that each
worker fetches for itself is fetched as a part of the first task there that needs it, and only then its source
must not be asked by too many. So the task asks, and sleeps until the manager lets it through; it says when it
is done, and if it dies, the manager learns of that as ever. One question and one answer a turn, nobody polls.

The answer comes to a socket of the task's own, as the inbox of its executor is full of other things. It has
an abstract address, so nothing of it is left, whatever becomes of the process.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable, Iterator

#: Asks for a turn under a limit (name, and where to answer), or gives it back ("").
Ask = Callable[[str, str], None]

_ADDRESS = "\0graphvine-turn-%s"
_ask: Ask | None = None


def listen(ask: Ask) -> None:
    """Who passes on what is asked, in this process."""
    global _ask
    _ask = ask


@contextlib.contextmanager
def turn(limit: str) -> Iterator[None]:
    """While this is open, the running task counts under a limit. Waits for that. Raises RuntimeError outside
    of a task."""
    if _ask is None:
        raise RuntimeError("only a task that runs on a worker has somebody to ask for its turn")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        reply = secrets.token_hex(16)
        inbox.bind(_ADDRESS % reply)
        _ask(limit, reply)
        inbox.recv(1)
    try:
        yield
    finally:
        _ask(limit, "")


def answer(reply: str) -> None:
    """Let a task of this node through that asked with this ``reply``; one that is gone does not mind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outbox, contextlib.suppress(OSError):
        outbox.sendto(b"1", socket.MSG_DONTWAIT, _ADDRESS % reply)
