"""How long what tasks identify themselves with is valid: X.509 proxies and bearer tokens.

A proxy is as good as the certificate in it that ends first; a token says itself when it ends, if it is a JSON
Web Token. Nothing is verified here: that is up to who is shown it. What voms put into a proxy may end
earlier, and is not looked at."""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec

_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _VERSION = 0x30, 0x17, 0xA0
#: With less left than this a user hears of it, also where it is not known how long jobs will run.
_SHORT_S = 3600.0


def look_at(spec: WorkerSpec) -> list[str]:
    """What is to be said of a spec's proxy and token: how long they are valid, if that is not for as long as
    its jobs may run. Raises DeployError where one can't be read, or is not valid any more."""
    said = []
    for name, path, expiry in (("proxy", spec.proxy, of_proxy), ("token", spec.token, of_token)):
        if not path:
            continue
        try:
            until = expiry(Path(path).read_bytes())
        except OSError as error:
            raise DeployError(f"the {name} {path} can't be read: {error.strerror}") from error
        if until is None:
            continue
        left_s = until - time.time()
        if left_s <= 0:
            raise DeployError(f"the {name} {path} is not valid any more, for {_readable(-left_s)}: renew it")
        if left_s < max(_SHORT_S, spec.wall_time_s or 0.0):
            said.append(
                f"the {name} {path} is valid for {_readable(left_s)} only, and jobs may run for longer"
            )
    return said


def of_proxy(pem: bytes) -> float | None:
    """When the first of its certificates ends, in Unix time; None when there is none that can be read."""
    ends = []
    for block in _CERTIFICATE.findall(pem):
        try:
            ends.append(_not_after(binascii.a2b_base64(block)))
        except (binascii.Error, ValueError, IndexError, StopIteration):
            continue
    return min(ends, default=None)


def of_token(text: bytes) -> float | None:
    """When it ends, in Unix time; None when it does not say."""
    parts = text.strip().split(b".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return None


def _not_after(der: bytes) -> float:
    """The end of a certificate's validity (RFC 5280, 4.1). Raises ValueError, IndexError."""
    _, whole, _ = next(_elements(der, 0, len(der)))
    _, begin, end = next(_elements(der, whole, len(der)))
    fields = [field for field in _elements(der, begin, end) if field[0] != _VERSION]
    # Serial number, algorithm, issuer, validity.
    tag, begin, end = fields[3]
    if tag != _SEQUENCE:
        raise ValueError("no certificate")
    _, (tag, begin, end) = _elements(der, begin, end)
    text = der[begin:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _elements(der: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """What lies side by side in there: tag, and where its content begins and ends. Raises IndexError."""
    while at < end:
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > end:
            raise IndexError("it is cut off")
        yield tag, at, at + length
        at += length


def _readable(seconds: float) -> str:
    for name, unit_s in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} seconds"
