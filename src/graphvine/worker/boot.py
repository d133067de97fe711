"""Starts a zygote in the Python of an environment: ``python boot.py INSTALLATION X.Y DESCRIPTOR``.

The environment need not have graphvine, nor what that needs: it is taken from the agent's own installation.

- graphvine itself comes from there in any case: agent and zygote are of one version.
- What it needs (msgspec, cloudpickle, xxhash) comes from there only if the environment does not have it.

Imports nothing but the standard library, as nothing else can be before the version is known to be right.
"""

from __future__ import annotations

import sys


def main() -> None:
    installation, wanted, descriptor = sys.argv[1:]
    found = "{}.{}".format(*sys.version_info[:2])
    if found != wanted:
        sys.exit(f"the environment has Python {found}, but Python {wanted} is needed, as on the worker")
    if not getattr(sys.flags, "safe_path", False):
        # The directory of this file: its neighbours are no modules of their own.
        del sys.path[0]
    sys.path.insert(0, installation)
    import graphvine

    del sys.path[0]
    assert graphvine.__file__.startswith(installation)
    sys.path.append(installation)
    from graphvine.worker import zygote

    sys.argv[:] = [sys.argv[0], descriptor]
    zygote.main()


if __name__ == "__main__":
    main()
