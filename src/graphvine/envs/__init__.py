"""Environments and the user's own modules: found, packed, named.

The public names are those of ``_HOME``, each imported when it is first used: a worker that unpacks loads
nothing of what packs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphvine.envs.errors import PackedEnvironmentError as PackedEnvironmentError
    from graphvine.envs.metadata import Metadata as Metadata
    from graphvine.envs.packing import PackedEnvironment as PackedEnvironment
    from graphvine.envs.packing import pack as pack
    from graphvine.envs.unpack import inspect as inspect

_HOME = {
    "Metadata": "metadata",
    "PackedEnvironment": "packing",
    "PackedEnvironmentError": "errors",
    "inspect": "unpack",
    "pack": "packing",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graphvine.envs' has no attribute {name!r}")
    return getattr(importlib.import_module(f"graphvine.envs.{_HOME[name]}"), name)
