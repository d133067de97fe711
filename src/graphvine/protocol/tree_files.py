"""Trees (``protocol.trees``) on a file system: taken in, read as a stream, written from one, removed.

A stored tree is a directory with the file ``index`` and the tree itself as ``data``. It is made under
another name and put in place by a rename, so it is there whole or not at all. Directories in it can always
be listed and removed by their owner, whatever mode they had; the index knows the mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import Literal

from graphvine.protocol import trees
from graphvine.protocol.trees import BadTreeError, Entry, Head, NewTree, Tree

INDEX = "index"
DATA = "data"
#: What the owner of a directory needs to list it, and to remove what is in it.
_OWNER = 0o700
_COPY_BYTES = 2**20

Take = Literal["move", "link", "copy"]


# -- stored trees ---------------------------------------------------------------------------------------


def is_tree(path: str) -> bool:
    """Whether what is stored at ``path`` is a tree (else a value)."""
    return os.path.isdir(path)


def load(directory: str) -> Tree:
    """What a consumer gets of a stored tree. Raises FileNotFoundError, BadTreeError."""
    directory = os.path.realpath(directory)
    path = f"{directory}/{DATA}"
    os.lstat(path)
    return Tree(path, stored_sizes(directory)[1])


def not_yet_stored(new: NewTree) -> Tree:
    """What a consumer gets of a tree that its own process just made. Raises BadTreeError."""
    path = os.path.realpath(new.path)
    return Tree(path, scan(path).content)


def stored_sizes(directory: str) -> tuple[int, int]:
    """Bytes of the flat form of a stored tree, and of its content. Raises OSError, BadTreeError."""
    with open(f"{directory}/{INDEX}", "rb", buffering=0) as file:
        return trees.sizes(file.read(trees.PREFIX_BYTES))


def copy_stored(stored: str, directory: str) -> None:
    """Another stored tree with the same files, as hard links where that can be. Raises OSError, BadTreeError;
    then nothing is left of it."""
    with Reader(stored) as reader:
        head = reader.head
    os.makedirs(directory, _OWNER)
    try:
        duplicate(f"{os.path.realpath(stored)}/{DATA}", f"{directory}/{DATA}", head, share=True)
        _write_index(directory, head)
    except BaseException:
        remove(directory)
        raise


def put_in_place(made: str, directory: str) -> None:
    """Give a finished stored tree its name; what had that name before is removed. Raises OSError."""
    try:
        os.rename(made, directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        aside = f"{made}.old"
        os.rename(directory, aside)
        os.rename(made, directory)
        remove(aside)


# -- making one of what a task left ---------------------------------------------------------------------


def take_in(new: NewTree, directory: str, how: Callable[[str], Take]) -> int:
    """Make the stored tree ``directory`` (which does not exist) of what a task made; bytes of its flat form.

    ``how``: whether what lies at a (real) path may be moved here, shared by hard links, or must be copied.
    Raises BadTreeError, OSError; then nothing is left of it."""
    source = os.path.realpath(new.path)
    head = scan(source)
    os.mkdir(directory, _OWNER)
    try:
        _bring(source, f"{directory}/{DATA}", head, how(source))
        _write_index(directory, head)
    except BaseException:
        remove(directory)
        raise
    return head.size


def _bring(source: str, target: str, head: Head, how: Take) -> None:
    if how == "move":
        for entry in head.entries:
            if entry.kind == "d" and entry.mode & _OWNER != _OWNER:
                os.chmod(_below(source, entry), entry.mode | _OWNER)
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
    duplicate(source, target, head, share=how == "link")


def duplicate(source: str, target: str, head: Head, *, share: bool) -> None:
    """Put a copy of the tree at ``source`` at ``target``; with ``share`` its files are hard links where
    that can be. Raises OSError."""
    for entry in head.entries:
        _make(_below(target, entry), entry)
        if entry.kind == "f":
            share = _duplicate_file(_below(source, entry), _below(target, entry), entry, share)
    _finish_directories(target, head)


def _duplicate_file(source: bytes, target: bytes, entry: Entry, share: bool) -> bool:
    if share:
        with contextlib.suppress(OSError):
            os.unlink(target)
            os.link(source, target)
            return True
    shutil.copyfile(source, target)
    _set_times(target, entry)
    return False


def scan(source: str) -> Head:
    """The head of the file or directory at ``source``. Raises BadTreeError."""
    try:
        entries = list(_walk(source, b""))
    except FileNotFoundError as error:
        raise BadTreeError(f"there is no file or directory {_name(error)}, which a task returned") from None
    except PermissionError as error:
        raise BadTreeError(f"{_name(error)} cannot be read: {error.strerror}") from None
    trees.check(entries)
    return Head(entries)


def _name(error: OSError) -> str:
    return os.fsdecode(error.filename)


def _walk(source: str, path: bytes) -> Iterator[Entry]:
    full = os.path.join(os.fsencode(source), path) if path else os.fsencode(source)
    state = os.lstat(full)
    mode, mtime = stat.S_IMODE(state.st_mode) & 0o777, int(state.st_mtime)
    if stat.S_ISREG(state.st_mode):
        if not os.access(full, os.R_OK):
            raise PermissionError(errno.EACCES, "no permission to read it", os.fsdecode(full))
        yield Entry(path, "f", mode, mtime, state.st_size)
    elif stat.S_ISLNK(state.st_mode):
        yield Entry(path, "l", target=os.readlink(full))
    elif stat.S_ISDIR(state.st_mode):
        yield Entry(path, "d", mode, mtime)
        for name in sorted(os.listdir(full)):
            yield from _walk(source, path + b"/" + name if path else name)
    else:
        raise BadTreeError(
            f"{os.fsdecode(full)} is a {_kind(state.st_mode)}: "
            "only files, directories and links can be results"
        )


def _kind(mode: int) -> str:
    known = ((stat.S_ISSOCK, "socket"), (stat.S_ISFIFO, "named pipe"))
    return next((word for test, word in known if test(mode)), "device")


# -- reading one as a stream ----------------------------------------------------------------------------


class Reader:
    """The flat form of a stored tree, or of one that is arriving (as far as its files are there)."""

    def __init__(self, directory: str | int, head: Head | None = None) -> None:
        """``directory``: its path, or a descriptor of it. Raises OSError, BadTreeError."""
        # Found by this descriptor also when the directory is given its final name.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if isinstance(directory, int):
            self._directory = os.open(".", flags, dir_fd=directory)
        else:
            self._directory = os.open(directory, flags)
        try:
            self.head = head or trees.parse_head(self._read_index())
        except BaseException:
            os.close(self._directory)
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._directory)

    @property
    def size(self) -> int:
        return self.head.size

    def read(self, offset: int, length: int) -> bytes:
        """So much of the flat form, less at its end. Raises OSError, also when a file was cut short."""
        end = offset + length
        parts = [self.head.raw[offset:end]]
        for entry, begin, count in self.head.spans(offset, end):
            descriptor = self.open(entry)
            try:
                part = os.pread(descriptor, count, begin)
            finally:
                os.close(descriptor)
            if len(part) != count:
                raise OSError(errno.EIO, "it was cut short", os.fsdecode(entry.path))
            parts.append(part)
        return b"".join(parts)

    def open(self, entry: Entry) -> int:
        """A descriptor of one of its files, to be closed by the caller. Raises OSError."""
        path = os.path.join(DATA.encode(), entry.path) if entry.path else DATA.encode()
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)

    def _read_index(self) -> bytes:
        descriptor = os.open(INDEX, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        with os.fdopen(descriptor, "rb") as file:
            return file.read()


# -- writing one from a stream --------------------------------------------------------------------------


class Writer:
    """Makes a stored tree of its flat form, given piece by piece in order."""

    def __init__(self, directory: str) -> None:
        """``directory``: made here. Raises OSError."""
        os.mkdir(directory, _OWNER)
        self._directory = directory
        self.head: Head | None = None
        """Known as soon as it has arrived."""
        self.received = 0
        self._begun = bytearray()
        self._open: tuple[Entry, int] | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises BadTreeError, OSError."""
        view = memoryview(data)
        if self.head is None:
            view = self._feed_head(view)
        if self.head is not None and self.received + len(view) > self.head.size:
            raise BadTreeError("more came than the tree has")
        while view:
            view = self._feed_file(view)

    def finish(self) -> None:
        """All of it came. Raises BadTreeError when it did not, OSError."""
        self.close()
        if self.head is None or self.received != self.head.size:
            raise BadTreeError(f"the tree ended after {self.received} bytes")
        _finish_directories(f"{self._directory}/{DATA}", self.head)
        _write_index(self._directory, self.head)

    def close(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _feed_head(self, view: memoryview) -> memoryview:
        view = self._gather(view, trees.PREFIX_BYTES)
        if len(self._begun) < trees.PREFIX_BYTES:
            return view
        length = trees.head_length(bytes(self._begun[: trees.PREFIX_BYTES]))
        view = self._gather(view, length)
        if len(self._begun) < length:
            return view
        self.head = trees.parse_head(bytes(self._begun))
        self._begun.clear()
        for entry in self.head.entries:
            _make(_below(f"{self._directory}/{DATA}", entry), entry)
        return view

    def _gather(self, view: memoryview, length: int) -> memoryview:
        """Take what the first ``length`` bytes lack; the rest of ``view``."""
        count = min(max(0, length - len(self._begun)), len(view))
        self._begun += view[:count]
        self.received += count
        return view[count:]

    def _feed_file(self, view: memoryview) -> memoryview:
        assert self.head is not None
        entry, offset, left = next(self.head.spans(self.received, self.head.size))
        if self._open is None or self._open[0] is not entry:
            self.close()
            path = _below(f"{self._directory}/{DATA}", entry)
            self._open = entry, os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        count = os.pwrite(self._open[1], view[:left], offset)
        self.received += count
        if count == left:
            _set_times(self._open[1], entry)
        return view[count:]


# -- single steps ---------------------------------------------------------------------------------------


def _below(root: str, entry: Entry) -> bytes:
    top = os.fsencode(root)
    return top + b"/" + entry.path if entry.path else top


def _make(path: bytes, entry: Entry) -> None:
    """One entry, its content still missing. Never through or over anything that is there."""
    if entry.kind == "d":
        os.mkdir(path, _OWNER)
    elif entry.kind == "l":
        os.symlink(entry.target, path)
    else:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, entry.mode | 0o600)
            if not entry.size:
                _set_times(descriptor, entry)
        finally:
            os.close(descriptor)


def _set_times(file: int | bytes, entry: Entry) -> None:
    """The mode of a file whose content is there, and its time."""
    os.chmod(file, entry.mode | 0o400)
    os.utime(file, (entry.mtime, entry.mtime))


def _finish_directories(root: str, head: Head) -> None:
    for entry in head.entries:
        if entry.kind == "d":
            path = _below(root, entry)
            os.chmod(path, entry.mode | _OWNER)
            os.utime(path, (entry.mtime, entry.mtime))


def _write_index(directory: str, head: Head) -> None:
    with open(f"{directory}/{INDEX}", "wb") as file:
        file.write(head.raw)


def remove(path: str) -> None:
    """Remove a file or a directory with all that is in it, as far as that can be. Raises nothing."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        shutil.rmtree(path, onerror=_try_again)
    except OSError:
        return


def _try_again(act: Callable[..., object], path: str, _: object) -> None:
    """A directory that its owner may not write: opened, then once more."""
    with contextlib.suppress(OSError):
        os.chmod(os.path.dirname(path), _OWNER)
        if act is os.rmdir or not os.path.isdir(path) or os.path.islink(path):
            act(path)
            return
        os.chmod(path, _OWNER)
        shutil.rmtree(path, ignore_errors=True)
