"""graphvine and what its executors need, as one directory that another Python can have on its path.

A directory of links to the packages of this process: made once per worker, gone with the worker's scratch
directory.
"""

from __future__ import annotations

import importlib.util
import os

#: graphvine, and all that zygotes and executors import of other projects (a test tries it).
PACKAGES = ("graphvine", "msgspec", "cloudpickle", "xxhash")


def lay_out(directory: str) -> str:
    """``directory`` with a link to each package in it. Harmless the second time. Raises OSError,
    ModuleNotFoundError."""
    os.makedirs(directory, exist_ok=True)
    for package in PACKAGES:
        link = os.path.join(directory, package)
        if not os.path.lexists(link):
            os.symlink(_home_of(package), link)
    return directory


def _home_of(package: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed as a package here")
    return os.path.realpath(next(iter(spec.submodule_search_locations)))
