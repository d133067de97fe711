"""Files as tasks name them: something with a content, wherever it lies.

A file is declared once and then used by any number of tasks. What makes its content decides its kind; where
the content lies at the moment is told by its *number*, that of a file of the manager's engine, and None
while there is none. Numbers are given back when the file is undeclared or nobody refers to it any more; at
cache level "task" also when no unfinished task uses it.
"""

from __future__ import annotations

import io
import os
import platform
import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from graphvine.taskvine.remote.sources import Validator
    from graphvine.taskvine.task import Task

Level = Literal["task", "workflow", "worker", "forever"]
LEVELS: tuple[Level, ...] = ("task", "workflow", "worker", "forever")


def level_of(cache: bool | str) -> Level:
    """``cache=`` as TaskVine has it. Raises ValueError."""
    if cache is None or cache is False:
        return "task"
    if cache is True or cache == "always":
        return "workflow"
    for level in LEVELS:
        if cache == level:
            return level
    raise ValueError(f"cache={cache!r}: give True, False, or one of {', '.join(map(repr, LEVELS))}")


class File:
    """A file or directory that tasks take as an input or make as an output. Made by ``declare_*``."""

    kind = ""

    def __init__(
        self, owner: Any, level: Level, *, peer_transfer: bool = True, unlink_when_done: bool = False
    ) -> None:
        self._owner = owner
        self.level = level
        self.peer_transfer = bool(peer_transfer)
        self.unlink_when_done = bool(unlink_when_done)
        self.number: int | None = None
        """Where its content lies in the engine."""
        self.producer: Task | None = None
        """The unfinished task that makes it."""
        self.users = 0
        """Unfinished tasks that need it."""
        self.undeclared = False
        self.mode: int | None = None
        """What ``set_mode`` said."""
        self.apart = uuid.uuid4().hex
        """Its name on workers that make it for themselves."""
        self.probed = ""
        """The name under which nodes were asked whether they have kept it."""
        self._finalizer: weakref.finalize[..., Any] | None = None

    # -- users -----------------------------------------------------------------------------------------

    def type(self) -> str:
        """What kind of file it is: "file", "url", "buffer", "temp" or "minitask"."""
        return self.kind

    def source(self) -> str | None:
        """The path of a local file; None for others."""
        return None

    def set_mode(self, mode: int) -> None:
        """The permission bits of a buffer, a URL or a mini-task in a sandbox, from its next making on. (A
        file of this machine has its own.) Raises ValueError."""
        if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o7777:
            raise ValueError(f"mode={mode!r}: give permission bits, as in 0o600")
        self.mode = mode

    def contents(self, unpickler: Callable[[Any], Any] | None = None) -> Any:
        """Its bytes, or what ``unpickler`` makes of them (it is given an open file, as ``pickle.load`` is).

        Fetches them from the workers if they are only there. Raises OSError when they cannot be had."""
        data: bytes = self._owner._contents_of(self)
        return data if unpickler is None else unpickler(io.BytesIO(data))

    def read_here(self) -> bytes | None:
        """Its bytes, where they are the manager's; None where they are not. Raises OSError."""
        return None

    def __len__(self) -> int:
        """Its size in bytes, as far as is known here; else 0."""
        return 0

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{self.kind} {self.label}>"

    @property
    def label(self) -> str:
        """How messages name it."""
        return self.kind

    # -- the client ------------------------------------------------------------------------------------

    def hold(self, number: int, release: Callable[[Sequence[int]], None]) -> None:
        """Its content lies there; ``release`` gives it back."""
        self.let_go()
        self.number = number
        self._finalizer = weakref.finalize(self, release, [number])
        self._finalizer.atexit = False

    def let_go(self) -> None:
        """Give back what is held."""
        finalizer, self._finalizer = self._finalizer, None
        self.number = None
        if finalizer is not None:
            finalizer()


class LocalFile(File):
    """A file or directory of the manager's machine: an input that is there, or where an output is brought."""

    kind = "file"

    def __init__(self, owner: Any, path: str, level: Level, **options: bool) -> None:
        super().__init__(owner, level, **options)
        self.path = path
        self.stamp: int | None = None
        """What lay at the path when ``number`` was its content."""
        self.content = ""
        """The name of what it holds, where somebody asked, ..."""
        self.named: int | None = None
        """... and what lay at the path then."""

    def source(self) -> str | None:
        return self.path

    @property
    def label(self) -> str:
        return repr(self.path)

    def resolved(self) -> str:
        """The path, with $OS and $ARCH filled in where there is no file of the literal name."""
        if "$" in self.path and not os.path.lexists(self.path):
            kind = platform.uname()
            return self.path.replace("$OS", kind.system).replace("$ARCH", kind.machine)
        return self.path

    def read_here(self) -> bytes | None:
        if self.producer is not None:
            return None
        with open(self.resolved(), "rb") as file:
            return file.read()

    def __len__(self) -> int:
        try:
            return os.stat(self.resolved()).st_size
        except OSError:
            return 0


