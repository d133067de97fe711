"""A batch of submitted tasks, and the files they need, as one plan.

    builder.input(file)            the file as an input: of an earlier plan, or an entry that makes it
    builder.add(entry, inputs)     one entry; what comes of it is told to a *listener*
    builder.give(data or path)     content that the manager has; no entry runs

- Every result is wanted and kept: a file is held until it is undeclared, a task's own result until it was
  read.
- Entries are pickled together, plainly: they are functions of ``remote`` and bytes. The user's own functions
  are among the bytes.
"""

from __future__ import annotations

import logging
import os
import pickle
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from graphvine.manager.plan import Code, GivenFile, GivenValue, Plan, TaskOptions
from graphvine.protocol import tree_files, trees
from graphvine.protocol.given_files import ChangedError, check_unchanged, stamp_of
from graphvine.protocol.messages import LIGHT_CORES, Resources
from graphvine.protocol.payload import Entry
from graphvine.protocol.trees import BadTreeError
from graphvine.taskvine.files import (
    Buffer,
    Environment,
    File,
    Glance,
    LocalFile,
    MiniTask,
    Temp,
    Unpacked,
    Url,
    glance,
)
from graphvine.taskvine.naming import kept_name
from graphvine.taskvine.remote import kept, sources, unpack
from graphvine.taskvine.remote.contents import SMALL_BYTES, SmallFile
from graphvine.taskvine.remote.limits import Limits
from graphvine.taskvine.results import Summary

if TYPE_CHECKING:
    from graphvine.manager.engine import Outcome
    from graphvine.taskvine.task import Task

log = logging.getLogger("graphvine.tasks")

#: Entries of one blob.
BLOB_TASKS = 1024
#: ... and bytes of their arguments, unless one has more.
BLOB_BYTES = 2**20
#: A buffer may be a script, and what comes from a URL a program.
RUNNABLE = 0o755
#: What our own entries ask for: as little as an entry can.
SMALL = TaskOptions(request=Resources(cores=LIGHT_CORES), retries=1)


class MissingInputError(Exception):
    """A file that is not there, or cannot be read; the message says which and why."""


#: Told what the engine says of an entry.
Listener = Callable[["Outcome"], None]


class Begun(msgspec.Struct):
    """A task that is an entry of a plan. ``outputs``: its files, with the entries they are."""

    task: Task
    entry: int
    outputs: list[tuple[File, int]] = []


