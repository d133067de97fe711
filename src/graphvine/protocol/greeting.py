"""How the two ends of a bulk link prove to each other that they know the same secret. No I/O here.

    both sides     HELLO (8 bytes) | nonce (32 bytes) | the server's number (u64; a client says 0)
    client         HMAC-SHA256(secret, "client" | number | server's nonce | client's nonce)
    server         HMAC-SHA256(secret, "server" | number | client's nonce | server's nonce)

Both nonces are fresh, so no proof is of use on another link; the two proofs differ in their first word, so
none can be had from the other side itself. The number says whom the client wants to speak to (``Address``):
it shows its proof to nobody who says to be another, and nobody else can make use of the proof. Whoever sits
on the way between the two can still pass it all on, and then what follows, unless the link is encrypted
(``protocol.tls``). A side that says anything wrong is told nothing more.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from typing import Literal

Role = Literal["client", "server"]

HELLO = b"gvbulk3\n"
_NONCE_BYTES = 32
_NUMBER = struct.Struct("<Q")
_PROOF_BYTES = 32


class StrangerError(Exception):
    """The other side does not know the secret, or speaks something else."""


class MisledError(Exception):
    """The other side is not the one that is wanted."""


class Greeting:
    """One side of a greeting: what it hears goes in by ``feed``, in portions of exactly ``wanted`` bytes."""

    def __init__(self, secret: str, role: Role, server: int = 0) -> None:
        """``server``: the number of this server, or of the one that is wanted (0: any)."""
        self._secret = secret
        self._role = role
        self._server = server
        self._nonce = secrets.token_bytes(_NONCE_BYTES)
        self._expected = b""
        self._proof = b""
        self._hear = self._hear_hello
        self.wanted = len(HELLO)
        """How much must come next; 0: the greeting is over, and all is well."""

    def begin(self) -> bytes:
        """What to say first, without waiting for the other side."""
        return HELLO + self._nonce + _NUMBER.pack(self._server if self._role == "server" else 0)

    def feed(self, heard: bytes) -> bytes:
        """What to say to that. Raises StrangerError, MisledError; then there is nothing more to say."""
        assert len(heard) == self.wanted
        return self._hear(heard)

    def _hear_hello(self, heard: bytes) -> bytes:
        if heard != HELLO:
            raise StrangerError("the other side is no graphvine worker of this version")
        self.wanted, self._hear = _NONCE_BYTES + _NUMBER.size, self._hear_nonce
        return b""

    def _hear_nonce(self, heard: bytes) -> bytes:
        nonce, (number,) = heard[:_NONCE_BYTES], _NUMBER.unpack(heard[_NONCE_BYTES:])
        if self._role == "client":
            if self._server and number != self._server:
                raise MisledError("another worker answers there")
            self._server = number
        self._proof = self._prove(self._role, nonce, self._nonce)
        other: Role = "server" if self._role == "client" else "client"
        self._expected = self._prove(other, self._nonce, nonce)
        self.wanted, self._hear = _PROOF_BYTES, self._hear_proof
        return self._proof if self._role == "client" else b""

    def _hear_proof(self, heard: bytes) -> bytes:
        if not hmac.compare_digest(heard, self._expected):
            raise StrangerError("the other side does not know the secret")
        self.wanted = 0
        return self._proof if self._role == "server" else b""

    def _prove(self, role: Role, challenge: bytes, own: bytes) -> bytes:
        text = role.encode() + _NUMBER.pack(self._server) + challenge + own
        return hmac.digest(self._secret.encode(), text, hashlib.sha256)
