"""Whole files over a plain TCP link between two that know the same secret.

    both sides     HELLO (8 bytes) | nonce (32 bytes)
    client         HMAC-SHA256(secret, "client" | server's nonce | client's nonce)
    server         HMAC-SHA256(secret, "server" | client's nonce | server's nonce)
    then, any number of times
    client         file number (u64)
    server         size (i64; -1: not held) | the bytes | xxh3_64 of the bytes (u64)

A side that gives the wrong answer, or none in time, is cut off before anything else is read. The bytes
themselves are not encrypted: the link proves who speaks, the checksum that nothing was damaged.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphvine.protocol.messages import Address


class BulkError(Exception):
    """A file could not be fetched; the message names holder and reason."""


class UnreachableError(BulkError):
    """No address of the holder could be connected to."""


class RefusedError(BulkError):
    """The other side does not know the secret, or says that we do not."""


class NotHeldError(BulkError):
    """The holder does not have the file (any more)."""


class DamagedError(BulkError):
    """The bytes that came are not those that were sent, or not as many as expected."""


def fetch(
    addresses: Sequence[Address], file: int, secret: str, into: memoryview, timeout_s: float = 30.0
) -> None:
    """Fetch a file of known size into memory, over a link of its own; addresses are tried in order. Waits.
    Raises BulkError."""
    raise NotImplementedError
