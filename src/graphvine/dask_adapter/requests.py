"""What becomes of ``get``, ``persist`` and ``compute``: collections and graphs to plans, and values back."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any

import dask
import msgspec
from dask._task_spec import DataNode

from graphvine.dask_adapter.code import with_imports
from graphvine.dask_adapter.collections import to_request
from graphvine.dask_adapter.computing import compute_futures
from graphvine.dask_adapter.get import flatten, nested, start, values_of, wait_for
from graphvine.dask_adapter.kept import keep, kept_node
from graphvine.dask_adapter.lower import Lowered, lower
from graphvine.dask_adapter.options import default_options
from graphvine.dask_adapter.order import Ordered
from graphvine.dask_adapter.reshape import Wrapped, with_checkpoints, with_files
from graphvine.dask_adapter.surroundings import Surroundings
from graphvine.dask_adapter.vine import VineOptions
from graphvine.envs import modules
from graphvine.manager.engine import Engine, Run
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.protocol.messages import Resources


class Stated(msgspec.Struct, frozen=True):
    """What goes with a request: what each task asks for, what it finds around it, and what else is to be
    done. ``held``: the ``extra_files``."""

    default: TaskOptions
    surroundings: Surroundings
    vine: VineOptions = VineOptions()
    held: Any = None

    def lower(
        self,
        engine: Engine,
        dsk: Any,
        keys: Iterable[Any],
        finalize: bool = True,
        wrapped: Wrapped | None = None,
    ) -> Lowered:
        """Raises what ``lower`` raises."""

        def change(ordered: Ordered, wanted: list[int]) -> list[int]:
            if self.vine.checkpoint is not None:
                wanted = with_checkpoints(ordered, wanted, self.vine.checkpoint)
            if wrapped is not None:
                wanted = wrapped.change(ordered, wanted)
            if self.held is not None:
                names = [name for _, name in self.vine.files]
                with_files(ordered, self.held.results(), names, self.held.run_with)
            return wanted

        lowered = lower(dsk, keys, engine, self.default, modules.find(), finalize, change)
        plan = self.surroundings.around(lowered.plan)
        plan.code = with_imports(plan.code, self.vine.imports)
        plan.label = self.vine.label or plan.label
        return lowered


def default_of(
    resources: Mapping[str, float] | Resources | None, retries: int | None, priority: int | None
) -> TaskOptions:
    """What each task asks for. Raises ValueError for what makes no sense."""
    return default_options(resources, retries, priority)


def get(
    engine: Engine,
    dsk: Any,
    keys: Any,
    stated: Stated,
    watch: Callable[[Run], AbstractContextManager[object]],
) -> Any:
    """The values of ``keys``, in their shape; ``watch`` is entered while they are waited for."""
    wrapper = stated.vine.wrapper
    wrapped = None if wrapper is None else Wrapped(wrapper)
    lowered = stated.lower(engine, dsk, flatten(keys), wrapped=wrapped)
    if stated.vine.verbose:
        _tell(lowered.plan)
    results: list[Any] = []
    if len(lowered.plan):
        run = start(engine, lowered)
        with watch(run):
            if wrapped is None:
                results = wait_for(run)
            else:
                first, process = wrapped.first, stated.vine.wrapper_proc
                results = wait_for(run, lambda: _process_wrapped(run, first, process))
    return nested(keys, values_of(engine, lowered, results))


def _process_wrapped(run: Run, first: int, process: Callable[[Any], object]) -> None:
    """Call ``process`` with what the wrapper returned, as it comes, in this thread."""
    made: SimpleQueue[int | None] = SimpleQueue()
    run.add_result_callback(made.put)
    run.add_done_callback(lambda _: made.put(None))
    while (position := made.get()) is not None:
        if position >= first:
            try:
                process(run.value(position))
            except Exception:
                run.cancel()
                raise


def _tell(plan: Plan) -> None:
    tasks = Counter(plan.categories[category] for category in plan.category_of)
    told = ", ".join(f"{count} {name}" for name, count in tasks.most_common())
    size = sum(map(len, plan.blobs))
    print(f"graphvine: {len(plan)} tasks in {size / 1e6:.2f} MB: {told}", file=sys.stderr)


def persist(
    engine: Engine,
    collections: Sequence[Any],
    stated: Stated,
    optimize_graph: bool,
) -> Any:
    """The same collections, built on results that stay on the workers; does not wait."""
    one = len(collections) == 1 and dask.is_dask_collection(collections[0])
    if len(collections) == 1 and isinstance(collections[0], (list, tuple)):
        collections = tuple(collections[0])

    def schedule(dsk: Any, keys: Any, **_: Any) -> Any:
        return nested(keys, keep_graph(engine, dsk, flatten(keys), stated))

    # A plain function: of a method's object dask would ask ``persist``.
    kept = dask.persist(*collections, optimize_graph=optimize_graph, scheduler=schedule)
    return kept[0] if one else kept


def keep_graph(
    engine: Engine,
    dsk: Any,
    keys: Iterable[Any],
    stated: Stated,
) -> dict[Any, Any]:
    """The graph nodes that stand for ``keys`` from now on."""
    lowered = stated.lower(engine, dsk, keys, finalize=False)
    nodes: dict[Any, Any] = {}
    handles = keep(engine, start(engine, lowered, keep=True)) if len(lowered.plan) else []
    for handle in handles:
        handle.needs = stated.held
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
    stated: Stated,
    optimize_graph: bool,
) -> Any:
    """Begin to compute; a future of each argument's value (several: a tuple)."""
    request = to_request(tuple(collections), optimize_graph)
    lowered = stated.lower(engine, request.dsk, flatten(request.keys))
    futures = compute_futures(engine, lowered, request, len(collections))
    return futures[0] if len(futures) == 1 else tuple(futures)
