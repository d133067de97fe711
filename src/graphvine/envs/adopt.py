"""An environment that a job's script has unpacked, made an entry of the node's cache.

Run as ``python -m graphvine.envs.adopt NAME CACHE`` by the script (``deploy/job.sh``), in the Python of that
environment, which lies at its place already. The script holds the locks (``envs.cache``), and removes what is
there when this fails.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from graphvine.envs import cache
from graphvine.envs.cache import Place
from graphvine.envs.errors import PackedEnvironmentError
from graphvine.envs.unpack import settled


def adopt(name: str, directory: str) -> None:
    """Make it fit for its place, and mark it as whole. Raises PackedEnvironmentError, OSError."""
    cache.check_trusted(directory)
    place = Place(directory, name)
    place.write(settled(place, cache.default_cap()))


def main(arguments: Sequence[str]) -> int:
    try:
        adopt(*arguments)
    except (PackedEnvironmentError, OSError) as error:
        print(f"graphvine: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
