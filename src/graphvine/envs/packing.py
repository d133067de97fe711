"""Packs an environment into one archive that runs anywhere: ``pack()``.

What may be packed, and how:

- a virtual environment or plain Python prefix: made self-contained (``envs.portable``, ``envs.libraries``)
- a conda prefix: by conda-pack (``envs.conda``)
- ``"current"``: whichever of these runs us; what PYTHONPATH names goes along
- an archive that somebody packed before: taken as it is, and named

Editable installs and packages outside the environment go in as ordinary packages (``envs.packages``), and
bytecode is made to last (``envs.bytecode``). The first member describes the rest (``envs.metadata``). An
environment that did not change since it was packed is not packed again (``envs.index``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import msgspec

from graphvine.envs import bytecode, cache, conda, front, index, libraries, packages, portable, writer
from graphvine.envs.errors import ChangedError, NoSpaceError, PackingError
from graphvine.envs.extract import read_metadata
from graphvine.envs.index import Entry, Index
from graphvine.envs.items import Item, data_item, walk
from graphvine.envs.metadata import MEMBER, Metadata, encode
from graphvine.envs.stream import Stream
from graphvine.envs.survey import survey

#: Part of every fingerprint: changes when the same environment would be packed otherwise.
_RECIPE = "4"
_KEPT_UNUSED_S = 86_400.0
_TRIES = 3
_STAGING = ".staging-"

#: Called with what is done now, how much of it is done, and how much there is.
OnProgress = Callable[[str, int, int], None]


class PackedEnvironment(msgspec.Struct, frozen=True):
    """An archive. ``name`` changes with its contents. ``python`` is the full version; it and ``platform`` are
    "" for an archive that others made. ``size`` in bytes."""

    path: str
    name: str
    python: str
    platform: str
    size: int


def pack(
    source: str | os.PathLike[str] = "current",
    output: str | os.PathLike[str] | None = None,
    *,
    compression: str = "",
    progress: OnProgress | None = None,
) -> PackedEnvironment:
    """Pack ``source``: "current", a conda prefix, a virtual environment, a Python prefix, or an archive.

    The archive goes to ``output``, by default into the user's cache. ``compression``: "zst" or "gz", by
    default as ``output`` says, else "zst". ``progress`` is called with what is done, how much of it, and of
    how much. Raises PackingError, OSError."""
    wanted = None if output is None else _writable(os.path.abspath(output))
    chosen = _compression(compression, wanted)
    path = sys.prefix if source == "current" else os.path.abspath(os.path.expanduser(source))
    if os.path.isfile(path):
        return _to_output(name_archive(path), wanted)
    if not os.path.isdir(path):
        raise PackingError(f"there is no environment at {path}")
    try:
        packing = _Packing(path, source == "current", chosen, progress or (lambda what, done, total: None))
        return _to_output(packing.packed(), wanted)
    except OSError as error:
        if not cache.is_full(error):
            raise
        raise NoSpaceError(
            f"no space for the archive of {path} ({error}). Make room there, or set GRAPHVINE_CACHE_DIR to a "
            "directory on a larger disk"
        ) from error


def _writable(output: str) -> str:
    """The place for an archive, when one can be put there: packing takes a while. Raises PackingError."""
    parent, code = os.path.dirname(output), 0
    if os.path.isdir(output):
        code = errno.EISDIR
    elif not os.path.isdir(parent):
        code = errno.ENOENT
    elif not os.access(parent, os.W_OK | os.X_OK):
        code = errno.EACCES
    if code:
        raise PackingError(f"the archive can't be written to {output}: {os.strerror(code)}")
    return output


def _compression(told: str, output: str | None) -> str:
    if not told:
        told = "gz" if output is not None and output.endswith((".gz", ".tgz")) else "zst"
    if told not in writer.SUFFIXES:
        raise PackingError(f"compression {told!r} is not known; there are {', '.join(writer.SUFFIXES)}")
    return told


def _to_output(packed: PackedEnvironment, output: str | None) -> PackedEnvironment:
    """A link or copy of the archive at the place that was asked for."""
    if output is None or os.path.realpath(output) == os.path.realpath(packed.path):
        return packed
    temporary = f"{output}.{os.getpid()}.part"
    try:
        try:
            os.link(packed.path, temporary)
        except OSError:
            shutil.copyfile(packed.path, temporary)
        os.replace(temporary, output)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return msgspec.structs.replace(packed, path=output)


def directory() -> str:
    """Where packed archives are kept. Raises CacheError."""
    directory = os.path.join(cache.default_directory(), "packed")
    cache.make_directory(os.path.dirname(directory))
    cache.make_directory(directory)
    return directory


def _result(entry: Entry) -> PackedEnvironment:
    return PackedEnvironment(entry.archive.path, entry.name, entry.python, entry.platform, entry.archive.size)


# -- archives -----------------------------------------------------------------------------------------------


def name_archive(path: str) -> PackedEnvironment:
    """Name an archive that is there. Reads all of it once. Raises PackedEnvironmentError, OSError."""
    path = os.path.abspath(path)
    known = Index(directory())
    seen = index.see(path)
    entry = known.find(path, _RECIPE)
    if entry is None:
        with Stream(path) as stream:
            metadata = read_metadata(stream) or Metadata()
        name = f"env-{writer.digest_of(path)}"
        entry = Entry(_RECIPE, seen, name, metadata.python, metadata.platform)
        known.remember(path, entry)
    return _result(entry)


# -- prefixes -----------------------------------------------------------------------------------------------


class _Packing:
    def __init__(self, prefix: str, is_current: bool, compression: str, progress: OnProgress) -> None:
        self._prefix = prefix
        self._compression = compression
        self._progress = progress
        self._directory = directory()
        self._index = Index(self._directory)
        progress("looking at files", 0, 0)
        python = sys.executable if is_current else _python_in(prefix)
        self._python, self._is_current = python, is_current
        self._survey = survey(python, with_python_path=is_current)
        self._is_conda = conda.is_conda(prefix)
        self._key = f"{prefix}\0{is_current}\0{compression}"

    def packed(self) -> PackedEnvironment:
        """Pack, again when a file changed meanwhile: somebody may be working on an editable package."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(ChangedError):
                return self._packed()
        return self._packed()

    def _packed(self) -> PackedEnvironment:
        items = self._items_now()
        fingerprint = index.fingerprint(items, _RECIPE, msgspec.json.encode(self._survey).decode())
        entry = self._index.find(self._key, fingerprint)
        if entry is None:
            entry = self._pack(items, fingerprint)
            self._index.remember(self._key, entry)
            _remove_old(self._directory, keep=entry.archive.path)
        with contextlib.suppress(OSError):
            os.utime(entry.archive.path, ns=(time.time_ns(), entry.archive.mtime_ns))
        return _result(entry)

    def _items_now(self) -> list[Item]:
        """What lies there, as far as it takes no time to tell."""
        if self._is_conda:
            return [*walk(self._prefix, ""), *conda.packages_elsewhere(self._survey)]
        return portable.items_of(self._survey)

    def _pack(self, items: list[Item], fingerprint: str) -> Entry:
        with (
            tempfile.TemporaryDirectory(dir=self._directory, prefix=_STAGING) as staging,
            self._complete(items, staging) as (complete, metadata, others),
        ):
            path, name = self._write(complete, self._front(items), metadata, staging)
        seen = tuple(index.see(other) for other in others)
        return Entry(fingerprint, index.see(path), name, metadata.python, metadata.platform, seen)

    @contextlib.contextmanager
    def _complete(self, items: list[Item], staging: str) -> Iterator[tuple[list[Item], Metadata, list[str]]]:
        """All items but bytecode, and what the archive will say of itself."""
        if self._is_conda:
            with conda.unpinned(self._prefix, staging) as copy:
                items = conda.items_of(copy, self._survey)
                found = {**dict(packages.versions(items)), **dict(conda.versions(copy))}
                yield items, self._metadata("conda", found, libraries.needed_glibc(items)), []
            return
        patched = os.path.join(staging, "patched")
        os.mkdir(patched)
        bundled = libraries.bundle(items, portable.python_of(self._survey), patched)
        kind = "venv" if self._survey.prefix != self._survey.base_prefix else "prefix"
        found = dict(packages.versions(items))
        yield bundled.items, self._metadata(kind, found, bundled.glibc), bundled.libraries

    def _metadata(self, kind: str, versions: dict[str, str], glibc: str) -> Metadata:
        return Metadata(
            kind=kind,
            python=self._survey.python,
            platform=self._survey.platform,
            glibc=glibc,
            packages=tuple(sorted(versions.items())),
        )

    def _front(self, items: list[Item]) -> set[str]:
        """Targets of what comes first. (conda's environments can't be used before all of them is mended.)"""
        if self._is_conda or self._compression != "gz":
            return set()
        return front.files(self._python, self._survey, items, with_python_path=self._is_current)

    def _write(self, items: list[Item], first: set[str], metadata: Metadata, staging: str) -> tuple[str, str]:
        """The archive's path and name."""
        compiled = os.path.join(staging, "compiled")
        os.mkdir(compiled)
        made = bytecode.bytecode_for(
            items, self._survey, compiled, lambda done, total: self._progress("compiling", done, total)
        )
        everything = sorted([*items, *made.items], key=lambda item: item.target)
        files = [item for item in everything if not item.link]
        total = sum(item.size for item in files)

        def contents(item: Item) -> bytes | None:
            reused = made.reused.get(item.target)
            return None if reused is None else bytecode.with_unchecked_header(reused, self._survey.magic)

        begin: list[Item] = []
        rest: list[Item] = []
        for item in everything:
            (begin if front.belongs(item, first) else rest).append(item)
        before = writer.compressed(begin, contents) if begin else b""
        metadata = msgspec.structs.replace(
            metadata, unpacked_bytes=total, files=len(files), front_bytes=len(before)
        )
        description = data_item(MEMBER, encode(metadata))
        total += description.size
        if before:
            before = writer.compressed([description], contents) + before
        else:
            rest.insert(0, description)
        archive = os.path.join(staging, "archive")
        digest = writer.write(
            archive,
            rest,
            self._compression,
            contents,
            lambda done: self._progress("packing", done, total),
            before=before,
        )
        name = f"env-{digest}"
        path = os.path.join(self._directory, name + writer.SUFFIXES[self._compression])
        os.replace(archive, path)
        return path, name


def _python_in(prefix: str) -> str:
    for name in ("python", "python3"):
        path = os.path.join(prefix, "bin", name)
        if os.path.exists(path):
            return path
    raise PackingError(f"{prefix} is no environment: it has no bin/python")


def _remove_old(directory: str, keep: str) -> None:
    """Remove the least recently used archives above the cap. None of the last day's: a manager may be about
    to send it."""
    found = []
    for entry in os.scandir(directory):
        if entry.name.startswith(_STAGING) and time.time() - entry.stat().st_mtime > _KEPT_UNUSED_S:
            shutil.rmtree(entry.path, ignore_errors=True)  # a killed process left it
        if entry.name.startswith("env-") and entry.is_file() and entry.path != keep:
            status = entry.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, entry.path))
    total = os.path.getsize(keep) + sum(size for _, size, _ in found)
    for used, size, path in sorted(found):
        if total <= cache.default_cap() or time.time() - used < _KEPT_UNUSED_S:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        total -= size
