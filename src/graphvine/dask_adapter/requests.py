"""What becomes of ``get``, ``persist`` and ``compute``: collections and graphs to plans, and values back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import dask
from dask._task_spec import DataNode

from graphvine.dask_adapter.collections import to_request
from graphvine.dask_adapter.computing import compute_futures
from graphvine.dask_adapter.get import check_options, flatten, nested, start, values_of, wait_for
from graphvine.dask_adapter.kept import keep, kept_node
from graphvine.dask_adapter.lower import lower
from graphvine.dask_adapter.options import default_options
from graphvine.dask_adapter.surroundings import Surroundings
from graphvine.envs import modules
from graphvine.manager.engine import Engine, Run
from graphvine.manager.plan import TaskOptions
from graphvine.protocol.messages import Resources


def stated_options(
    resources: Mapping[str, float] | Resources | None,
    retries: int | None,
    priority: int | None,
    unknown: Mapping[str, Any],
) -> TaskOptions:
    """What each task asks for. Raises TypeError and ValueError for what makes no sense."""
    check_options(unknown)
    return default_options(resources, retries, priority)


def get(
    engine: Engine,
    dsk: Any,
    keys: Any,
    default: TaskOptions,
    surroundings: Surroundings,
    watch: Callable[[Run], AbstractContextManager[object]],
) -> Any:
    """The values of ``keys``, in their shape; ``watch`` is entered while they are waited for."""
    lowered = lower(dsk, flatten(keys), engine, default, modules.find())
    results: list[Any] = []
    if len(lowered.plan):
        surroundings.around(lowered.plan)
        run = start(engine, lowered)
        with watch(run):
            results = wait_for(run)
    return nested(keys, values_of(engine, lowered, results))


def persist(
    engine: Engine,
    collections: Sequence[Any],
    default: TaskOptions,
    surroundings: Surroundings,
    optimize_graph: bool,
) -> Any:
    """The same collections, built on results that stay on the workers; does not wait."""
    one = len(collections) == 1 and dask.is_dask_collection(collections[0])
    if len(collections) == 1 and isinstance(collections[0], (list, tuple)):
        collections = tuple(collections[0])

    def schedule(dsk: Any, keys: Any, **_: Any) -> Any:
        return nested(keys, keep_graph(engine, dsk, flatten(keys), default, surroundings))

    # A plain function: of a method's object dask would ask ``persist``.
    kept = dask.persist(*collections, optimize_graph=optimize_graph, scheduler=schedule)
    return kept[0] if one else kept


def keep_graph(
    engine: Engine,
    dsk: Any,
    keys: Iterable[Any],
    default: TaskOptions,
    surroundings: Surroundings,
) -> dict[Any, Any]:
    """The graph nodes that stand for ``keys`` from now on."""
    lowered = lower(dsk, keys, engine, default, modules.find(), finalize=False)
    nodes: dict[Any, Any] = {}
    surroundings.around(lowered.plan)
    handles = keep(engine, start(engine, lowered, keep=True)) if len(lowered.plan) else []
    for key in lowered.keys:
        if key in lowered.position:
            nodes[key] = kept_node(key, handles[lowered.position[key]])
        elif key in lowered.external:
            nodes[key] = kept_node(key, lowered.external[key])
        else:
            nodes[key] = DataNode(key, lowered.literals[key])
    return nodes


def compute(
    engine: Engine,
    collections: Sequence[Any],
    default: TaskOptions,
    surroundings: Surroundings,
    optimize_graph: bool,
) -> Any:
    """Begin to compute; a future of each argument's value (several: a tuple)."""
    request = to_request(tuple(collections), optimize_graph)
    lowered = lower(request.dsk, flatten(request.keys), engine, default, modules.find())
    surroundings.around(lowered.plan)
    futures = compute_futures(engine, lowered, request, len(collections))
    return futures[0] if len(futures) == 1 else tuple(futures)
