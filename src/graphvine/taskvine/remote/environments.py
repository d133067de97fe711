"""Commands in environments: a directory with ``bin/run_in_env``, a conda or virtual one, an unpacked Starch
package, or an archive.

An archive is unpacked once per node, by the name of its content; a directory is used where it lies. What has
a ``bin/run_in_env`` runs the command by it; any other environment comes first on the command's PATH. A Starch
package (known by its ``run.sh``) has libraries, too, and files that set variables.
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
    programs = os.path.join(prefix, "bin")
    runner = os.path.join(programs, "run_in_env")
    if os.access(runner, os.X_OK):
        return f"exec {shlex.quote(runner)} /bin/sh -c {shlex.quote(line)}"
    if os.path.lexists(runner):
        raise TypeError("its bin/run_in_env is not executable")
    is_starch = os.path.isfile(os.path.join(prefix, "run.sh"))
    if not is_starch and not os.path.isdir(programs):
        raise TypeError("this is no environment: it has no bin, and so no bin/run_in_env")
    variables["PATH"] = f"{programs}:{variables.get('PATH', '/usr/bin:/bin')}"
    if is_starch:
        return _within_starch(prefix, line, variables)
    conda = os.path.isdir(os.path.join(prefix, "conda-meta"))
    variables["CONDA_PREFIX" if conda else "VIRTUAL_ENV"] = prefix
    variables.pop("PYTHONHOME", None)
    variables.pop("PYTHONPATH", None)
    return line


def _within_starch(prefix: str, line: str, variables: dict[str, str]) -> str:
    libraries, before = os.path.join(prefix, "lib"), variables.get("LD_LIBRARY_PATH")
    if os.path.isdir(libraries):
        variables["LD_LIBRARY_PATH"] = f"{libraries}:{before}" if before else libraries
    settings = os.path.join(prefix, "env")
    names = sorted(os.listdir(settings)) if os.path.isdir(settings) else []
    read = "".join(f". {shlex.quote(os.path.join(settings, name))}; " for name in names)
    return f"{read}{line}"


def _unpacked(archive: str, name: str, while_used: ExitStack) -> str:
    """Where the environment of this archive lies on this node; unpacks it if nobody has."""
    from graphvine.envs.aliases import of_archive
    from graphvine.envs.cache import default_directory
    from graphvine.envs.unpack import acquire

    content = of_archive(archive, name, default_directory())
    return while_used.enter_context(acquire(archive, content)).prefix
