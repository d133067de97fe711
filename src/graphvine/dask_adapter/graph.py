"""Whatever dask hands a scheduler, as one mapping, with its annotations.

A plain dict, a ``HighLevelGraph``, or (dask 2025.4 and later) an expression: an object that has
``__dask_graph__`` and is no mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask.highlevelgraph import HighLevelGraph
from dask.utils import ensure_dict

#: Annotation type -> key -> value, as expressions tell it.
Annotations = dict[str, dict[Any, Any]]


def as_mapping(dsk: Any) -> tuple[Mapping[Any, Any], Annotations]:
    """The graph as one mapping, and its annotations. Raises TypeError."""
    if isinstance(dsk, HighLevelGraph):
        return ensure_dict(dsk), _annotations_of_layers(dsk)
    if isinstance(dsk, Mapping):
        return dsk, {}
    if hasattr(dsk, "__dask_graph__"):
        return _of_expression(dsk)
    raise TypeError(f"not a dask graph: {type(dsk).__name__}")


def _of_expression(expression: Any) -> tuple[Mapping[Any, Any], Annotations]:
    graph = expression.__dask_graph__()
    if isinstance(graph, HighLevelGraph):
        return ensure_dict(graph), _annotations_of_layers(graph)
    ask = getattr(expression, "__dask_annotations__", None)
    return graph, (ask() if ask is not None else {})


def _annotations_of_layers(graph: HighLevelGraph) -> Annotations:
    found: Annotations = {}
    for layer in graph.layers.values():
        for name, value in (layer.annotations or {}).items():
            per_key = found.setdefault(name, {})
            for key in layer:
                per_key[key] = value(key) if callable(value) else value
    return found
