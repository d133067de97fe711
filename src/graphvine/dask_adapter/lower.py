"""A dask graph and the keys wanted of it, lowered to a plan.

In order: one walk from the wanted keys (``order``), chains fused (``fuse``), options and categories told,
payloads pickled together (``payloads``). Pure but for pickling, and for waiting on the files of kept results.

A ``finalize-...`` task that is itself wanted (dask 2025.4 and later put the concatenation of the whole result
into the graph) is not sent to a worker: its inputs become wanted, and it is run here on what was fetched.
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from graphvine.dask_adapter.category import Categories
from graphvine.dask_adapter.code import make_code
from graphvine.dask_adapter.fuse import find_chains, fused_entry, renumber
from graphvine.dask_adapter.graph import as_mapping
from graphvine.dask_adapter.kept import KeptResult
from graphvine.dask_adapter.nodes import ALIAS, KEPT, LITERAL, Parsed, Reader
from graphvine.dask_adapter.options import AnnotatedOptions
from graphvine.dask_adapter.order import Ordered, Walk
from graphvine.dask_adapter.payloads import Packer
from graphvine.dask_adapter.reshape import Change
from graphvine.envs import modules
from graphvine.manager.engine import Engine
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.protocol.errors import MissingKeyError
from graphvine.protocol.payload import run

_FINALIZERS = ("finalize-", "compositefinalizecompute-")


class Lowered(msgspec.Struct):
    """A plan, and how the values of ``keys`` come from its results.

    ``externals``: the kept results that the plan builds on. ``position``: of a key, its position in
    ``plan.wanted``. ``external``: of a key, a kept result. ``literals``: of a key, its value. ``finals``: of
    a wanted key, the call to make here of what was fetched.
    """

    plan: Plan
    keys: list[Any]
    externals: list[KeptResult]
    position: dict[Any, int]
    external: dict[Any, KeptResult]
    literals: dict[Any, Any]
    finals: dict[Any, Parsed]

    def value_of(self, key: Any, results: Sequence[Any], fetched: Mapping[int, Any]) -> Any:
        """The value of a wanted key. ``fetched``: values of kept results, by their ``id``."""
        final = self.finals.get(key)
        if final is not None:
            function, arguments, fills, names = final
            inputs = [self.value_of(name, results, fetched) for name in names]
            return run((function, arguments, fills), inputs)
        position = self.position.get(key)
        if position is not None:
            return results[position]
        kept = self.external.get(key)
        return self.literals[key] if kept is None else fetched[id(kept)]


def lower(
    dsk: Any,
    keys: Iterable[Any],
    engine: Engine | None = None,
    default: TaskOptions | None = None,
    found: modules.Found | None = None,
    finalize: bool = True,
    change: Change | None = None,
) -> Lowered:
    """Lower what a scheduler was handed. ``keys`` is flat; ``found``: the user's own modules.
    ``finalize``: whether last steps are left to the caller. ``change``: see ``reshape``.

    Raises MissingKeyError, GraphError, NotPicklableError, ValueError (a wrong annotation), TypeError."""
    default = default or TaskOptions()
    keys = list(dict.fromkeys(keys))
    with _no_collections():
        # The layers of a graph of layers become tasks here: that is dask's part, and the longest.
        graph, annotations = as_mapping(dsk)
        finals = _find_finals(graph, keys) if finalize else {}
        wanted = [name for key in keys for name in (finals[key][3] if key in finals else (key,))]
        ordered = Walk(graph, engine).run(wanted)
        position, external, numbers = _resolve(ordered, dict.fromkeys(wanted))
        if change is not None:
            numbers = change(ordered, numbers)
        plan = _make_plan(ordered, numbers, AnnotatedOptions(annotations, default), found or modules.Found())
    plan.default_options = default
    literals = {key: ordered.literals[key] for key in wanted if key in ordered.literals}
    return Lowered(plan, keys, ordered.externals, position, external, literals, finals)


def _find_finals(graph: Mapping[Any, Any], keys: Sequence[Any]) -> dict[Any, Parsed]:
    finals: dict[Any, Parsed] = {}
    for key in keys:
        if type(key) is str and key.startswith(_FINALIZERS):
            if key not in graph:
                raise MissingKeyError(f"the key {key!r} is not in the graph")
            parsed = Reader(graph).read(key, graph[key])
            if parsed[0] not in (ALIAS, LITERAL, KEPT):
                finals[key] = parsed
    return finals


def _resolve(
    ordered: Ordered, wanted: Iterable[Any]
) -> tuple[dict[Any, int], dict[Any, KeptResult], list[int]]:
    """Positions of wanted keys, those that are kept results, and the tasks that are wanted, each once."""
    position: dict[Any, int] = {}
    external: dict[Any, KeptResult] = {}
    numbers: dict[int, int] = {}
    for key in wanted:
        place = ordered.place.get(key)
        if place is None:
            continue
        if place < 0:
            external[key] = ordered.externals[-1 - place]
        else:
            position[key] = numbers.setdefault(place, len(numbers))
    return position, external, list(numbers)


def _make_plan(
    ordered: Ordered, wanted: list[int], annotated: AnnotatedOptions, found: modules.Found
) -> Plan:
    keys, entries, inputs = ordered.keys, ordered.entries, ordered.inputs
    ordered.place = {}
    options = _options(keys, annotated)
    categories = Categories()
    category_of = array("l", map(categories.of, keys, (_function(entry) for entry in entries)))
    chains = find_chains(inputs, frozenset(wanted), options)
    if chains:
        remaining, number = renumber(len(keys), chains)
        inputs = [_renumbered(inputs[chains[t][0] if t in chains else t], number) for t in remaining]
        category_of = array(
            "l",
            (
                categories.of_chain([category_of[m] for m in chains[t]]) if t in chains else category_of[t]
                for t in remaining
            ),
        )
        entries = [fused_entry(entries, keys, chains[t]) if t in chains else entries[t] for t in remaining]
        keys = [keys[t] for t in remaining]
        options = {number[t]: stated for t, stated in options.items()}
        wanted = [number[t] for t in wanted]
    packer = Packer(entries, keys, found.by_value)
    blobs = packer.pack(category_of)
    return Plan(
        keys=keys,
        inputs=inputs,
        blobs=blobs.data,
        blob_of=blobs.blob_of,
        blob_index=blobs.index,
        categories=categories.names,
        label=categories.names[category_of[wanted[0]]] if wanted else "",
        category_of=category_of,
        wanted=wanted,
        externals=[kept.file for kept in ordered.externals],
        options=options,
        code=make_code(found, packer.sample),
    )


def _renumbered(needs: tuple[int, ...], number: list[int]) -> tuple[int, ...]:
    return tuple([number[need] if need >= 0 else need for need in needs])


def _function(entry: Any) -> Callable[..., Any]:
    """The user's function in an entry, for its name."""
    function: Callable[..., Any] = entry[0]
    if entry[2] is None and entry[1] and callable(entry[1][0]):
        return entry[1][0]  # type: ignore[no-any-return]
    return function


def _options(keys: Sequence[Any], annotated: AnnotatedOptions) -> dict[int, TaskOptions]:
    if not annotated:
        return {}
    found: dict[int, TaskOptions] = {}
    for task, key in enumerate(keys):
        stated = annotated.of(key)
        if stated is not None:
            found[task] = stated
    return found


@contextmanager
def _no_collections() -> Iterator[None]:
    """Lowering makes millions of objects and no garbage; looking for some again and again takes time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
