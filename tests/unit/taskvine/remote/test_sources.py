"""URLs, read from a server that does all that servers do."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from tests.web import source

from graphvine.taskvine.remote.sources import (
    STALL_S,
    Request,
    SourceError,
    Validator,
    download,
    host_of,
    look_up,
)

__all__ = ["source"]

DATA = os.urandom(300_000)


def fetched(url: str, tmp_path: Path, **options: object) -> tuple[bytes, Validator]:
    target = tmp_path / "target"
    validator = download(Request(url, pause_s=0.001, **options), str(target))
    return target.read_bytes(), validator


def test_a_file_and_its_validator(source, tmp_path):
    source.answers["/f"] = lambda handler: handler.say(200, DATA, ETag='"1"')
    assert look_up(source.url("/f")) == Validator('"1"', len(DATA))
    assert fetched(source.url("/f"), tmp_path) == (DATA, Validator('"1"', len(DATA)))
    assert [method for method, _, _ in source.seen] == ["HEAD", "GET"]


def test_a_date_is_a_validator_too_and_nothing_is_none(source):
    source.answers["/dated"] = lambda handler: handler.say(
        200, b"x", Last_Modified="Sat, 01 Jan 2022 00:00:00 GMT"
    )
    source.answers["/plain"] = lambda handler: handler.say(200, b"x")
    assert look_up(source.url("/dated")).tag == "Sat, 01 Jan 2022 00:00:00 GMT 1"
    assert look_up(source.url("/plain")).tag == ""


def test_a_server_that_knows_no_head(source):
    source.answers["/f"] = lambda handler: (
        handler.say(405) if handler.command == "HEAD" else handler.say(200, DATA, ETag='"1"')
    )
    assert look_up(source.url("/f")) == Validator('"1"', len(DATA))


def test_redirects_are_followed(source, tmp_path):
    source.answers["/a"] = lambda handler: handler.say(302, b"look there", Location="/b")
    source.answers["/b"] = lambda handler: handler.say(307, b"", Location=source.url("/c"))
    source.answers["/c"] = lambda handler: handler.say(200, DATA, ETag='"c"')
    assert fetched(source.url("/a"), tmp_path) == (DATA, Validator('"c"', len(DATA)))
    source.answers["/circle"] = lambda handler: handler.say(302, b"", Location="/circle")
    with pytest.raises(SourceError, match=r"infinite loop") as caught:
        fetched(source.url("/circle"), tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_web_server_is_said(source, tmp_path):
    source.answers["/f"] = lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\n\n")
    with pytest.raises(SourceError, match="no web server"):
        fetched(source.url("/f"), tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:x/", "http:///f", "http://no host/"])
def test_a_url_that_is_none_is_not_tried_again(tmp_path, url):
    with pytest.raises(SourceError) as caught:
        fetched(url, tmp_path)
    assert "in a row" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_error_page_is_no_file(source, tmp_path, status):
    source.answers["/f"] = lambda handler: handler.say(status, b"<html>sorry</html>")
    with pytest.raises(SourceError, match=f"answered {status}"):
        fetched(source.url("/f"), tmp_path)
    assert len(source.seen) == 1
    with pytest.raises(SourceError, match=f"answered {status}"):
        look_up(source.url("/f"))


def test_what_passes_is_tried_again(source, tmp_path):
    answers = [lambda handler: handler.say(503), lambda handler: handler.say(200, DATA)]
    source.answers["/f"] = lambda handler: answers.pop(0)(handler)
    assert fetched(source.url("/f"), tmp_path)[0] == DATA
    source.answers["/g"] = lambda handler: handler.say(500)
    with pytest.raises(SourceError, match=r"answered 500 .* 3 times in a row"):
        fetched(source.url("/g"), tmp_path)


def cut(handler, at: int, begin: int = 0, **headers: object) -> None:
    """Promise all and send a part."""
    handler.send_response(206 if begin else 200)
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    for name, value in ({"Content-Length": len(DATA) - begin} | named).items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(DATA[begin:at])


def test_what_was_cut_off_is_continued(source, tmp_path):
    def answer(handler):
        begin = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        end = min(begin + 70_000, len(DATA))
        span = {"Content_Range": f"bytes {begin}-{len(DATA) - 1}/{len(DATA)}"} if begin else {}
        cut(handler, end, begin, ETag='"1"', **span)

    source.answers["/f"] = answer
    assert fetched(source.url("/f"), tmp_path)[0] == DATA
    asked = [headers.get("Range") for _, _, headers in source.seen]
    assert asked == [None, "bytes=70000-", "bytes=140000-", "bytes=210000-", "bytes=280000-"]
    assert {headers.get("If-Range") for _, _, headers in source.seen[1:]} == {'"1"'}


def test_what_changed_meanwhile_begins_anew(source, tmp_path):
    def answer(handler):
        if "Range" in handler.headers:
            handler.say(200, DATA[::-1], ETag='"2"')
        else:
            cut(handler, 1000, ETag='"1"')

    source.answers["/f"] = answer
    assert fetched(source.url("/f"), tmp_path) == (DATA[::-1], Validator('"2"', len(DATA)))


def test_nothing_is_continued_by_a_weak_tag(source, tmp_path):
    answers = [lambda handler: cut(handler, 1000, ETag='W/"1"'), lambda handler: handler.say(200, DATA)]
    source.answers["/f"] = lambda handler: answers.pop(0)(handler)
    assert fetched(source.url("/f"), tmp_path)[0] == DATA
    assert "Range" not in source.seen[1][2]


def test_a_part_that_was_not_asked_for_begins_anew(source, tmp_path):
    def answer(handler):
        if "Range" not in handler.headers:
            cut(handler, 1000, ETag='"1"')
        elif len(source.seen) == 2:
            cut(handler, 100_000, 5000, ETag='"1"', Content_Range=f"bytes 5000-{len(DATA) - 1}/{len(DATA)}")
        else:
            handler.say(200, DATA, ETag='"1"')

    source.answers["/f"] = answer
    with pytest.raises(SourceError, match="206"):
        fetched(source.url("/f"), tmp_path)


def test_what_is_always_cut_off_cannot_be_had(source, tmp_path):
    source.answers["/f"] = lambda handler: cut(handler, 0)
    with pytest.raises(SourceError, match="300000 bytes too early, 3 times in a row"):
        fetched(source.url("/f"), tmp_path)


def test_who_says_nothing_is_given_up(source, tmp_path):
    def answer(handler):
        cut(handler, 1000, ETag='"1"')
        handler.wfile.flush()
        source.free.wait(60)

    source.answers["/f"] = answer
    with pytest.raises(SourceError, match=r"said nothing for too long, 3 times in a row \(1000 bytes"):
        fetched(source.url("/f"), tmp_path, stall_s=0.1)


def test_nobody_there(tmp_path):
    with pytest.raises(SourceError, match="refused"):
        fetched("http://127.0.0.1:9/f", tmp_path)


def test_other_sources_are_fsspec_s(tmp_path):
    (tmp_path / "f").write_bytes(DATA)
    url = f"file://{tmp_path / 'f'}"
    first = look_up(url)
    assert first.size == len(DATA)
    assert fetched(url, tmp_path) == (DATA, first)
    os.utime(tmp_path / "f", (1, 1))
    assert look_up(url).tag != first.tag
    with pytest.raises(SourceError, match="no such file"):
        fetched(f"file://{tmp_path / 'gone'}", tmp_path)
    with pytest.raises(SourceError, match=r"cannot be read here.*nonsense"):
        fetched("nonsense://host/f", tmp_path)


def test_directories(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_text("x")
    download(Request(f"file://{tmp_path / 'd'}"), str(tmp_path / "got"))
    assert (tmp_path / "got" / "x").read_text() == "x"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://me:secret@Host.org:8443/x", "host.org:8443"),
        ("root://eos//x", "eos"),
        ("file:///x", "local"),
    ],
)
def test_hosts(url, host):
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("path", "sent"), [("/a b", "/a%20b"), ("/é?x=ü y", "/%C3%A9?x=%C3%BC%20y"), ("/a%20b+c", "/a%20b+c")]
)
def test_blanks_and_letters_of_any_script_are_sent_as_addresses_have_them(source, tmp_path, path, sent):
    source.answers[sent] = lambda handler: handler.say(200, DATA)
    assert fetched(source.url(path), tmp_path)[0] == DATA
    assert look_up(source.url(path)).size == len(DATA)


def test_a_name_and_a_password_are_for_their_server_and_for_nobody_else(source, tmp_path):
    source.answers["/private"] = lambda handler: handler.say(302, b"", Location="/elsewhere")
    source.answers["/elsewhere"] = lambda handler: handler.say(404)
    url = source.url("/private").replace("http://", "http://me:p%40ss@")
    with pytest.raises(SourceError, match="answered 404") as caught:
        fetched(url, tmp_path)
    assert "p%40ss" not in str(caught.value)
    (_, _, first), (_, _, second) = source.seen
    assert first["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert "Authorization" not in second


def test_a_server_that_cannot_continue_is_asked_for_all_of_it(source, tmp_path):
    def answer(handler) -> None:
        if "Range" in handler.headers:
            handler.say(416)
        elif len(source.seen) == 1:
            handler.say(200, DATA[:1000], ETag='"1"', Content_Length=len(DATA))
        else:
            handler.say(200, DATA, ETag='"1"')

    source.answers["/f"] = answer
    assert fetched(source.url("/f"), tmp_path)[0] == DATA


def test_a_server_that_wants_to_be_left_alone_for_a_while_is(source, tmp_path, monkeypatch):
    paused: list[float] = []
    monkeypatch.setattr("graphvine.taskvine.remote.sources.time.sleep", paused.append)
    source.answers["/f"] = lambda handler: (
        handler.say(429, b"", Retry_After=7 if len(source.seen) == 1 else 10_000)
        if len(source.seen) < 3
        else handler.say(200, DATA)
    )
    assert fetched(source.url("/f"), tmp_path)[0] == DATA
    assert paused == [7.0, STALL_S]


def test_chunks_that_end_early_are_said_to_have_been_cut_off(source, tmp_path):
    def answer(handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nhello\r\n")

    source.answers["/f"] = answer
    with pytest.raises(SourceError, match=r"was cut off, 3 times in a row \(5 bytes came before\)"):
        fetched(source.url("/f"), tmp_path)


def test_a_directory_of_another_file_system(tmp_path):
    (tmp_path / "some" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "some" / "empty").mkdir()
    (tmp_path / "some" / "deep" / "er" / "a b").write_text("A")
    (tmp_path / "some" / "link").symlink_to("deep/er/a b")
    download(Request(f"file://{tmp_path}/some"), str(target := tmp_path / "target"))
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == [
        "deep", "deep/er", "deep/er/a b", "empty", "link",
    ]  # fmt: skip
    assert (target / "link").read_text() == "A"
