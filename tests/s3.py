"""A store of objects that speaks as much of S3 as reading takes. Nobody is asked who he is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from tests.web import Handler, Source, serving


class ObjectStore(Source):
    """``objects``: contents by bucket and key, with a slash between."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}

    def answer(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        name = unquote(parts.path).strip("/")
        if "/" not in name:
            self._list(handler, name, parse_qs(parts.query).get("prefix", [""])[0])
        elif name not in self.objects:
            handler.say(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._read(handler, self.objects[name])

    def _read(self, handler: Handler, data: bytes) -> None:
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        date = "Sat, 01 Jan 2022 00:00:00 GMT"
        span = handler.headers.get("Range")
        if span is None:
            handler.say(200, data, ETag=tag, Last_Modified=date)
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        where = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        handler.say(206, part, ETag=tag, Last_Modified=date, Content_Range=where)

    def _list(self, handler: Handler, bucket: str, prefix: str) -> None:
        keys = [name.partition("/")[2] for name in self.objects if name.startswith(f"{bucket}/")]
        if not keys:
            handler.say(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            return
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[f'{bucket}/{key}'])}</Size>"
            "<LastModified>2022-01-01T00:00:00Z</LastModified></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        handler.say(200, text.encode(), Content_Type="application/xml")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The store that this process, and the workers that it starts, take for Amazon's."""
    store = ObjectStore()
    for name, value in {
        "AWS_ENDPOINT_URL": store.url(""),
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    with serving(store, monkeypatch):
        yield store
