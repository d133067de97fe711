"""How a process of ours starts another one with the same interpreter and the same graphvine."""

from __future__ import annotations

import os
from pathlib import Path


def own_environment() -> dict[str, str]:
    """The user's environment, made so that this interpreter finds this very graphvine."""
    environment = dict(os.environ)
    parent = Path(__file__).resolve().parents[2]
    # Where it is installed the interpreter finds it; named on the path, site-packages would hide the stdlib.
    if parent.name not in ("site-packages", "dist-packages"):
        others = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
        environment["PYTHONPATH"] = os.pathsep.join([*others, str(parent)])
    return environment
