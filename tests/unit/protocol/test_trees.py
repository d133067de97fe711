from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphvine.protocol import trees
from graphvine.protocol.trees import PREFIX_BYTES, BadTreeError, Entry, Head, check, links_out, parse_head

ROOT = Entry(b"", "d", 0o755)


def test_a_single_file_is_a_tree() -> None:
    head = Head([Entry(b"", "f", 0o644, 17, 1000)])
    again = parse_head(head.raw)
    assert again.entries == head.entries
    assert again.size == len(head.raw) + 1000
    assert trees.sizes(head.raw[:PREFIX_BYTES]) == (head.size, 1000)
    assert trees.head_length(head.raw[:PREFIX_BYTES]) == len(head.raw)
    assert list(again.spans(0, 10**6)) == [(again.entries[0], 0, 1000)]


def test_names_need_not_be_text() -> None:
    entries = [ROOT, Entry(b"\xff\xfe \n", "f", 0o600, -5, 3)]
    assert parse_head(Head(entries).raw).entries == entries


@given(
    st.lists(st.integers(0, 50), max_size=20),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 700)), max_size=5),
)
def test_spans_cover_every_byte_of_the_content_once(sizes: list[int], windows: list[tuple[int, int]]) -> None:
    head = Head([ROOT, *(Entry(b"%d" % number, "f", 0o644, 0, size) for number, size in enumerate(sizes))])
    content = [(b"%d" % number, at) for number, size in enumerate(sizes) for at in range(size)]
    for begin, end in [*windows, (0, head.size)]:
        found = [
            (entry.path, at)
            for entry, offset, length in head.spans(begin, end)
            for at in range(offset, offset + length)
        ]
        start = len(head.raw)
        assert found == content[max(0, begin - start) : max(0, end - start)]


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [Entry(b"a", "f")],
        [Entry(b"", "l", target=b"a")],
        [ROOT, Entry(b"", "d")],
        [ROOT, Entry(b"/a", "f")],
        [ROOT, Entry(b"..", "d")],
        [ROOT, Entry(b"a", "d"), Entry(b"a/..", "d")],
        [ROOT, Entry(b"a", "d"), Entry(b"a/../../b", "f")],
        [ROOT, Entry(b".", "d")],
        [ROOT, Entry(b"a/", "d")],
        [ROOT, Entry(b"a//b", "f")],
        [ROOT, Entry(b"a\0b", "f")],
        [ROOT, Entry(b"a", "f"), Entry(b"a", "f")],
        [ROOT, Entry(b"a", "f"), Entry(b"a/b", "f")],
        [ROOT, Entry(b"a", "l", target=b"b"), Entry(b"a/b", "f")],
        [ROOT, Entry(b"a/b", "f"), Entry(b"a", "d")],
        [Entry(b"", "f"), Entry(b"a", "f")],
        [ROOT, Entry(b"a", "f", size=-1), Entry(b"b", "f", size=1)],
        [ROOT, Entry(b"a", "d", size=5)],
        [ROOT, Entry(b"a", "f", mode=0o4755)],
    ],
)
def test_what_is_no_tree_is_refused(entries: list[Entry]) -> None:
    with pytest.raises(BadTreeError):
        check(entries)
    with pytest.raises(BadTreeError):
        parse_head(Head(entries).raw)


DIRECTORIES = [Entry(b"a", "d"), Entry(b"a/b", "d"), Entry(b"a/b/file", "f")]


# ``up`` leads to the root itself, so that what follows it is one more step up.
LINKS = [Entry(b"a/b/up", "l", target=b"../.."), Entry(b"sideways", "l", target=b"a")]


@pytest.mark.parametrize(
    "target",
    [
        b"/etc/passwd",
        b"/",
        b"../../..",
        b"../../../x",
        b"../../a/../../x",
        b"up/../x",
        b"up/sideways/../../x",
    ],
)
def test_links_out_of_the_tree_are_known_and_stay_what_they_are(target: bytes) -> None:
    link = Entry(b"a/b/link", "l", target=target)
    entries = [ROOT, *DIRECTORIES, *LINKS, link]
    assert parse_head(Head(entries).raw).entries == entries
    assert links_out(entries) == [link]


@pytest.mark.parametrize("target", [b"", b"b\0"])
def test_links_that_cannot_be_are_refused(target: bytes) -> None:
    with pytest.raises(BadTreeError, match="no such link can be"):
        check([ROOT, *DIRECTORIES, Entry(b"a/b/link", "l", target=target)])


@pytest.mark.parametrize(
    "target", [b"file", b"./file", b"..", b"../..", b"../b/file", b"../../a/b", b"nowhere/at/all", b"link"]
)
def test_links_within_the_tree_are_good(target: bytes) -> None:
    entries = [ROOT, *DIRECTORIES, Entry(b"a/b/link", "l", target=target)]
    check(entries)
    assert links_out(entries) == []


def test_nothing_lies_below_a_link() -> None:
    with pytest.raises(BadTreeError, match="lies in no directory"):
        check([ROOT, Entry(b"out", "l", target=b"/etc"), Entry(b"out/passwd", "f", size=1)])


def test_a_ring_of_links_leads_nowhere_and_does_no_harm() -> None:
    entries = [ROOT, Entry(b"one", "l", target=b"two/x"), Entry(b"two", "l", target=b"one/y")]
    check(entries)
    assert links_out(entries) == []


@pytest.mark.parametrize("spoil", [b"", b"gvtree1\n", b"gvvalue1" + bytes(16), b"gvtree1\n" + b"\xff" * 16])
def test_rubbish_is_refused(spoil: bytes) -> None:
    with pytest.raises(BadTreeError):
        parse_head(spoil)


def test_a_head_that_contradicts_itself_is_refused() -> None:
    raw = bytearray(Head([Entry(b"", "f", 0o644, 0, 7)]).raw)
    raw[16] += 1
    with pytest.raises(BadTreeError, match="8 bytes"):
        parse_head(bytes(raw))
    with pytest.raises(BadTreeError, match="cannot be read"):
        parse_head(bytes(raw[:-1]))
