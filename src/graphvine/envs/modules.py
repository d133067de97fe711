"""The user's own modules: found, and packed to travel with a plan.

A module is the user's own when it lies outside site-packages and the standard library: the script's
neighbours, what a notebook imported from its directory, editable installs. ``find`` tells what has to travel.

Rules:
- All of the user's modules that are imported now travel, and what their sources (and the main script's)
  import and was not imported yet, if that is the user's own too. Sources are only read, nothing is run.
- A package travels whole: its ``.py`` files and its small data files. Of a directory without ``__init__.py``
  only the ``.py`` files.
- A package with compiled extensions cannot be imported from an archive: a pointer to it travels in its place
  (see ``pointers``), and it has to be installed where the workers run, or lie there at the same path.
- Modules in zip files (a script's own, ``python app.pyz``, or on ``sys.path``) travel as others do, if they
  are sources (see ``zipped``).
- A module that exists in memory only is named in ``by_value``: its functions have to be pickled by value.
- The archive's bytes depend on names and contents only, so the same code has the same name everywhere. Files
  are looked at again at every call (by size and time), and packed again when one has changed.
- With no such modules a call costs a walk over the names of ``sys.modules``.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import importlib.machinery
import importlib.util
import io
import logging
import os
import site
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Iterable, Iterator
from functools import cache
from types import FunctionType, ModuleType

import msgspec

from graphvine.envs import zipped
from graphvine.envs.pointers import MARK, pointer_to

logger = logging.getLogger("graphvine.modules")

#: All sources together, before they are compressed.
MAX_ARCHIVE_BYTES = 32 * 2**20
#: Larger files of a package are data that does not travel by itself.
MAX_DATA_FILE_BYTES = 256 * 1024
_EXTENSIONS = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_SKIPPED_DIRECTORIES = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
#: Never the user's, wherever they lie; workers have what graphvine itself is made with.
_OURS = frozenset(
    {"graphvine", "__main__", "__mp_main__", "cloudpickle", "msgspec", "psutil", "xxhash", "zmq", "zstandard"}
)
#: Flag of classes made by Python code (and some others).
_HEAP_TYPE = 1 << 9
_EPOCH = (1980, 1, 1, 0, 0, 0)


class ModulesTooLargeError(ValueError):
    """The user's own modules are too large to be sent along; the message names the largest files."""


class Found(msgspec.Struct, frozen=True):
    """``modules``: a zip archive of sources, b"" when there are none. ``name``: digest of it, "" when empty.
    ``by_value``: names of modules that exist in memory only."""

    name: str = ""
    modules: bytes = b""
    by_value: tuple[str, ...] = ()


class Source(msgspec.Struct, frozen=True):
    """One file to pack: where it lies (perhaps in a zip file), where in the archive, and what tells that it
    has changed. ``text``: its content, where that is not the file's."""

    inside: str
    path: str
    size: int
    mtime_ns: int
    text: str = ""


class Finder:
    """Finds the user's modules, and remembers what it saw. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._homes: dict[tuple[str, int], str | None] = {}
        self._imports: dict[Source, frozenset[str]] = {}
        self._resolved: dict[tuple[str, str], str | None] = {}
        self._told: set[str] = set()
        self._packed: tuple[tuple[Source, ...], bytes, str] = ((), b"", "")

    def find(self) -> Found:
        """What has to travel now. Raises ModulesTooLargeError, OSError."""
        with self._lock:
            return self._find()

    def _find(self) -> Found:
        homes: dict[str, str] = {}
        in_memory: list[str] = []
        for name, module in list(sys.modules.items()):
            if "." in name:
                continue
            home = self._home_of(name, module)
            if home:
                homes[name] = home
            elif home is None and _has_code(name, module):
                in_memory.append(name)
        script = _script()
        sources = self._follow(homes, script)
        name, data = self._pack(sources) if sources else ("", b"")
        return Found(name, data, tuple(in_memory))

    # -- which modules ---------------------------------------------------------------------------------

    def _home_of(self, name: str, module: ModuleType) -> str | None:
        """The file or directory of a top-level module of the user's; "" for others'; None for none at all."""
        known = (name, id(module))
        if known not in self._homes:
            self._homes[known] = _find_home(name, module)
        return self._homes[known]

    def _follow(self, homes: dict[str, str], script: str | None) -> list[Source]:
        """Files of these modules and of those that their sources name."""
        sources: list[Source] = []
        queue = list(homes.items())
        if script is not None:
            for name in self._names_in(script):
                self._resolve(name, os.path.dirname(script), homes, queue)
        while queue:
            name, home = queue.pop()
            if not _exists(home):
                continue  # imported once, and gone since
            files = list(_files_of(home, name))
            if self._is_compiled(name, files):
                text = pointer_to(home)
                sources.append(Source(f"{name}.py", home, len(text), 0, text))
                continue
            sources += files
            for file in files:
                if file.path.endswith(".py"):
                    for imported in self._imports_of(file):
                        self._resolve(imported, os.path.dirname(home), homes, queue)
        return sorted(sources, key=lambda source: source.inside)

    def _resolve(
        self, name: str, directory: str, homes: dict[str, str], queue: list[tuple[str, str]]
    ) -> None:
        if name in homes or name in sys.modules or name in _OURS or name in sys.stdlib_module_names:
            return
        known = (name, directory)
        if known not in self._resolved:
            self._resolved[known] = _look_for(name, directory)
        home = self._resolved[known]
        if home and _exists(home):
            homes[name] = home
            queue.append((name, home))

    def _is_compiled(self, name: str, files: Iterable[Source]) -> bool:
        compiled = next((file.path for file in files if file.path.endswith(_EXTENSIONS)), None)
        if compiled is None:
            return False
        if name not in self._told:
            self._told.add(name)
            # Whoever needs it, and is where it is not, says so.
            logger.info("%s holds compiled code (%s) and is not sent along", name, compiled)
        return True

    def _names_in(self, path: str) -> frozenset[str]:
        try:
            return self._imports_of(_source("", path))
        except OSError:
            return frozenset()

    def _imports_of(self, source: Source) -> frozenset[str]:
        found = self._imports.get(source)
        if found is None:
            found = self._imports[source] = imported_names(_content(source))
        return found

    # -- the archive -----------------------------------------------------------------------------------

    def _pack(self, sources: list[Source]) -> tuple[str, bytes]:
        wanted = tuple(sources)
        if self._packed[0] != wanted:
            _check_size(sources)
            data = pack(sources)
            self._packed = (wanted, data, hashlib.sha256(data).hexdigest()[:32])
        return self._packed[2], self._packed[1]


_finder = Finder()


def find() -> Found:
    """The user's own modules, as they are now. Raises ModulesTooLargeError, OSError."""
    return _finder.find()


