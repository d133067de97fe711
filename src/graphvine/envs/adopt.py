"""An environment that a job's script has unpacked, made an entry of the node's cache.

Run as ``python -m graphvine.envs.adopt NAME CACHE`` by the script (``deploy/job.sh``), in the Python of that
environment, which lies at its place already. The script holds the locks (``envs.cache``), and removes what is
there when this fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from graphvine.envs import cache
from graphvine.envs.cache import Marker, Place
from graphvine.envs.errors import DamagedArchiveError, PackedEnvironmentError
from graphvine.envs.metadata import MEMBER, decode
from graphvine.envs.unpack import settled


def adopt(name: str, directory: str) -> None:
    """Make it fit for its place, and mark it as whole. Raises PackedEnvironmentError, OSError."""
    cache.check_trusted(directory)
    place = Place(directory, name)
    marker = settled(place, cache.default_cap())
    _check(place, marker)
    place.write(marker)


def _check(place: Place, marker: Marker) -> None:
    """tar takes the end of an archive that was cut short between two files for its end. (conda's files have
    other sizes once they are mended.) Raises DamagedArchiveError, OSError."""
    try:
        with open(os.path.join(place.path, MEMBER), "rb") as file:
            data = file.read()
        told = decode(data)
    except (FileNotFoundError, ValueError):
        return
    # It is no part of what it describes.
    files, size = marker.files - 1, marker.total_bytes - len(data)
    if told.kind != "conda" and (files < told.files or size < told.unpacked_bytes):
        raise DamagedArchiveError(f"the archive of {place.path} was cut short: files are missing")


def main(arguments: Sequence[str]) -> int:
    try:
        adopt(*arguments)
    except (PackedEnvironmentError, OSError) as error:
        print(f"graphvine: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
