"""Files from URLs, read where they are needed.

http and https are read with the standard library: here it must be certain that an error page is no file, that
what was cut off is continued where it ended, and that a server that says nothing more is given up; and no
background thread may be left in an executor that is about to be forked or killed. Everything else is fsspec's
(``file``, ``ftp``, ``root``, ``s3``, and whatever is installed).

A *validator* tells one version of a file from another: the server's ETag, else its date and size, else
nothing.
"""

from __future__ import annotations

import email.message
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec

from graphvine.envs.cache import is_full
from graphvine.taskvine.remote.addresses import sendable, shown
from graphvine.taskvine.remote.cache import NodeCache
from graphvine.taskvine.remote.contents import Made, make, place, resolved, telling_full_disks
from graphvine.worker import scratch
from graphvine.worker.notes import set_note
from graphvine.worker.turns import turn

#: A source that says nothing for so long is given up, and asked again.
STALL_S = 60.0
#: So often without a single new byte, and the file cannot be had.
TRIES = 3
#: Before it is asked again; twice as long each time.
PAUSE_S = 0.5
_BLOCK = 2**20
_WEB = ("http", "https")
#: Answers after which asking again may help.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
#: So long, in seconds, may one request to an xrootd server take, unless XRD_REQUESTTIMEOUT says otherwise: it
#: may have to bring a file from another site first. (By itself its client would wait for half an hour.)
_XROOTD_S = 300
#: What an xrootd server says of a file it does not have, and its client of a server that is silent: all that
#: it raises is OSError.
_XROOTD_NOT_FOUND = "[3011]"
_XROOTD_SILENT = "Operation expired"


class SourceError(OSError):
    """A URL that cannot be read, and why."""


class Validator(msgspec.Struct, array_like=True, frozen=True):
    """``tag``: the same for the same content, "" if the source has none. ``size`` in bytes, -1: not said."""

    tag: str = ""
    size: int = -1


class Request(msgspec.Struct, array_like=True):
    """A file to fetch. ``name``: under which the cache of the node may have it, "" for none."""

    url: str
    name: str = ""
    validator: Validator = Validator()
    stall_s: float = STALL_S
    pause_s: float = PAUSE_S
    variables: dict[str, str] = {}
    """Of the environment, for what reads it."""
    headers: dict[str, str] = {}
    mode: int = 0o644
    limit: str = ""
    """Under which its reader counts while it reads; "": it was let through already."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Request).decode
decode_validator = msgspec.msgpack.Decoder(Validator).decode


def encode(request: Request) -> bytes:
    return _encode(request)


def fetch(inputs: Sequence[Any], encoded: bytes) -> Made:
    """The file at a URL; its validator is the note. Raises SourceError, FullDiskError.

    Inputs beyond a first one are not looked at: that one, if any, is a proxy certificate for xrootd."""
    request = _decode(encoded)
    target = os.path.join(scratch.directory(), "fetched")
    if request.name and NodeCache().take(request.name, target):
        set_note(_encode(request.validator))
        return make(target)
    if inputs:
        os.environ["X509_USER_PROXY"] = _certificate(resolved(inputs[0]))
    os.environ.update(request.variables)
    with turn(request.limit) if request.limit else nullcontext():
        validator = download(request, target)
    if os.path.isfile(target):
        os.chmod(target, request.mode)
    if request.name and validator.tag == request.validator.tag:
        NodeCache().put(request.name, target)
    set_note(_encode(validator))
    return make(target)


def _certificate(value: Any) -> str:
    path = os.path.join(scratch.directory(), "proxy")
    place(value, path, link=False)
    # Nobody accepts one that others can read.
    os.chmod(path, 0o600)
    return path


def look_up(url: str, headers: dict[str, str] | None = None, stall_s: float = STALL_S) -> Validator:
    """The validator of what is at a URL now. Raises SourceError."""
    if urlsplit(url).scheme in _WEB:
        return _look_up_web(url, headers or {}, stall_s)
    return _look_up_elsewhere(url)


def download(request: Request, target: str) -> Validator:
    """Write what is at a URL to ``target``, whole. Raises SourceError, FullDiskError."""
    with telling_full_disks(shown(request.url)):
        if urlsplit(request.url).scheme in _WEB:
            return WebDownload(request, target).run()
        return _copy_from_elsewhere(request.url, target)


def host_of(url: str) -> str:
    """The source's host, by which downloads are limited."""
    return urlsplit(url).netloc.rpartition("@")[2].lower() or "local"