def is_installed(name: str) -> bool:
    """Whether the imported module ``name`` comes from site-packages."""
    module = sys.modules.get(name.partition(".")[0])
    path = getattr(module, "__file__", None)
    return path is not None and _is_installed(path)


def imported_names(source: bytes) -> frozenset[str]:
    """Top-level names of all absolute imports in a source, wherever they stand. Nothing of a broken one."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return frozenset(found)


def pack(sources: Iterable[Source]) -> bytes:
    """A zip archive of files; the same bytes for the same names and contents. Raises OSError."""
    buffer = io.BytesIO()
    directories: set[str] = set()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sources:
            # Directories without __init__.py are found in an archive by their own entries only.
            for directory in _parents(source.inside):
                if directory not in directories:
                    directories.add(directory)
                    archive.writestr(zipfile.ZipInfo(directory, _EPOCH), b"")
            info = zipfile.ZipInfo(source.inside, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.comment = MARK if source.text else b""
            archive.writestr(info, _content(source))
    return buffer.getvalue()


def _content(source: Source) -> bytes:
    if source.text:
        return source.text.encode()
    try:
        with open(source.path, "rb") as file:
            return file.read()
    except NotADirectoryError:  # it leads into an archive
        return zipped.read(source.path)


def _parents(inside: str) -> Iterator[str]:
    parts = inside.split("/")[:-1]
    return ("/".join(parts[: count + 1]) + "/" for count in range(len(parts)))


def _check_size(sources: Iterable[Source]) -> None:
    total = sum(source.size for source in sources)
    if total <= MAX_ARCHIVE_BYTES:
        return
    largest = sorted(sources, key=lambda source: -source.size)[:5]
    lines = [f"  {source.size / 2**20:.1f} MB  {source.path}" for source in largest]
    raise ModulesTooLargeError(
        f"your own modules are {total / 2**20:.0f} MB together; {MAX_ARCHIVE_BYTES // 2**20} MB may be sent. "
        "Install them where the workers run, or move data out of the packages. Largest files:\n"
        + "\n".join(lines)
    )


# -- where modules lie ------------------------------------------------------------------------------------


def _find_home(name: str, module: ModuleType) -> str | None:
    if name in _OURS or name in sys.stdlib_module_names or name.startswith("__editable__"):
        return ""
    spec = getattr(module, "__spec__", None)
    path = getattr(module, "__file__", None)
    if path is None:
        return _namespace_home(module, spec)
    path = os.path.abspath(str(path))
    if _is_installed(path) or _is_standard(path):
        return ""
    if spec is None and os.path.splitext(os.path.basename(path))[0] not in (name, "__init__"):
        return None  # nobody finds that file by this name: it was run (``runpy.run_path``), not imported
    if not _exists(path):
        return None if spec is None or not getattr(spec, "has_location", False) else ""
    return os.path.dirname(path) if os.path.basename(path) == "__init__.py" else path


def _namespace_home(module: ModuleType, spec: object) -> str | None:
    """A directory without ``__init__.py``, or a module that is in memory only."""
    places = [str(place) for place in getattr(module, "__path__", ())]
    if places:
        home = os.path.abspath(places[0])
        there = os.path.isdir(home) or zipped.holds(home)
        return home if there and not _is_installed(home + os.sep) else ""
    loader = getattr(spec, "loader", None)
    return None if loader is None and isinstance(module, ModuleType) else ""


def _has_code(name: str, module: ModuleType) -> bool:
    """Whether a module defines anything that pickle would carry by its name."""
    return any(
        isinstance(value, FunctionType) or (isinstance(value, type) and value.__flags__ & _HEAP_TYPE)
        for value in list(vars(module).values())
        if getattr(value, "__module__", None) == name
    )


def _look_for(name: str, directory: str) -> str | None:
    """Where a module that was not imported yet lies, if it is the user's own."""
    for path in (os.path.join(directory, name, "__init__.py"), os.path.join(directory, f"{name}.py")):
        if _exists(path) and not _is_installed(path):
            return os.path.dirname(path) if path.endswith("__init__.py") else path
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or spec.origin is None or not spec.has_location:
        return None
    path = os.path.abspath(spec.origin)
    if _is_installed(path) or _is_standard(path) or not _exists(path):
        return None
    return os.path.dirname(path) if os.path.basename(path) == "__init__.py" else path


