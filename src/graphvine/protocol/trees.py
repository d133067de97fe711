"""Results that are files or directories: their types, and the form in which one travels. No I/O here.

A task returns ``NewTree(path)``: that file or directory is taken into the store of its worker. Whoever has
that task as an input is given ``Tree``, a path on its own node, only to be read.

On links, a tree is one stream of bytes, its *flat form*:

    magic (8 bytes) | length of the index (u64) | bytes of content (u64) | the index (msgpack)
    | the content of its regular files, one after the other, in the order of the index

The index comes first: so who receives it writes every file where it belongs while it arrives, and can pass
on what has arrived. In the store a tree is a directory with all but the content as the file ``index``, and
the file or directory itself as ``data`` (see ``tree_files``). Every holder has the same index, byte for byte.

Rules: files, directories and symbolic links, nothing else. Every path lies below the root by its words alone,
and its parent is a directory of the tree, so nothing is ever written through a link. Whatever breaks one is
refused (BadTreeError), both where a tree is made and where it arrives. A link is its words: one that leads
out of its tree is sent as it is, and leads to whatever is there on the node where it is followed.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

MAGIC = b"gvtree1\n"
_PREFIX = struct.Struct("<8sQQ")
PREFIX_BYTES = _PREFIX.size
#: An index larger than this is rubbish (it would be that of some ten million files).
_MAX_INDEX_BYTES = 2**30
#: As many links in a row as Linux follows.
_MAX_LINKS = 40


class BadTreeError(ValueError):
    """A file or directory that cannot be a result, or what arrived is no tree; the message names the path."""


class NewTree(msgspec.Struct, frozen=True):
    """Returned by a task: its result is the file or directory at ``path``.

    What lies in a directory of ``graphvine.worker.scratch`` is moved; anything else is copied, and stays."""

    path: str


class Tree(msgspec.Struct, frozen=True):
    """A file or directory that a task made, as its consumers and the user get it: ``path`` on this node,
    only to be read, and the bytes in all its files."""

    path: str
    size: int


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One file ("f"), directory ("d") or symbolic link ("l"). ``path`` is relative, b"" for the root itself;
    ``mode`` has the nine permission bits, ``mtime`` is in whole seconds; ``target`` is where a link leads."""

    path: bytes
    kind: Literal["f", "d", "l"]
    mode: int = 0
    mtime: int = 0
    size: int = 0
    target: bytes = b""


class Head:
    """What precedes the content of a tree. ``raw``: its bytes."""

    def __init__(self, entries: Sequence[Entry], raw: bytes | None = None) -> None:
        self.entries = entries
        self.content = sum(entry.size for entry in entries)
        if raw is None:
            index = _encode(entries)
            raw = _PREFIX.pack(MAGIC, len(index), self.content) + index
        self.raw = raw
        self._files = [entry for entry in entries if entry.size]
        sizes = (entry.size for entry in self._files)
        self._ends = list(itertools.accumulate(sizes, initial=len(raw)))
        """Where each file begins in the flat form; last, where all of it ends."""

    @property
    def size(self) -> int:
        """Bytes of the flat form."""
        return len(self.raw) + self.content

    @property
    def files(self) -> list[Entry]:
        """The files that have content, in order."""
        return self._files

    def spans(self, begin: int, end: int) -> Iterator[tuple[Entry, int, int]]:
        """What lies in bytes ``begin`` to ``end`` of the flat form, beyond the head: file, offset, length."""
        number = max(0, bisect.bisect_right(self._ends, begin) - 1)
        while number < len(self._files) and (first := self._ends[number]) < end:
            offset = max(begin, first)
            length = min(end, self._ends[number + 1]) - offset
            if length > 0:
                yield self._files[number], offset - first, length
            number += 1


def head_length(prefix: bytes) -> int:
    """Length of the head that begins with these PREFIX_BYTES. Raises BadTreeError."""
    if len(prefix) < PREFIX_BYTES:
        raise BadTreeError("what came is no tree")
    magic, index, _ = _PREFIX.unpack(prefix)
    if magic != MAGIC or index > _MAX_INDEX_BYTES:
        raise BadTreeError("what came is no tree")
    return int(PREFIX_BYTES + index)


def sizes(prefix: bytes) -> tuple[int, int]:
    """Bytes of the flat form and of its content, of a head that begins so. Raises BadTreeError."""
    length = head_length(prefix)
    content = int(_PREFIX.unpack(prefix)[2])
    return length + content, content


def parse_head(raw: bytes) -> Head:
    """A whole head, checked. Raises BadTreeError."""
    content = sizes(raw[:PREFIX_BYTES])[1]
    try:
        entries = _decode(memoryview(raw)[PREFIX_BYTES:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadTreeError(f"the index of a tree cannot be read: {error}") from error
    check(entries)
    head = Head(entries, raw)
    if head.content != content:
        raise BadTreeError(f"a tree says that it has {content} bytes; its files have {head.content}")
    return head


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


# -- what a tree may hold -------------------------------------------------------------------------------


def check(entries: Sequence[Entry]) -> None:
    """That these are the entries of a tree, root first, each directory before what it holds. Raises
    BadTreeError."""
    if not entries or entries[0].path != b"" or entries[0].kind == "l":
        raise BadTreeError("a tree begins with its root, a file or a directory")
    known: dict[bytes, Entry] = {b"": entries[0]}
    for entry in entries[1:]:
        _check_place(entry, known)
        known[entry.path] = entry
    for entry in entries:
        if entry.size < 0 or (entry.size and entry.kind != "f") or entry.mode & ~0o777:
            raise BadTreeError(f"{_shown(entry.path)}: no such file can be")
        if entry.kind == "l" and (not entry.target or b"\0" in entry.target):
            raise BadTreeError(
                f"{_shown(entry.path)} is a link to {_shown(entry.target)}: no such link can be"
            )


def _check_place(entry: Entry, known: dict[bytes, Entry]) -> None:
    parent, _, name = entry.path.rpartition(b"/")
    if name in (b"", b".", b"..") or b"\0" in name or entry.path.startswith(b"/"):
        raise BadTreeError(f"{_shown(entry.path)} is no path within a tree")
    if entry.path in known:
        raise BadTreeError(f"{_shown(entry.path)} is there twice")
    holder = known.get(parent)
    if holder is None or holder.kind != "d":
        raise BadTreeError(f"{_shown(entry.path)} lies in no directory of its tree")


def links_out(entries: Sequence[Entry]) -> list[Entry]:
    """The links of a tree that lead out of it, as far as its words tell."""
    known = {entry.path: entry for entry in entries}
    return [entry for entry in entries if entry.kind == "l" and _leads_out(entry, known)]


def _leads_out(link: Entry, known: dict[bytes, Entry]) -> bool:
    """Follows a link as the system would."""
    at = link.path.split(b"/")[:-1]
    todo = [link.target]
    followed = 0
    while todo:
        words = todo.pop()
        if words.startswith(b"/"):
            return True
        for position, word in enumerate(split := words.split(b"/")):
            if word in (b"", b"."):
                continue
            if word == b"..":
                if not at:
                    return True
                at.pop()
                continue
            found = known.get(b"/".join([*at, word]))
            if found is None or found.kind != "l":
                at.append(word)
                continue
            followed += 1
            if followed > _MAX_LINKS:
                return False
            rest = b"/".join(split[position + 1 :])
            todo += [rest, found.target] if rest else [found.target]
            break
    return False


def _shown(path: bytes) -> str:
    return repr(path.decode(errors="backslashreplace")) if path else "its root"