# -- http ------------------------------------------------------------------------------------------------


class WebDownload:
    """One file over http, in as many answers as it takes."""

    def __init__(self, request: Request, target: str) -> None:
        self._request = request
        self._target = target
        self._had = 0
        """Bytes that are there."""
        self._validator = Validator()
        self._strong = ""
        """What a further answer must be a part of."""

    def run(self) -> Validator:
        tries = 0
        while True:
            before = self._had
            try:
                self._receive()
                return self._validator
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and is_full(error):
                    raise
                if self._had and is_out_of_range(error):
                    # It became shorter, or this server cannot continue what it has begun.
                    self._had, self._strong = 0, ""
                elif not is_passing(error):
                    raise SourceError(f"{shown(self._request.url)}: {explain(error)}") from error
                tries = 1 if self._had > before else tries + 1
                if tries >= TRIES:
                    raise SourceError(
                        f"{shown(self._request.url)}: {explain(error)}, {tries} times in a row "
                        f"({self._had} bytes came before)"
                    ) from error
                time.sleep(max(self._request.pause_s * 2 ** (tries - 1), wished_pause_s(error)))

    def _receive(self) -> None:
        with closing(self._open()) as answer:
            total = self._begin(answer)
            with open(self._target, "r+b" if self._had else "wb") as file:
                file.seek(self._had)
                # What comes, as it comes: a whole block would be lost with the connection.
                while block := answer.read1(_BLOCK):
                    file.write(block)
                    self._had += len(block)
            if 0 <= total != self._had:
                raise http.client.IncompleteRead(b"", total - self._had)

    def _open(self) -> http.client.HTTPResponse:
        headers = dict(self._request.headers)
        if self._had and self._strong:
            headers["Range"] = f"bytes={self._had}-"
            headers["If-Range"] = self._strong
        else:
            self._had = 0
        return open_web("GET", self._request.url, headers, self._request.stall_s)

    def _begin(self, answer: http.client.HTTPResponse) -> int:
        """Take in the head of an answer; the whole file's size, or -1."""
        length = _number(answer.headers.get("Content-Length"))
        if self._had and answer.status == 206:
            begin, total = _content_range(answer.headers.get("Content-Range", ""))
            if begin == self._had:
                return total if total >= 0 else self._had + length
        self._had = 0
        if answer.status != 200:
            raise urllib.error.HTTPError(answer.url, answer.status, answer.reason, answer.headers, None)
        self._validator = validator_of(answer.headers)
        # A weak tag does not promise the same bytes, so nothing can be continued by it.
        tag = answer.headers.get("ETag", "")
        self._strong = tag if tag and not tag.startswith("W/") else ""
        return length


def open_web(method: str, url: str, headers: dict[str, str], stall_s: float) -> http.client.HTTPResponse:
    """An answer that is no error. Raises OSError, http.client.HTTPException."""
    address, who = sendable(url)
    request = urllib.request.Request(address, headers={"User-Agent": "graphvine", **headers}, method=method)
    for name, value in who.items():
        request.add_unredirected_header(name, value)
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=stall_s)
    except urllib.error.HTTPError as error:
        # It holds the connection.
        error.close()
        raise
    return answer


def _look_up_web(url: str, headers: dict[str, str], stall_s: float) -> Validator:
    for method in ("HEAD", "GET"):
        try:
            with closing(open_web(method, url, headers, stall_s)) as answer:
                return validator_of(answer.headers)
        except (OSError, http.client.HTTPException, ValueError) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code in (403, 405, 501)
            if method == "HEAD" and refused:
                continue
            raise SourceError(f"{shown(url)}: {explain(error)}") from error
    raise AssertionError("the second one returns or raises")


def validator_of(headers: email.message.Message) -> Validator:
    """What the head of an answer says of the version of its file."""
    size = _number(headers.get("Content-Length"))
    tag = headers.get("ETag", "")
    date = headers.get("Last-Modified", "")
    if not tag and date:
        tag = f"{date} {size}"
    return Validator(tag, size)


