"""A conda prefix as files to pack, by conda-pack.

conda-pack knows which files hold the prefix's path, and how they are mended where the environment is unpacked
(``bin/conda-unpack``).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator

from graphvine.envs.errors import PackingError
from graphvine.envs.foreign import normalized
from graphvine.envs.items import Item, walk
from graphvine.envs.packages import merged
from graphvine.envs.survey import Survey


def is_conda(prefix: str) -> bool:
    return os.path.exists(os.path.join(prefix, "conda-meta", "history"))


@contextlib.contextmanager
def unpinned(prefix: str, scratch: str) -> Iterator[str]:
    """A copy of the prefix (hard links, where ``scratch`` is on the same disk) that conda-pack made fit to
    travel, for a while. Raises PackingError."""
    try:
        import conda_pack
    except ImportError as error:
        raise PackingError(
            f"packing the conda environment {prefix} needs conda-pack: pip install 'graphvine[envs]'"
        ) from error
    with tempfile.TemporaryDirectory(dir=_scratch_beside(prefix, scratch)) as directory:
        copy = os.path.join(directory, "prefix")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of packages that pip has changed: they are taken as they are
                conda_pack.pack(
                    prefix=prefix,
                    output=copy,
                    format="no-archive",
                    ignore_editable_packages=True,
                    ignore_missing_files=True,
                )
        except conda_pack.CondaPackException as error:
            raise PackingError(f"conda-pack can't pack {prefix}: {error}") from error
        yield copy


def _scratch_beside(prefix: str, scratch: str) -> str:
    """On the prefix's own disk, if anywhere there may be written."""
    parent = os.path.dirname(prefix)
    same_disk = os.stat(scratch).st_dev == os.stat(prefix).st_dev
    return scratch if same_disk or not os.access(parent, os.W_OK) else parent


def items_of(copy: str, survey: Survey) -> list[Item]:
    """All files of the copy, and the packages that are elsewhere. Raises PackingError, OSError."""
    found = {item.target: item for item in walk(copy, "")}
    for item in packages_elsewhere(survey):
        found[item.target] = item
    return sorted(found.values(), key=lambda item: item.target)


def packages_elsewhere(survey: Survey) -> list[Item]:
    """Editable and local packages, as they belong into site-packages."""
    prefix = os.path.realpath(survey.prefix) + os.sep
    site_packages = next(
        path for path in survey.site_directories if os.path.realpath(path).startswith(prefix)
    )
    inside = os.path.relpath(os.path.realpath(site_packages), prefix)
    everything = merged(survey, inside)
    return [
        item
        for item in everything
        if item.data is None and not os.path.realpath(item.source).startswith(prefix)
    ]


def versions(copy: str) -> tuple[tuple[str, str], ...]:
    """Names and versions of conda's own packages."""
    found: dict[str, str] = {}
    for name in os.listdir(os.path.join(copy, "conda-meta")):
        parts = name.removesuffix(".json").rsplit("-", 2)
        if name.endswith(".json") and len(parts) == 3:
            found[normalized(parts[0])] = parts[1]
    return tuple(sorted(found.items()))
