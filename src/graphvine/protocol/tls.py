"""Encrypted bulk links: TLS 1.3 between two that know the same secret.

Both sides make the same key and the same certificate from the secret (Ed25519), show it, and accept no
other. So nothing has to be handed out, no authority is asked, and whoever can speak here knows the secret.
Names and dates in the certificate mean nothing.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import os
import socket
import ssl
from typing import Any

from graphvine.protocol import ed25519
from graphvine.protocol.greeting import Role

# DER (X.690): one byte of type, the length, the content.
_INTEGER, _BITS, _OCTETS, _OID, _UTF8, _UTC_TIME, _SEQUENCE, _SET = 2, 3, 4, 6, 12, 23, 0x30, 0x31
_ED25519 = bytes([43, 101, 112])
_COMMON_NAME = bytes([85, 4, 3])
_BASIC_CONSTRAINTS = bytes([85, 29, 19])

_PROTOCOLS: dict[Role, int] = {"client": ssl.PROTOCOL_TLS_CLIENT, "server": ssl.PROTOCOL_TLS_SERVER}


class TlsSocket(ssl.SSLSocket):
    """Takes the calls that plain bulk links get. One thread at a time speaks; any may shut it."""

    def sendall(self, data: Any, flags: int = 0) -> None:
        """``flags`` are advice to the kernel, which sees records only."""
        super().sendall(data)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """May come back with less than ``MSG_WAITALL`` asks for."""
        return super().recv_into(buffer, nbytes)

    def getpeername(self) -> Any:
        """Raises OSError; then it is closed."""
        try:
            return super().getpeername()
        except OSError as error:
            # Torn off while it is being made: SSLSocket would go on and leave it open, out of our reach.
            self.close()
            raise ConnectionResetError("it has gone again") from error

    def shutdown(self, how: int) -> None:
        """Not SSLSocket's, which goes on without encryption."""
        socket.socket.shutdown(self, how)


def wrap(link: socket.socket, secret: str, role: Role) -> TlsSocket:
    """``link`` as an encrypted one, before its handshake: call ``do_handshake``, then ``check_peer``. The
    plain one is of no use any more. Raises OSError."""
    context = contexts(secret)[role]
    wrapped = context.wrap_socket(link, server_side=role == "server", do_handshake_on_connect=False)
    assert isinstance(wrapped, TlsSocket)
    return wrapped


def check_peer(link: TlsSocket, secret: str) -> None:
    """Once more, in words of our own, what the handshake has seen to. Raises ssl.SSLError."""
    given = link.getpeercert(binary_form=True) or b""
    if not hmac.compare_digest(given, certificate(secret)):
        raise ssl.SSLError("the other side has shown another certificate")


@functools.lru_cache(maxsize=8)
def contexts(secret: str) -> dict[Role, ssl.SSLContext]:
    """What both sides of encrypted links between those who know ``secret`` go by."""
    text = _pem("PRIVATE KEY", _private_key(_seed(secret))) + _pem("CERTIFICATE", certificate(secret))
    made: dict[Role, ssl.SSLContext] = {}
    # The ssl module wants a file; this one is nowhere but in memory.
    descriptor = os.memfd_create("graphvine-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
        for role, protocol in _PROTOCOLS.items():
            context = made[role] = ssl.SSLContext(protocol)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.check_hostname = False
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=certificate(secret))
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
            context.sslsocket_class = TlsSocket
    finally:
        os.close(descriptor)
    # Links are never resumed.
    made["server"].num_tickets = 0
    return made


@functools.lru_cache(maxsize=8)
def certificate(secret: str) -> bytes:
    """The one certificate of all who know ``secret``, in DER (RFC 5280, RFC 8410)."""
    seed = _seed(secret)
    algorithm = _der(_SEQUENCE, _der(_OID, _ED25519))
    name = _der(_OID, _COMMON_NAME) + _der(_UTF8, b"graphvine")
    name = _der(_SEQUENCE, _der(_SET, _der(_SEQUENCE, name)))
    dates = _der(_UTC_TIME, b"000101000000Z") + _der(_UTC_TIME, b"491231235959Z")
    public = _der(_BITS, b"\0" + ed25519.public_key(seed))
    no_authority = _der(_OID, _BASIC_CONSTRAINTS) + _der(_OCTETS, _der(_SEQUENCE, b""))
    content = _der(
        _SEQUENCE,
        _der(0xA0, _der(_INTEGER, b"\2"))
        + _der(_INTEGER, b"\1")
        + algorithm
        + name
        + _der(_SEQUENCE, dates)
        + name
        + _der(_SEQUENCE, algorithm + public)
        + _der(0xA3, _der(_SEQUENCE, _der(_SEQUENCE, no_authority))),
    )
    return _der(_SEQUENCE, content + algorithm + _der(_BITS, b"\0" + ed25519.sign(seed, content)))


def _seed(secret: str) -> bytes:
    """The private key. What else is made from the secret is made in other words."""
    return hmac.digest(secret.encode(), b"graphvine bulk links, TLS, Ed25519", hashlib.sha256)


def _private_key(seed: bytes) -> bytes:
    algorithm = _der(_SEQUENCE, _der(_OID, _ED25519))
    return _der(_SEQUENCE, _der(_INTEGER, b"\0") + algorithm + _der(_OCTETS, _der(_OCTETS, seed)))


def _der(kind: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([kind, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([kind, 0x80 | size]) + length.to_bytes(size, "big") + content


def _pem(label: str, data: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(data).decode()}-----END {label}-----\n"
