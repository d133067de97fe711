"""Commands in environments: a directory with ``bin/run_in_env``, a conda or virtual one, or an archive.

An archive is unpacked once per node, by the name of its content; a directory is used where it lies. What has
a ``bin/run_in_env`` runs the command by it; any other environment comes first on the command's PATH.
"""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack
from typing import Any

from graphvine.protocol.trees import Tree


def activate(value: Any, name: str, line: str, variables: dict[str, str], while_used: ExitStack) -> str:
    """The command line that runs ``line`` within an environment; changes ``variables`` as it needs.

    ``name``: of the content, where it is known. What must be held while the command runs is entered into
    ``while_used``. Raises OSError and what unpacking raises, TypeError for what is no environment."""
    if not isinstance(value, Tree):
        raise TypeError("an environment is a directory or an archive, not a few bytes")
    prefix = value.path if os.path.isdir(value.path) else _unpacked(value.path, name, while_used)
    runner = os.path.join(prefix, "bin", "run_in_env")
    if os.access(runner, os.X_OK):
        return f"exec {shlex.quote(runner)} /bin/sh -c {shlex.quote(line)}"
    programs = os.path.join(prefix, "bin")
    variables["PATH"] = f"{programs}:{variables.get('PATH', '/usr/bin:/bin')}"
    conda = os.path.isdir(os.path.join(prefix, "conda-meta"))
    variables["CONDA_PREFIX" if conda else "VIRTUAL_ENV"] = prefix
    variables.pop("PYTHONHOME", None)
    variables.pop("PYTHONPATH", None)
    return line


def _unpacked(archive: str, name: str, while_used: ExitStack) -> str:
    """Where the environment of this archive lies on this node; unpacks it if nobody has."""
    from graphvine.envs.aliases import of_archive
    from graphvine.envs.cache import default_directory
    from graphvine.envs.unpack import acquire

    content = of_archive(archive, name, default_directory())
    return while_used.enter_context(acquire(archive, content)).prefix