def is_passing(error: Exception) -> bool:
    """Whether asking again may help."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _PASSING
    # Those with a text are about the URL itself: it has no host, say.
    malformed = isinstance(error, urllib.error.URLError) and isinstance(error.reason, str)
    return not malformed and not isinstance(error, http.client.InvalidURL)


def is_out_of_range(error: Exception) -> bool:
    """Whether the server has nothing at the place from which more was asked for."""
    return isinstance(error, urllib.error.HTTPError) and error.code == 416


def wished_pause_s(error: Exception) -> float:
    """Seconds that a server asks to be left alone (``Retry-After``), within what is waited for anything."""
    if not isinstance(error, urllib.error.HTTPError) or error.headers is None:
        return 0.0
    return float(min(max(_number(error.headers.get("Retry-After")), 0), STALL_S))


def explain(error: Exception) -> str:
    """An error of the network in words."""
    if isinstance(error, urllib.error.HTTPError):
        # With too many redirections the reason has several lines.
        return " ".join(f"the server answered {error.code} {error.reason}".split())
    if isinstance(error, urllib.error.URLError):
        error = error.reason if isinstance(error.reason, Exception) else error
    if isinstance(error, http.client.IncompleteRead):
        if error.expected is None:
            return "the transfer was cut off"
        return f"the transfer ended {error.expected} bytes too early"
    if isinstance(error, TimeoutError):
        return "the server said nothing for too long"
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
        return "what answers is no web server"
    return " ".join(str(error).split()) or type(error).__name__


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else -1


def _content_range(text: str) -> tuple[int, int]:
    """Begin and total of ``bytes 5-9/10``; -1 for what is not said."""
    span, _, total = text.removeprefix("bytes").strip().partition("/")
    return _number(span.partition("-")[0]), _number(total)


# -- everything else -------------------------------------------------------------------------------------


def _look_up_elsewhere(url: str) -> Validator:
    try:
        system, path = _filesystem(url)
        info = system.info(path)
        size = info.get("size")
        marks = [
            str(info[key])
            for key in ("ETag", "etag", "checksum", "mtime", "LastModified", "modify")
            if info.get(key)
        ]
        return Validator(" ".join([*marks, str(size)]) if marks else "", -1 if size is None else int(size))
    except Exception as error:
        raise SourceError(f"{shown(url)}: {_explained(error)}") from error


def _copy_from_elsewhere(url: str, target: str) -> Validator:
    validator = _look_up_elsewhere(url)
    try:
        system, path = _filesystem(url)
        if system.isdir(path):
            _copy_directory(system, path, target)
            return validator
        with system.open(path, "rb") as source, open(target, "wb") as file:
            _copy(source, file)
            had = file.tell()
    except Exception as error:
        if isinstance(error, OSError) and is_full(error):
            raise
        raise SourceError(f"{shown(url)}: {_explained(error)}") from error
    if 0 <= validator.size != had:
        raise SourceError(f"{shown(url)}: the transfer ended {validator.size - had} bytes too early")
    return validator


def _copy_directory(system: Any, path: str, target: str) -> None:
    """All that is in a directory. (Not every file system's own ``get`` knows directories.)"""
    os.mkdir(target)
    remote, local = [], []
    for name, info in sorted(system.find(path, withdirs=True, detail=True).items()):
        place = os.path.normpath(os.path.join(target, os.path.relpath(name, path)))
        if not place.startswith(target + os.sep):
            continue  # the directory itself
        if info["type"] == "directory":
            os.makedirs(place, exist_ok=True)
            continue
        # Links, too: what they lead to.
        os.makedirs(os.path.dirname(place), exist_ok=True)
        remote.append(name)
        local.append(place)
    if remote:
        system.get(remote, local)


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    system, path = fsspec.core.url_to_fs(url, **_options(url))
    return system, path


def _options(url: str) -> dict[str, Any]:
    if urlsplit(url).scheme != "root":
        return {}
    # A file that may not be read is refused at once. fsspec-xrootd would then ask who else has it, and knock
    # at addresses that it has misread, one after the other, until each has been silent for the whole time.
    # (A redirector's other servers are tried by the client underneath.)
    return {
        "timeout": int(os.environ.get("XRD_REQUESTTIMEOUT", _XROOTD_S)),
        "locate_all_sources": False,
    }


def _copy(source: IO[bytes], file: IO[bytes]) -> None:
    shutil.copyfileobj(source, file, _BLOCK)


def _explained(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) or (type(error) is OSError and _XROOTD_NOT_FOUND in str(error)):
        return "there is no such file"
    if type(error) is OSError and _XROOTD_SILENT in str(error):
        return "the server said nothing for too long (XRD_REQUESTTIMEOUT says how long that is)"
    if isinstance(error, (ImportError, ValueError)) and "rotocol" in str(error):
        return f"it cannot be read here: {error}"
    if isinstance(error, ImportError):
        return f"it needs a package that is not installed here: {error}"
    return f"{type(error).__name__}: {error}".rstrip()
