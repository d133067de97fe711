"""Addresses of the web as people write them: with blanks, letters of any script, a name and a password.

What is sent has neither: a path may have only ASCII, and who asks is said in a header. That header is not
sent on to where the server redirects to. No message shows a password.
"""

from __future__ import annotations

import base64
from urllib.parse import quote, unquote, urlsplit, urlunsplit

#: All of ASCII that may stand in an address as it is: its own marks, and what is quoted already.
_AS_IT_IS = "%!#$&'()*+,/:;=?@[]~"


def sendable(url: str) -> tuple[str, dict[str, str]]:
    """An address that can be asked for, and the headers that say who asks."""
    parts = urlsplit(url)
    who, at, place = parts.netloc.rpartition("@")
    headers = {}
    if at:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(who).encode()).decode()
    path, query = quote(parts.path, _AS_IT_IS), quote(parts.query, _AS_IT_IS)
    return urlunsplit((parts.scheme, place, path, query, "")), headers


def shown(url: str) -> str:
    """An address for messages: without its password."""
    parts = urlsplit(url)
    who, at, place = parts.netloc.rpartition("@")
    name, colon, _ = who.partition(":")
    return urlunsplit(parts._replace(netloc=f"{name}:...{at}{place}")) if colon else url
