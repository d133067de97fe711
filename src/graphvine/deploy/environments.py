"""The environment of a job: what a user named, as an archive that any node can unpack.

- "current" (what nothing said means, too) is the environment that runs this; others are a conda prefix, a
  virtual environment, or an archive. One that did not change since it was packed is at hand at once.
- Nodes have tar and gzip, perhaps not zstd: an archive of another kind is compressed again, once.
- It must hold graphvine of this version and a Python of this minor version, or no worker from it could do
  what this process asks: said here and now, not by a thousand jobs.
"""

from __future__ import annotations

import logging
import os
import sys

import msgspec

from graphvine import __version__
from graphvine.deploy.errors import DeployError
from graphvine.deploy.spec import WorkerSpec
from graphvine.envs.errors import PackedEnvironmentError
from graphvine.envs.front import end_of
from graphvine.envs.line import Line
from graphvine.envs.metadata import Metadata, minor
from graphvine.envs.packing import OnProgress, PackedEnvironment, pack
from graphvine.envs.recompress import as_gzip
from graphvine.envs.unpack import inspect

log = logging.getLogger("graphvine.deploy")

_HERE = "{}.{}".format(*sys.version_info[:2])


def prepared(spec: WorkerSpec) -> WorkerSpec:
    """A spec with the environment to bring packed, unless its jobs use a Python that is there. That takes its
    time when it is done first, and is told to the log, and on a terminal. Raises DeployError."""
    if spec.python:
        return spec
    environment = spec.archive or "current"
    told: list[str] = []
    with Line(environment) as line:

        def tell(what: str, done: int, size: int) -> None:
            if size and not told:  # else it only looks whether anything has changed
                told.append(what)
                log.info("packing environment %s for the jobs: once, until it changes", environment)
            line(what, done, size)

        packed = packed_for_jobs(environment, tell)
    return msgspec.structs.replace(
        spec, archive=packed.path, archive_name=packed.name, archive_front=end_of(packed.path)
    )


def archive_of(environment: str, progress: OnProgress | None = None) -> str:
    """The path of a tar.gz of it, in the user's cache unless it was one already. Raises DeployError."""
    return packed_for_jobs(environment, progress).path


def packed_for_jobs(environment: str, progress: OnProgress | None = None) -> PackedEnvironment:
    """A tar.gz of it, in the user's cache unless it was one already, with the name of what it was made from.
    Raises DeployError."""
    try:
        packed = pack(environment, compression=_compression(environment), progress=progress)
        complaint = complaint_of(inspect(packed.path), environment)
        if complaint:
            raise DeployError(complaint)
        on_progress = None if progress is None else lambda done, size: progress("gzip", done, size)
        return msgspec.structs.replace(packed, path=as_gzip(packed.path, on_progress))
    except (PackedEnvironmentError, OSError) as error:
        raise DeployError(f"the environment for the jobs: {error}") from error


def complaint_of(metadata: Metadata, environment: str) -> str:
    """Why jobs can't work with an environment, and what to do; "" if they can."""
    packages = dict(metadata.packages)
    if not metadata.python:
        return f"{environment} holds no Python: jobs can't start from it. Pack one with: graphvine env pack"
    if minor(metadata.python) != _HERE:
        return (
            f"{environment} has Python {metadata.python}, but functions are sent from Python {_HERE} here: "
            f"make an environment with Python {_HERE}"
        )
    if "graphvine" not in packages:
        return f"{environment} has no graphvine: install graphvine {__version__} in it"
    if packages["graphvine"] != __version__:
        return (
            f"{environment} has graphvine {packages['graphvine']}, here it is {__version__}: "
            "install the same version in both"
        )
    return ""


def _compression(environment: str) -> str:
    """Archives are taken as they are; what is packed now, is packed for nodes."""
    return "" if os.path.isfile(os.path.expanduser(environment)) else "gz"
