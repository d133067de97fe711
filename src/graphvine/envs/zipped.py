"""Modules in zip files: in applications (``python app.pyz``), and in archives on ``sys.path``.

The path of such a module leads on into its archive (``/home/me/app.pyz/pkg/__init__.py``), where the
system sees no file.
"""

from __future__ import annotations

import errno
import os
import zipfile
from functools import lru_cache


def split(path: str) -> tuple[str, str] | None:
    """The archive that a path leads into, and the rest of it; None for any other path."""
    archive = os.path.dirname(path)
    while archive != os.path.dirname(archive) and not os.path.isdir(archive):
        if os.path.isfile(archive):
            inside = os.path.relpath(path, archive).replace(os.sep, "/")
            return (archive, inside) if zipfile.is_zipfile(archive) else None
        archive = os.path.dirname(archive)
    return None


def holds(path: str) -> bool:
    """Whether a path leads to a file, or to a directory, in an archive."""
    found = split(path)
    if found is None:
        return False
    archive, inside = found
    return any(name == inside or name.startswith(inside + "/") for name in sizes(archive))


def sizes(archive: str) -> dict[str, int]:
    """The files in an archive, and how many bytes each has; none when it can't be read (any more)."""
    try:
        status = os.stat(archive)
        return _sizes(archive, status.st_size, status.st_mtime_ns)
    except (OSError, zipfile.BadZipFile):
        return {}


@lru_cache(maxsize=16)
def _sizes(archive: str, size: int, mtime_ns: int) -> dict[str, int]:
    with zipfile.ZipFile(archive) as content:
        return {info.filename: info.file_size for info in content.infolist() if not info.is_dir()}


def state(path: str) -> tuple[int, int]:
    """Of a file in an archive: its size in bytes, and when the archive was changed, in nanoseconds. Raises
    OSError."""
    archive, inside = _split(path)
    return sizes(archive).get(inside, 0), os.stat(archive).st_mtime_ns


def read(path: str) -> bytes:
    """A file in an archive. Raises OSError."""
    archive, inside = _split(path)
    try:
        with zipfile.ZipFile(archive) as content:
            return content.read(inside)
    except (KeyError, zipfile.BadZipFile) as error:
        raise OSError(f"{path} can't be read: {error}") from error


def _split(path: str) -> tuple[str, str]:
    found = split(path)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return found
