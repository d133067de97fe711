"""Ed25519 keys and signatures (RFC 8032), as far as making a certificate needs them: once per process, a few
milliseconds. Nothing here is quick, or takes the same time for every key: it is not for answering strangers.
"""

from __future__ import annotations

import hashlib

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_OF_MINUS_1 = pow(2, (_P - 1) // 4, _P)

#: Extended homogeneous coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, x*y = T/Z.
_Point = tuple[int, int, int, int]


def public_key(seed: bytes) -> bytes:
    """The public key (32 bytes) of a private one, which is any 32 bytes."""
    scalar, _ = _expand(seed)
    return _encode(_multiply(scalar, _BASE))


def sign(seed: bytes, message: bytes) -> bytes:
    """The signature (64 bytes) of a message."""
    scalar, prefix = _expand(seed)
    nonce = _hash(prefix + message)
    commitment = _encode(_multiply(nonce, _BASE))
    challenge = _hash(commitment + public_key(seed) + message)
    return commitment + ((nonce + challenge * scalar) % _ORDER).to_bytes(32, "little")


def _expand(seed: bytes) -> tuple[int, bytes]:
    """The secret scalar, and what nonces are made from."""
    if len(seed) != 32:
        raise ValueError(f"a private key has 32 bytes, not {len(seed)}")
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & ~7 & (2**254 - 1) | 2**254
    return scalar, digest[32:]


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % _ORDER


def _add(one: _Point, other: _Point) -> _Point:
    """The sum of two points, equal or not (the curve's addition law is complete)."""
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = other
    a = (y1 - x1) * (y2 - x2) % _P
    b = (y1 + x1) * (y2 + x2) % _P
    c = 2 * t1 * t2 * _D % _P
    d = 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(scalar: int, point: _Point) -> _Point:
    total: _Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _encode(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, _P)
    x, y = x * inverse % _P, y * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _base() -> _Point:
    """The point with y = 4/5 and an even x."""
    y = 4 * pow(5, -1, _P) % _P
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _SQRT_OF_MINUS_1 % _P
    if x & 1:
        x = _P - x
    return x, y, 1, x * y % _P


_BASE = _base()