class Buffer(File):
    """Bytes of the manager's process: an input, or where an output is brought."""

    kind = "buffer"

    def __init__(self, owner: Any, data: bytes | None, level: Level, **options: bool) -> None:
        super().__init__(owner, level, **options)
        self.data = data
        self.growing: bytes | None = None
        """What has come so far, of one that is watched."""

    def read_here(self) -> bytes | None:
        if self.producer is not None:
            return self.growing
        if self.data is None:
            raise FileNotFoundError("this buffer has no content: no task has made it")
        return self.data

    def __len__(self) -> int:
        return len(self.data or b"")


class Temp(File):
    """What a task makes and other tasks need; it stays on the workers."""

    kind = "temp"

    unmade = ""
    """Why the task that was to make it did not even begin to; "" while another one may."""


class Url(File):
    """What a worker reads from somewhere else. ``proxy``: a certificate that it needs for that."""

    kind = "url"

    def __init__(
        self, owner: Any, url: str, level: Level, proxy: File | None = None, **options: bool
    ) -> None:
        super().__init__(owner, level, **options)
        self.url = url
        self.proxy = proxy
        self.environment: dict[str, str] = {}
        self.validator: Validator | None = None
        """Of the content that ``number`` is, once it is known."""
        self.unsure = False
        """Whether the source is to be asked before it is used next."""

    def source(self) -> str | None:
        return self.url

    @property
    def label(self) -> str:
        return repr(self.url)


class MiniTask(File):
    """What a task makes when somebody needs it: ``output`` is its name in the sandbox of that task."""

    kind = "minitask"

    def __init__(self, owner: Any, task: Task, output: str, level: Level, **options: bool) -> None:
        super().__init__(owner, level, **options)
        self.task = task
        self.output = output

    @property
    def label(self) -> str:
        return f"the mini-task {self.task.command!r}"


class Unpacked(File):
    """An archive's content."""

    kind = "minitask"

    def __init__(self, owner: Any, archive: File, level: Level, **options: bool) -> None:
        super().__init__(owner, level, **options)
        self.archive = archive

    @property
    def label(self) -> str:
        return f"what is packed in {self.archive.label}"


class Environment(File):
    """A packed environment: each node unpacks it once, where it stays. ``archive``: what is packed; its
    content is all that there is, so that one holds and lets go, and this one does not."""

    kind = "minitask"

    def __init__(self, owner: Any, archive: File, level: Level, **options: bool) -> None:
        self.archive = archive
        super().__init__(owner, level, **options)

    @property
    def number(self) -> int | None:
        return self.archive.number

    @number.setter
    def number(self, number: int | None) -> None:
        """Nothing is held here."""

    def let_go(self) -> None:
        """Nothing is held here."""


#: Of a local file: what lay at its path, as far as one look at it tells.
Glance = tuple[int, int, int] | None


def glances(files: Iterable[File]) -> list[tuple[LocalFile, Glance]]:
    """Local files that nobody makes anew, with what lies at their paths."""
    return [(file, glance(file)) for file in files if isinstance(file, LocalFile) and file.producer is None]


def glance(file: LocalFile) -> Glance:
    try:
        status = os.stat(file.resolved())
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def is_made_apart(file: File) -> bool:
    """Whether each worker that needs it makes it for itself."""
    return not file.peer_transfer and isinstance(file, (Url, MiniTask, Unpacked))


def needed_by(file: File) -> list[File]:
    """The files that one is made of."""
    if isinstance(file, MiniTask):
        return file.task.input_files()
    if isinstance(file, (Unpacked, Environment)):
        return [file.archive]
    if isinstance(file, Url) and file.proxy is not None:
        return [file.proxy]
    return []


def all_needed(files: Iterable[File]) -> list[File]:
    """Files, and all that they are made of, each once."""
    left = list(files)
    if not left:
        return left
    found: dict[int, File] = {}
    while left:
        file = left.pop()
        if id(file) not in found:
            found[id(file)] = file
            left += needed_by(file)
    return list(found.values())


def check_acyclic(files: Sequence[File]) -> None:
    """Raises ValueError where a mini-task needs what it makes."""
    done: set[int] = set()
    for file in files:
        _visit(file, done, [])


def _visit(file: File, done: set[int], path: list[File]) -> None:
    if id(file) in done:
        return
    if any(file is one for one in path):
        names = " needs ".join(one.label for one in [*path[path.index(file) :], file])
        raise ValueError(f"mini-tasks in a circle: {names}")
    for needed in needed_by(file):
        _visit(needed, done, [*path, file])
    done.add(id(file))
