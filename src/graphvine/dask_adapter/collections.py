"""dask collections to graphs and back, in both dask worlds, for what dask has no asynchronous form of.

Up to dask 2025.3 the collections' graphs are merged, and each collection says what is to be done with the
results of its keys; since then an expression does both, and its last tasks are the collections' values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask.base
import msgspec

_HAS_EXPRESSIONS = hasattr(dask.base, "collections_to_expr")


class Request(msgspec.Struct):
    """What to compute, and how the values of the arguments come from the values of ``keys``."""

    dsk: Any
    keys: list[Any]
    finish: Callable[[Sequence[Any]], Sequence[Any]]


def to_request(arguments: Sequence[Any], optimize_graph: bool) -> Request:
    """A request whose values are ``arguments``, collections in them (at any depth) computed."""
    collections, repack = dask.base.unpack_collections(*arguments)
    if not collections:
        return Request({}, [], lambda _: arguments)
    if _HAS_EXPRESSIONS:
        return _of_expression(collections, repack, optimize_graph)
    return _of_graphs(collections, repack, optimize_graph)


def _of_expression(collections: Any, repack: Any, optimize_graph: bool) -> Request:
    from dask._expr import FinalizeCompute

    expression = FinalizeCompute(dask.base.collections_to_expr(collections, optimize_graph)).optimize()
    return Request(expression, list(dask.base.flatten(expression.__dask_keys__())), repack)


def _of_graphs(collections: Any, repack: Any, optimize_graph: bool) -> Request:
    graph = dask.base.collections_to_dsk(collections, optimize_graph)
    calls = [collection.__dask_postcompute__() for collection in collections]
    keys = [collection.__dask_keys__() for collection in collections]

    def finish(results: Sequence[Any]) -> Sequence[Any]:
        values = [call(result, *more) for result, (call, more) in zip(results, calls, strict=True)]
        return repack(values)  # type: ignore[no-any-return]

    return Request(graph, keys, finish)
