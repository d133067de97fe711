"""The packages of an environment, from all the places they come from, merged into one ``site-packages``.

Rules:
- Places are taken in the order of ``sys.path``; the first one that has a package gives all of it. Directories
  that are no package (namespaces, data) are merged.
- Site directories give everything. Of other places (PYTHONPATH, ``.pth`` files, what editable installs point
  to), which may be a whole repository, only what can be imported: modules, packages, and their metadata.
- ``.pth`` files keep their code; paths to places that were merged go, and so do the hooks of
  editable installs.
"""

from __future__ import annotations

import importlib.machinery
import os
import re
from collections.abc import Iterator

from graphvine.envs.errors import PackingError
from graphvine.envs.foreign import normalized
from graphvine.envs.items import NEVER, Item, data_item, file_item, walk
from graphvine.envs.survey import Survey

_INFO = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(?:-py3.*)?\.(?:dist|egg)-info")
_EDITABLE = re.compile(r"_*editable_*|.*\.egg-link$|easy-install\.pth$", re.IGNORECASE)
_SUFFIXES = (".py", ".pyi", "py.typed", *importlib.machinery.EXTENSION_SUFFIXES, ".so")
#: A place that is searched this deep is no place of packages, but somebody's home directory.
_MAX_DIRECTORIES = 20_000


def merged(survey: Survey, site_packages: str) -> list[Item]:
    """The items of one directory, ``site_packages`` in the archive. Raises PackingError, OSError."""
    return _Merge(survey, site_packages).items()


def versions(items: list[Item]) -> tuple[tuple[str, str], ...]:
    """Names and versions of all packages, told by their metadata's directories."""
    found: dict[str, str] = {}
    for item in items:
        directory, _, name = item.target.rpartition("/")
        if name in ("METADATA", "PKG-INFO"):
            match = _INFO.fullmatch(os.path.basename(directory))
            if match:
                found.setdefault(normalized(match["name"]), match["version"])
    return tuple(sorted(found.items()))


