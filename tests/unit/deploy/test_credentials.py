"""How long proxies and tokens are valid, and what is said of it."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest

from graphvine.deploy.credentials import look_at, of_proxy, of_token
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import make_spec

#: Made by openssl; their ends, as it tells them, are in two different forms.
LATE = b"""\
-----BEGIN CERTIFICATE-----
MIIBNDCB56ADAgECAhQsj6gNx3PY/RHcOmC8JfexAMhYSjAFBgMrZXAwDzENMAsG
A1UEAwwEbGF0ZTAgFw0yNjExMjExMzU4MjFaGA8yMDgxMDgyNDEzNTgyMVowDzEN
MAsGA1UEAwwEbGF0ZTAqMAUGAytlcAMhALQkzOx1Y74jXWAqBLT3ASFh3e7ashlv
JQ4vaM3bZJsUo1MwUTAdBgNVHQ4EFgQU8dq7LISyVqmLfHDx9BkH3btF9oYwHwYD
VR0jBBgwFoAU8dq7LISyVqmLfHDx9BkH3btF9oYwDwYDVR0TAQH/BAUwAwEB/zAF
BgMrZXADQQD7Ll4CFw3MSTgSb6iY/RgKfJ486oZhK6I3DkcjiVnytaFx4JuWWFnf
MMKC2tcrmmOcumxzV9yGBCWtOMv4ev8I
-----END CERTIFICATE-----
"""
LATE_ENDS = 3523269501
EARLY = b"""\
-----BEGIN CERTIFICATE-----
MIIBNDCB56ADAgECAhR6H77bV7vsV3SmItXNguqUWBrRBjAFBgMrZXAwEDEOMAwG
A1UEAwwFZWFybHkwHhcNMjYxMTIxMTM1ODIxWhcNMjkwODE3MTM1ODIxWjAQMQ4w
DAYDVQQDDAVlYXJseTAqMAUGAytlcAMhAEKWKfSvl8zeObMdKhP6FvAtCdJZrfPy
jsm/sVvSYD4go1MwUTAdBgNVHQ4EFgQUXpATOsCcf4yFRczDJS6577a/4o4wHwYD
VR0jBBgwFoAUXpATOsCcf4yFRczDJS6577a/4o4wDwYDVR0TAQH/BAUwAwEB/zAF
BgMrZXADQQAes6P2jXlspPLk3MaM27NnMrBTlTxXhktLzzzB/XTFEqkvrYkeXozg
EM2TFIyUe0XdU/c28pOXjNtud5adaTkA
-----END CERTIFICATE-----
"""
EARLY_ENDS = 1881669501


def token(**claims: object) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return b".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts), b"sig"]).decode()


def test_a_proxy_ends_with_the_first_of_its_certificates() -> None:
    assert of_proxy(LATE) == LATE_ENDS
    assert of_proxy(EARLY) == EARLY_ENDS
    assert (
        of_proxy(LATE + b"-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n" + EARLY)
        == EARLY_ENDS
    )


@pytest.mark.parametrize("end", range(0, len(LATE), 40))
def test_what_is_cut_off_or_rubbish_says_nothing(end: int) -> None:
    body = LATE[:end].partition(b"\n")[2]
    cut = b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
    assert of_proxy(cut) in (None, LATE_ENDS)
    assert of_proxy(LATE[:end]) is None
    assert of_proxy(cut + EARLY) == EARLY_ENDS


def test_a_token_says_when_it_ends() -> None:
    assert of_token(token(exp=1234567, sub="me").encode() + b"\n") == 1234567
    for text in ("", "opaque", "a.b.c", token(sub="me"), token(exp="soon")):
        assert of_token(text.encode()) is None


def test_nothing_is_said_of_what_lasts(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token(exp=time.time() + 10 * 3600))
    assert look_at(make_spec(token=str(path), python="p", wall_time="9h")) == []
    path.write_text("opaque")
    assert look_at(make_spec(token=str(path), python="p")) == []
    assert look_at(make_spec(python="p")) == []


def test_what_ends_before_the_jobs_is_said_with_the_time_left(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token(exp=time.time() + 10 * 3600 + 60))
    spec = make_spec(token=str(path), python="p", wall_time="11h")
    assert look_at(spec) == [f"the token {path} is valid for 10 hours only, and jobs may run for longer"]


def test_what_has_ended_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token(exp=time.time() - 7300))
    with pytest.raises(DeployError, match=r"the token .* is not valid any more, for 2 hours: renew it"):
        look_at(make_spec(token=str(path), python="p"))
    with pytest.raises(DeployError, match="the proxy /nowhere can't be read"):
        look_at(make_spec(proxy="/nowhere", python="p"))
