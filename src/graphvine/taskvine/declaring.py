"""Declaring files, and what is asked about them: ``declare_*``, ``fetch_file``, ``undeclare_file``, ..."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphvine.taskvine.base import DeskClient
from graphvine.taskvine.files import (
    Buffer,
    Environment,
    File,
    Level,
    LocalFile,
    MiniTask,
    Temp,
    Unpacked,
    Url,
    check_acyclic,
    level_of,
)

if TYPE_CHECKING:
    from graphvine.taskvine.held import HeldFiles
    from graphvine.taskvine.task import Task


class FileClient(DeskClient):
    """Declares files."""

    def __init__(self) -> None:
        super().__init__()
        self._declared: weakref.WeakValueDictionary[tuple[Any, ...], File] = weakref.WeakValueDictionary()

    def declare_file(
        self,
        path: str | os.PathLike[str],
        cache: bool | str = False,
        peer_transfer: bool = True,
        unlink_when_done: bool = False,
    ) -> LocalFile:
        """A file or directory of this machine, for inputs and outputs.

        ``cache``: how long workers keep it: "task" (False), "workflow" (True), "worker" or "forever".
        ``unlink_when_done``: once it is undeclared and no task needs it, it is removed from this machine."""
        path, level = os.fspath(path), level_of(cache)
        key = ("file", os.path.abspath(path), level, bool(peer_transfer), bool(unlink_when_done))
        found = self._known(key)
        if isinstance(found, LocalFile):
            return found
        file = LocalFile(self, path, level, peer_transfer=peer_transfer, unlink_when_done=unlink_when_done)
        self._declared[key] = file
        return file

    def declare_url(self, url: str, cache: bool | str = False, peer_transfer: bool = True) -> Url:
        """What a worker reads from a URL: http, https, and all that fsspec opens. Raises TypeError."""
        return self._declare_url(url, level_of(cache), peer_transfer)

    def declare_xrootd(
        self,
        source: str,
        proxy: File | None = None,
        env: Mapping[str, str] | None = None,
        cache: bool | str = False,
        peer_transfer: bool = True,
    ) -> Url:
        """A file of an xrootd server: ``root://host//path``. ``proxy``: an X.509 proxy certificate. ``env``:
        variables for the transfer; an environment cannot be given (the worker's own needs fsspec-xrootd).
        Raises TypeError for one."""
        if isinstance(env, File):
            raise TypeError(
                "env: the worker's own environment must have fsspec-xrootd; give variables, or None"
            )
        return self._declare_url(source, level_of(cache), peer_transfer, proxy, dict(env or {}))

    def _declare_url(
        self,
        url: str,
        level: Level,
        peer_transfer: bool,
        proxy: File | None = None,
        variables: dict[str, str] | None = None,
    ) -> Url:
        if not isinstance(url, str):
            raise TypeError(f"url {url!r} is not a str")
        if "://" not in url:
            raise ValueError(f"{url!r} is no URL: it has no scheme, as in https://host/path")
        key = ("url", url, level, bool(peer_transfer), id(proxy), tuple(sorted((variables or {}).items())))
        found = self._known(key)
        if isinstance(found, Url):
            # It may have changed at its source since.
            found.unsure = found.number is not None
            return found
        file = Url(self, url, level, proxy, peer_transfer=peer_transfer)
        file.environment = variables or {}
        self._declared[key] = file
        return file

    def _known(self, key: tuple[Any, ...]) -> File | None:
        found = self._declared.get(key)
        return None if found is None or found.undeclared else found

    def declare_buffer(
        self, buffer: bytes | str | None = None, cache: bool | str = False, peer_transfer: bool = True
    ) -> Buffer:
        """Bytes as a file; None for an output, whose ``contents()`` are then here."""
        data = buffer.encode() if isinstance(buffer, str) else None if buffer is None else bytes(buffer)
        return Buffer(self, data, level_of(cache), peer_transfer=peer_transfer)

    def declare_temp(self) -> Temp:
        """What one task makes and others need; it stays on the workers."""
        return Temp(self, "workflow")

    def declare_minitask(
        self,
        minitask: Task,
        source: str | None = None,
        cache: bool | str = False,
        peer_transfer: bool = True,
        name: str = "minitask",
    ) -> MiniTask:
        """What the task leaves in its sandbox as ``source`` (None: its only output); it is run where and when
        the file is needed. ``name``: nothing to do. Raises TypeError for what is no command, ValueError for
        a name that leads out of the sandbox, and when the task needs its own output."""
        from graphvine.taskvine.task import Task, _checked_name

        if not isinstance(minitask, Task):
            raise TypeError(f"{minitask!r} is no task")
        if type(minitask)._enter is not Task._enter:
            raise TypeError(f"{minitask!r} is no command: only commands can be mini-tasks")
        source = _only_output(minitask) if source is None else source
        minitask.manager = self
        minitask.submit_finalize()
        file = MiniTask(self, minitask, _checked_name(source), level_of(cache), peer_transfer=peer_transfer)
        check_acyclic([file])
        return file

    declare_mini_task = declare_minitask

    def declare_untar(self, tarball: File, cache: bool | str = False, peer_transfer: bool = True) -> Unpacked:
        """The directory that an archive unpacks to (tar, plain or compressed with gzip, bzip2, xz or zstd;
        zip)."""
        _check_file(tarball)
        return Unpacked(self, tarball, level_of(cache), peer_transfer=peer_transfer)

    def declare_poncho(
        self, package: File | str, cache: bool | str = False, peer_transfer: bool = True
    ) -> Environment:
        """An environment, for ``add_environment``: a packed one (a path or a file), or what is packed now: a
        conda prefix, a virtual environment, "current". Raises PackingError, OSError."""
        archive = self._packed(package) if isinstance(package, (str, os.PathLike)) else package
        _check_file(archive)
        return Environment(self, archive, level_of(cache), peer_transfer=peer_transfer)

    declare_environment = declare_poncho

    def _packed(self, source: str | os.PathLike[str]) -> LocalFile:
        if source == "current" or os.path.isdir(source):
            from graphvine.envs.packing import pack

            source = pack(source).path
        return self.declare_file(source, cache=True)

    def declare_starch(
        self, starch: File | str, cache: bool | str = False, peer_transfer: bool = True
    ) -> MiniTask:
        """The directory that a Starch package (.sfx) extracts to."""
        from graphvine.taskvine.task import Task

        package = self.declare_file(starch, cache=True) if isinstance(starch, (str, os.PathLike)) else starch
        task = Task("SFX_DIR=unpacked SFX_EXTRACT_ONLY=1 SFX_EXTRACT_FORCE=1 ./package.sfx")
        task.add_input(package, "package.sfx")
        return self.declare_minitask(task, "unpacked", cache, peer_transfer)

    def declare_chirp(self, *_: Any, **__: Any) -> File:
        """Not here. Raises NotImplementedError."""
        raise NotImplementedError("files of Chirp servers cannot be read here: serve them over http, say")

    def fetch_file(self, file: File) -> str:
        """The content of a file as text, wherever it lies (``file.contents()``: its bytes). What is no UTF-8
        is kept by surrogates: ``.encode(errors="surrogateescape")`` gives it back. Waits for it. Raises
        OSError when it cannot be had."""
        return self._contents_of(file).decode(errors="surrogateescape")

    def _contents_of(self, file: File) -> bytes:
        """See ``File.contents``."""
        _check_file(file)
        here = file.read_here()
        if here is not None:
            return here
        from graphvine.taskvine.plans import MissingInputError
        from graphvine.taskvine.retrieval import read_bytes

        try:
            return read_bytes(self._desk.content(file))
        except MissingInputError as error:
            raise FileNotFoundError(str(error)) from None

    def hold_files(self, files: Sequence[Any]) -> HeldFiles:
        """Declared files for the tasks of a graph. Raises TypeError, FileNotFoundError."""
        from graphvine.taskvine.held import HeldFiles

        for file in files:
            _check_file(file)
        return HeldFiles(self._desk, files)

    def archive_of(self, environment: Any) -> Any:
        """The path of what was declared as an environment; anything else as it is. Raises TypeError."""
        if not isinstance(environment, File):
            return environment
        archive = environment.archive if isinstance(environment, Environment) else environment
        if not isinstance(archive, LocalFile):
            raise TypeError(f"environment: {archive.label} is no file of this machine")
        return archive.resolved()

    def undeclare_file(self, file: File) -> None:
        """No task uses it any more: workers drop it once the submitted ones are over."""
        _check_file(file)
        self._desk.undeclare(file)

    def remove_file(self, file: File) -> None:
        """See ``undeclare_file``."""
        self.undeclare_file(file)

    def prune_file(self, file: File) -> None:
        """Workers drop it; it is made, sent or read again when a task needs it."""
        _check_file(file)
        if file.number is not None:
            self._engine.prune([file.number])

    def get_file_replica_count(self, file: File) -> int:
        """How many workers hold it now."""
        _check_file(file)
        return 0 if file.number is None else self._engine.replicas(file.number)


def _only_output(task: Task) -> str:
    """Raises ValueError."""
    if len(task._outputs) != 1:
        raise ValueError(f"source: {task!r} has {len(task._outputs)} outputs; say which file is meant")
    return task._outputs[0].name


def _check_file(file: Any) -> None:
    if not isinstance(file, File):
        raise TypeError(f"{file!r} is no file: declare it first, as with manager.declare_file(path)")
