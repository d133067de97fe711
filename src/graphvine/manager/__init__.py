"""The manager: owns the graph, the files' whereabouts and every decision.

As TaskVine's module of this name it has ``Manager`` and ``Factory``."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name not in ("Manager", "Factory"):
        raise AttributeError(f"module 'graphvine.manager' has no attribute {name!r}")
    import graphvine

    return getattr(graphvine, name)