class Builder:
    """Makes one plan. Not thread-safe."""

    def __init__(
        self,
        staging: str,
        defaults: Mapping[str, Summary] | None = None,
        limits: Mapping[str, str] | None = None,
        enforced: bool = False,
    ) -> None:
        """``staging``: a directory for the content of large buffers. ``defaults``: by category, what tasks
        ask for that do not say; ``limits``: the limits of categories that have one. ``enforced``: tasks that
        use more memory or disk than was stated are stopped."""
        self._staging = staging
        self._defaults = defaults or {}
        self._category_limits = limits or {}
        self._enforced = enforced
        self._inputs: list[tuple[int, ...]] = []
        self._keys: list[object] = []
        self._entries: list[Entry | None] = []
        self._categories: dict[str, int] = {}
        self._category_of: list[int] = []
        self._options: dict[int, TaskOptions] = {}
        self._given: dict[int, GivenValue | GivenFile] = {}
        self._externals: dict[int, int] = {}
        self._entry_of: dict[File, int] = {}
        self._sizes: dict[int, int] = {}
        self._asked: dict[object, TaskOptions] = {}
        """By what tasks say."""
        self._told = 0
        self._looked_at: dict[LocalFile, bool] = {}
        self.listeners: dict[int, Listener] = {}
        self.begun: list[Begun] = []
        self.replaced: list[int] = []
        """Given entries of files that a task of this plan makes anew."""
        self.unshared: set[int] = set()
        """Entries that no worker gets from another."""
        self.limits: set[str] = set()
        """Names of limits that entries have."""
        self.code = Code()

    def __len__(self) -> int:
        return len(self._inputs)

    def options_of(self, task: Task) -> TaskOptions:
        """What a task asks of the engine, its category's share included. One object for all that ask for the
        same."""
        category = task._category
        asking = (category, task._asking())
        known = self._asked.get(asking)
        if known is None:
            known = task.options(self._defaults.get(category) or Summary())
            limit = self._category_limits.get(category)
            if limit:
                known = msgspec.structs.replace(known, limit=limit)
            self._asked[asking] = known
        return known

    def limits_of(self, request: Resources) -> Limits:
        """What a task may use."""
        return Limits(request.memory_mb, request.disk_mb) if self._enforced else Limits()

    # -- entries ---------------------------------------------------------------------------------------

    def add(
        self,
        entry: Entry,
        inputs: Sequence[int],
        key: object,
        category: str,
        options: TaskOptions = SMALL,
        listener: Listener | None = None,
        size: int = 0,
    ) -> int:
        """One more entry; its number. ``inputs``: what ``input`` and ``add`` gave, in slot order, each
        once. ``size``: of its arguments, in bytes."""
        number = len(self._inputs)
        self._inputs.append(tuple(inputs))
        self._keys.append(key)
        self._entries.append(entry)
        self._category_of.append(self._categories.setdefault(category, len(self._categories)))
        self._options[number] = options
        if size:
            self._sizes[number] = size
        if listener is not None:
            self.listeners[number] = listener
        return number

    def give(self, given: GivenValue | GivenFile, key: object) -> int:
        """Content that is here already."""
        number = self.add((len, ((),), ()), (), key, "given")
        self._entries[number] = None
        self._given[number] = given
        return number

    def begin(self, task: Task, entry: int, outputs: Sequence[tuple[File, int]] = ()) -> None:
        """``entry`` is the task itself, and the outputs are its files."""
        self.begun.append(Begun(task, entry, list(outputs)))
        for file, made in outputs:
            before = self._entry_of.get(file)
            if before in self._given:
                self.replaced.append(before)
            self._entry_of[file] = made
            if not file.peer_transfer:
                self.unshared.add(made)

    # -- files -----------------------------------------------------------------------------------------

    def input(self, file: File) -> int:
        """A file as an input of an entry. Raises MissingInputError."""
        if isinstance(file, Environment):
            # Unpacked where it is used, once per node.
            return self.input(file.archive)
        entry = self._entry_of.get(file)
        if entry is not None:
            return entry
        if file.number is not None:
            if not isinstance(file, LocalFile) or file.producer is not None or self._is_as_it_was(file):
                return self._external(file.number)
            # Somebody wrote to it since.
            file.let_go()
        entry = self._made(file)
        if entry >= 0:
            self._entry_of[file] = entry
            if not file.peer_transfer:
                self.unshared.add(entry)
        return entry

    def files(self) -> dict[File, int]:
        """The files that this plan makes or has, and the entries they are."""
        return self._entry_of

    def new_files(self) -> list[File]:
        """Those that came since this was asked last."""
        files = list(self._entry_of)[self._told :]
        self._told = len(self._entry_of)
        return files

    def making(self, file: File) -> tuple[bytes, tuple[int, ...]]:
        """How a file is made, for workers that do so for themselves: the pickled function and arguments of
        its entry, which is not added, and the inputs of that. Raises MissingInputError."""
        self._made(file, apart=True)
        entry, inputs = self._entries.pop(), self._inputs.pop()
        assert entry is not None, "it is made by a task"
        number = len(self._inputs)
        self._keys.pop()
        self._category_of.pop()
        for known in (self._options, self._sizes, self.listeners):
            known.pop(number, None)
        return pickle.dumps(entry[:2], protocol=5), inputs

    def _external(self, number: int) -> int:
        return -1 - self._externals.setdefault(number, len(self._externals))

    def _made(self, file: File, *, apart: bool = False) -> int:
        """``apart``: as a part of other tasks."""
        if isinstance(file, LocalFile):
            return self._given_path(file)
        if isinstance(file, Buffer):
            return self._given_buffer(file)
        if isinstance(file, Url):
            return self._fetched(file, apart)
        if isinstance(file, MiniTask):
            return self._made_by(file)
        if isinstance(file, Unpacked):
            archive = self.input(file.archive)
            return self.add(self.kept(file, (unpack.untar, (), None)), [archive], file.label, "untar")
        if isinstance(file, Temp) and file.unmade:
            raise MissingInputError(file.unmade)
        raise MissingInputError(
            f"{file.label} was undeclared" if file.undeclared else f"{file.label} is made by no task"
        )

    def kept(self, file: File, entry: Entry) -> Entry:
        """An entry that makes a file, unless the node has it from an earlier run."""
        name = kept_name(file)
        if not name:
            return entry
        function, arguments, _ = entry
        return (kept.through, (name, function, arguments), None)

    def check_unchanged(self, found: Sequence[tuple[LocalFile, Glance]]) -> None:
        """Local files are still what a task was submitted with (or what another task made of them). Raises
        MissingInputError."""
        for file, seen in found:
            if file.producer is not None or file in self._entry_of:
                continue
            if glance(file) != seen and not (file.number is not None and self._is_as_it_was(file)):
                raise MissingInputError(f"{file.label} changed after the task was submitted")

    def _is_as_it_was(self, file: LocalFile) -> bool:
        """Whether its content is still what the engine has. Looked up once for all tasks of this plan."""
        if file not in self._looked_at:
            self._looked_at[file] = file.stamp is not None and file.stamp == stamp_or_none(file.resolved())
        return self._looked_at[file]

    def _given_path(self, file: LocalFile) -> int:
        path = os.path.abspath(file.resolved())
        try:
            file.stamp = stamp_of(path)
            given = self._read_path(path, file.stamp)
            check_unchanged(path, file.stamp)
        except OSError as error:
            raise MissingInputError(f"{path}: {error.strerror or error}") from None
        except BadTreeError as error:
            raise MissingInputError(str(error)) from None
        except ChangedError:
            raise MissingInputError(f"{path} changed while it was read") from None
        if kept_name(file) and file.named != file.stamp:
            raise MissingInputError(f"{path} changed after it was named by its content")
        return self.give(given, file.label)

    def _read_path(self, path: str, stamp: int) -> GivenValue | GivenFile:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) and status.st_size <= SMALL_BYTES:
            with open(path, "rb") as stream:
                small = SmallFile(stream.read(), stat.S_IMODE(status.st_mode))
            return GivenValue(pickle.dumps(small, protocol=5))
        # The path may be a link itself.
        head = tree_files.scan(os.path.realpath(path))
        _warn_of_links(path, trees.links_out(head.entries))
        return GivenFile(path, head.content, stamp=stamp)

    def _given_buffer(self, file: Buffer) -> int:
        if file.data is None:
            raise MissingInputError("a buffer without content is an input, and no task makes it")
        if len(file.data) <= SMALL_BYTES:
            small = SmallFile(file.data, mode_of(file))
            return self.give(GivenValue(pickle.dumps(small, protocol=5)), file.label)
        path = os.path.join(self._staging, f"buffer-{id(file)}")
        with open(path, "wb") as stream:
            stream.write(file.data)
            os.fchmod(stream.fileno(), mode_of(file))
        return self.give(GivenFile(path, len(file.data), stamp=stamp_of(path)), file.label)

    def _fetched(self, file: Url, apart: bool) -> int:
        host = sources.host_of(file.url)
        limit = f"source {host}"
        self.limits.add(limit)
        request = sources.Request(file.url, kept_name(file), file.validator or sources.Validator())
        request.variables, request.mode = file.environment, mode_of(file)
        # As a task it is let through before it begins.
        request.limit = limit if apart else ""
        inputs = [self.input(file.proxy)] if file.proxy is not None else []
        options = msgspec.structs.replace(SMALL, limit=limit)

        def heard(outcome: Outcome) -> None:
            if outcome.ok and outcome.note:
                file.validator = sources.decode_validator(outcome.note)

        return self.add(
            (sources.fetch, (sources.encode(request),), None), inputs, file.url, "fetch", options, heard
        )

    def _made_by(self, file: MiniTask) -> int:
        from graphvine.taskvine import commands

        return commands.enter_minitask(self, file)

    # -- the plan --------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """All that was added. Raises what pickling raises."""
        count = len(self._inputs)
        blob_of, blob_index = [-1] * count, [0] * count
        blobs: list[bytes] = []
        plain = [number for number, entry in enumerate(self._entries) if entry is not None]
        for together in self._portions(plain):
            for index, number in enumerate(together):
                blob_of[number], blob_index[number] = len(blobs), index
            blobs.append(pickle.dumps([self._entries[number] for number in together], protocol=5))
        usual = self._usual_options()
        return Plan(
            keys=self._keys,
            inputs=self._inputs,
            blobs=blobs,
            blob_of=blob_of,
            blob_index=blob_index,
            categories=list(self._categories),
            category_of=self._category_of,
            wanted=list(range(count)),
            externals=list(self._externals),
            options={task: asked for task, asked in self._options.items() if asked is not usual},
            default_options=usual,
            code=self.code,
            given=self._given,
            separate=True,
            label="tasks",
            unshared=frozenset(self.unshared),
        )

    def _usual_options(self) -> TaskOptions:
        """What most entries ask for."""
        counts = Counter(map(id, self._options.values()))
        usual = counts.most_common(1)[0][0] if counts else 0
        return next((asked for asked in self._options.values() if id(asked) == usual), SMALL)

    def _portions(self, entries: Sequence[int]) -> Iterator[Sequence[int]]:
        """Entries that are pickled together: who needs one reads them all."""
        portion: list[int] = []
        size = 0
        for number in entries:
            more = self._sizes.get(number, 0)
            if portion and (len(portion) == BLOB_TASKS or size + more > BLOB_BYTES):
                yield portion
                portion, size = [], 0
            portion.append(number)
            size += more
        if portion:
            yield portion


def _warn_of_links(path: str, links: Sequence[trees.Entry]) -> None:
    """What is linked is perhaps meant to be sent, and is not."""
    if links:
        first = links[0]
        log.warning(
            "%s has links that lead out of it, which are sent as links, without what they lead to: "
            "%d of them, such as %s to %s",
            path,
            len(links),
            os.fsdecode(first.path),
            os.fsdecode(first.target),
        )


def stamp_or_none(path: str) -> int | None:
    """What tells one content of a path from another; None where there is nothing."""
    try:
        return stamp_of(path)
    except OSError:
        return None


def mode_of(file: File) -> int:
    """The permission bits of what a buffer or a URL is on workers."""
    return RUNNABLE if file.mode is None else file.mode
