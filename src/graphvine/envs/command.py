"""``graphvine env pack | inspect | unpack``: results on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from graphvine.envs.errors import PackedEnvironmentError
from graphvine.envs.metadata import Metadata
from graphvine.envs.packing import name_archive, pack
from graphvine.envs.unpack import inspect, unpack, unpack_to

_REFRESH_S = 0.1
_WIDTH = 30


def run_pack(source: str, output: str | None, compression: str, progress: bool) -> int:
    """Print the archive's path. Raises PackedEnvironmentError."""
    with _one_line(), _Bar(progress) as bar:
        packed = pack(source, output, compression=compression, progress=bar.show)
    _print_path(packed.path)
    about = f"{packed.size / 1e6:,.1f} MB"
    if packed.python:
        about = f"Python {packed.python}, {packed.platform}, {about}"
    print(f"{packed.name}: {about}", file=sys.stderr)
    return 0


def run_inspect(archive: str) -> int:
    """Print what it is and which packages it holds. Raises PackedEnvironmentError."""
    with _one_line():
        print(render(inspect(archive)), end="")
    return 0


def run_unpack(archive: str, directory: str | None, progress: bool) -> int:
    """Print the prefix. Raises PackedEnvironmentError."""
    with _one_line(), _Bar(progress) as bar:

        def show(done: int, size: int) -> None:
            bar.show("unpacking", done, size)

        if directory is None:
            prefix = unpack(archive, name_archive(archive).name, progress=show)
        else:
            prefix = unpack_to(archive, directory, progress=show)
    _print_path(prefix)
    return 0


def render(metadata: Metadata) -> str:
    """A few lines about the environment, and one for each package."""
    lines = [f"kind      {metadata.kind}", f"python    {metadata.python or 'none found'}"]
    if metadata.platform:
        lines.append(f"platform  {metadata.platform}")
    if metadata.glibc:
        lines.append(f"glibc     {metadata.glibc} or newer")
    lines.append(f"unpacked  {metadata.unpacked_bytes / 1e6:,.1f} MB in {metadata.files:,} files")
    lines.append(f"packages  {len(metadata.packages)}")
    lines += [f"  {name} {version}" for name, version in metadata.packages]
    return "\n".join([*lines, ""])


def _print_path(path: str) -> None:
    """As the file system has it, where the output's encoding lacks its letters."""
    try:
        print(path)
    except UnicodeEncodeError:
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """What the operating system refuses is said without a traceback, too."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        told = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        raise PackedEnvironmentError(told) from error


class _Bar:
    """A line that is painted over, in a terminal; nothing elsewhere."""

    def __init__(self, wanted: bool) -> None:
        self._shown = wanted and sys.stderr.isatty()
        self._painted = ""
        self._what = ""
        self._next_s = 0.0

    def show(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._shown or (what == self._what and now < self._next_s):
            return
        self._what, self._next_s = what, now + _REFRESH_S
        share = done / total if total else 0.0
        filled = round(share * _WIDTH)
        self._paint(f"{what:<16} [{'#' * filled}{'.' * (_WIDTH - filled)}] {share:4.0%}")

    def _paint(self, line: str) -> None:
        sys.stderr.write("\r" + line.ljust(len(self._painted)))
        sys.stderr.flush()
        self._painted = line

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._painted:
            self._paint("")
            sys.stderr.write("\r")