class _Merge:
    def __init__(self, survey: Survey, site_packages: str) -> None:
        self._survey = survey
        self._root = site_packages
        self._items: list[Item] = []
        self._taken: set[str] = set()
        self._visited = 0

    def items(self) -> list[Item]:
        for place, is_site in _places(self._survey):
            self._visited = 0
            if is_site:
                self._add_site(place, "")
            else:
                self._add_local(place, "")
        for name, paths in self._survey.editables.items():
            self._add_editable(name, paths)
        return self._items

    # -- site directories ------------------------------------------------------------------------------

    def _add_site(self, place: str, inside: str) -> None:
        for entry in _entries(place):
            below = f"{inside}{entry.name}"
            if entry.is_dir():
                if _is_package(entry.path) or _INFO.fullmatch(entry.name):
                    self._add_whole(entry, inside)
                else:
                    self._add_site(entry.path, f"{below}/")
            elif entry.name.endswith(".pth") and not inside:
                self._add_pth(entry)
            elif not _EDITABLE.match(entry.name):
                self._add_file(entry, inside)

    def _add_pth(self, entry: os.DirEntry[str]) -> None:
        if _EDITABLE.match(entry.name) or not self._take(entry.name):
            return
        with open(entry.path, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n") for line in file]
        kept = [line for line in lines if _is_kept(line, os.path.dirname(entry.path))]
        if kept:
            data = "\n".join([*kept, ""]).encode("utf-8", "surrogateescape")
            self._items.append(data_item(f"{self._root}/{entry.name}", data))

    # -- other places ----------------------------------------------------------------------------------

    def _add_local(self, place: str, inside: str) -> None:
        """What can be imported from a directory that may hold anything."""
        self._visited += 1
        if self._visited > _MAX_DIRECTORIES:
            raise PackingError(
                f"{place} is on the Python path (PYTHONPATH, a .pth file or an editable install), and what "
                "lies there is no collection of packages; take it off, or name the directory that holds them"
            )
        for entry in _entries(place):
            if entry.is_dir():
                if _is_package(entry.path) or (_INFO.fullmatch(_with_version(entry.name)) and not inside):
                    self._add_whole(entry, inside)
                elif entry.name.isidentifier() and not _is_environment(entry.path):
                    self._add_local(entry.path, f"{inside}{entry.name}/")
            elif entry.name.endswith(_SUFFIXES):
                self._add_file(entry, inside)

    def _add_editable(self, name: str, paths: list[str]) -> None:
        """What an import hook finds elsewhere: ``name`` may have dots."""
        inside = name.replace(".", "/")
        for path in paths:
            if os.path.isdir(path):
                if _is_package(path):
                    if self._take(inside):
                        self._items += walk(path, f"{self._root}/{inside}")
                else:
                    self._add_local(path, f"{inside}/")
                continue
            path = path if os.path.isfile(path) else f"{path}.py"
            suffix = next((suffix for suffix in _SUFFIXES if path.endswith(suffix)), "")
            if os.path.basename(path).startswith("__init__."):
                inside = f"{inside}/__init__"
            if os.path.isfile(path) and self._take(inside + suffix):
                self._items.append(file_item(path, f"{self._root}/{inside}{suffix}"))

    # -- both ------------------------------------------------------------------------------------------

    def _add_whole(self, entry: os.DirEntry[str], inside: str) -> None:
        if self._take(inside + _key(entry.name)):
            self._items += walk(entry.path, f"{self._root}/{inside}{entry.name}")

    def _add_file(self, entry: os.DirEntry[str], inside: str) -> None:
        # The same module as source and as compiled code may lie side by side: by its full name.
        if inside + entry.name.partition(".")[0] in self._taken:
            return
        if self._take(inside + entry.name):
            self._items.append(file_item(entry.path, f"{self._root}/{inside}{entry.name}"))

    def _take(self, name: str) -> bool:
        if name in self._taken:
            return False
        self._taken.add(name)
        return True


def _places(survey: Survey) -> Iterator[tuple[str, bool]]:
    """Directories of ``sys.path`` that hold packages, and whether each is a site directory."""
    sites = {os.path.realpath(path) for path in survey.site_directories}
    seen = {os.path.realpath(path) for path in survey.standard}
    for path in survey.path:
        real = os.path.realpath(path)
        if real in seen or os.path.basename(real) == "lib-dynload" or not os.path.isdir(real):
            continue
        seen.add(real)
        yield path, real in sites


def _entries(place: str) -> list[os.DirEntry[str]]:
    with os.scandir(place) as found:
        return sorted(
            (
                entry
                for entry in found
                if entry.name not in NEVER
                and not entry.name.startswith(".")
                and not entry.name.endswith((".pyc", ".pyo"))
                and os.path.exists(entry.path)
            ),
            key=lambda entry: entry.name,
        )


def _is_package(path: str) -> bool:
    return any(os.path.exists(f"{path}/__init__{suffix}") for suffix in (".py", *_SUFFIXES[3:]))


def _is_environment(path: str) -> bool:
    return os.path.exists(f"{path}/pyvenv.cfg") or os.path.isdir(f"{path}/conda-meta")


def _with_version(name: str) -> str:
    """Metadata of sources (``NAME.egg-info``) has no version in its name."""
    return name.replace(".egg-info", "-0.egg-info")


def _key(name: str) -> str:
    match = _INFO.fullmatch(name)
    return f"{normalized(match['name'])}.info" if match else name


def _is_kept(line: str, place: str) -> bool:
    """Code that is no editable install's, and paths within the directory itself."""
    if not line.strip() or line.startswith("#"):
        return False
    if line.startswith(("import ", "import\t")):
        return "editable" not in line
    return not os.path.isabs(line) and os.path.realpath(f"{place}/{line}").startswith(os.path.realpath(place))