def _files_of(home: str, name: str) -> Iterator[Source]:
    """The files of a module: one, or those of its directory."""
    if not os.path.isdir(home):
        if os.path.exists(home):
            yield _source(name + _suffix(home), home)
        else:
            yield from _files_in_zip(home, name)
        return
    regular = os.path.exists(os.path.join(home, "__init__.py"))
    stack: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(home, name, frozenset())]
    while stack:
        directory, inside, above = stack.pop()
        status = os.stat(directory)
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue  # a link to where it is itself
        for entry in _entries(directory):
            if _is_directory(entry):
                if _is_part(entry.name):
                    stack.append((entry.path, f"{inside}/{entry.name}", above | {here}))
            elif _is_readable(entry) and _travels(entry, regular):
                yield _source(f"{inside}/{entry.name}", entry.path)


def _files_in_zip(home: str, name: str) -> Iterator[Source]:
    """The files of a module in a zip file."""
    found = zipped.split(home)
    if found is None:
        return
    archive, inside = found
    sizes = zipped.sizes(archive)
    if inside in sizes:
        if inside.endswith(".py"):
            yield _source(f"{name}.py", f"{archive}/{inside}")
        return
    regular = f"{inside}/__init__.py" in sizes
    for member in sizes:
        if not member.startswith(f"{inside}/"):
            continue
        *directories, last = member.removeprefix(f"{inside}/").split("/")
        # What is compiled can't be imported from there either.
        wanted = not last.endswith(_EXTENSIONS) and _is_wanted(last, sizes[member], regular)
        if wanted and all(map(_is_part, directories)):
            yield _source("/".join([name, *directories, last]), f"{archive}/{member}")


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError as error:
        # What cannot be read cannot be imported here either.
        _say_left_out(directory, str(error.strerror))
        return []


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _is_readable(entry: os.DirEntry[str]) -> bool:
    try:
        if not entry.is_file():
            return False
    except OSError:
        return False
    if not os.access(entry.path, os.R_OK):
        _say_left_out(entry.path, os.strerror(errno.EACCES))
        return False
    return True


@cache
def _say_left_out(path: str, reason: str) -> None:
    """Once."""
    logger.warning("%s is not sent along with the modules around it: %s", path, reason)


def _suffix(path: str) -> str:
    return next((suffix for suffix in _EXTENSIONS if path.endswith(suffix)), os.path.splitext(path)[1])


def _is_part(directory: str) -> bool:
    return not directory.startswith(".") and directory not in _SKIPPED_DIRECTORIES


def _travels(entry: os.DirEntry[str], with_data: bool) -> bool:
    if entry.name.endswith(_EXTENSIONS):
        return with_data
    return entry.name.endswith(".py") or _is_wanted(entry.name, entry.stat().st_size, with_data)


def _is_wanted(name: str, size: int, with_data: bool) -> bool:
    data = with_data and not name.startswith(".") and size <= MAX_DATA_FILE_BYTES
    return data or name.endswith(".py")


def _exists(path: str) -> bool:
    return os.path.exists(path) or zipped.holds(path)


def _source(inside: str, path: str) -> Source:
    try:
        status = os.stat(path)
    except NotADirectoryError:  # it leads into an archive
        return Source(inside, path, *zipped.state(path))
    return Source(inside, path, status.st_size, status.st_mtime_ns)


def _script() -> str | None:
    """The file of the main script, if it has one and that is the user's own."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path is None or not path.endswith(".py"):
        return None
    path = os.path.abspath(path)
    return None if _is_installed(path) or _is_standard(path) else path


@cache
def _installed_places() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    places = {paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()}
    return tuple({*places, *(os.path.realpath(place) for place in places)})


@cache
def _standard_places() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    places = {paths["stdlib"], paths["platstdlib"]}
    return tuple({*places, *(os.path.realpath(place) for place in places)})


def _is_installed(path: str) -> bool:
    parts = path.split(os.sep)
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    return path.startswith(tuple(place + os.sep for place in _installed_places()))


def _is_standard(path: str) -> bool:
    return path.startswith(tuple(place + os.sep for place in _standard_places()))
