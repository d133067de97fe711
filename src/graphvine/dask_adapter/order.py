"""Walks a graph from the wanted keys: culls it, resolves names and literals, and numbers tasks depth first.

A depth-first order from the sinks makes what belongs together neighbours, and costs a few dictionary
operations a task. (``dask.order`` costs more than running a small task does.) One walk does it all: nothing
that is not needed is even looked at. There is no recursion, so chains may be as long as they like.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from dask.sizeof import sizeof

from graphvine.dask_adapter import steps
from graphvine.dask_adapter.kept import KeptResult
from graphvine.dask_adapter.nodes import ALIAS, KEPT, LITERAL, Parsed, Reader
from graphvine.manager.engine import Engine
from graphvine.protocol.errors import GraphError, MissingKeyError
from graphvine.protocol.payload import Entry

#: A literal of at least this size becomes a task: it then moves once per worker, not once per blob.
LARGE_LITERAL_BYTES = 32 * 1024
_SMALL_TYPES = frozenset({int, float, bool, type(None), complex})


class Ordered:
    """Tasks in the order in which they should run; all lists are indexed by task number."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.entries: list[Entry] = []
        self.inputs: list[tuple[int, ...]] = []
        self.place: dict[Any, Any] = {}
        """Of a key: a task number, ``-1 - i`` for ``externals[i]``, or None when it is a value."""
        self.literals: dict[Any, Any] = {}
        """Of a key that is a value: the value."""
        self.externals: list[KeptResult] = []


class Walk:
    """One walk. ``engine`` tells which kept results are within reach of the plan."""

    def __init__(self, graph: Mapping[Any, Any], engine: Engine | None = None) -> None:
        self._graph = graph
        self._engine = engine
        self._reader = Reader(graph)
        self._ordered = Ordered()
        self._open: dict[Any, Parsed] = {}
        self._external_of: dict[int, int] = {}
        self._wanted: frozenset[Any] = frozenset()

    def run(self, wanted: Iterable[Any]) -> Ordered:
        """Raises MissingKeyError, GraphError."""
        place = self._ordered.place
        graph, read, opened = self._graph, self._reader.read, self._open
        stack = list(dict.fromkeys(wanted))
        self._wanted = frozenset(stack)
        stack.reverse()
        while stack:
            key = stack.pop()
            if key in place:
                continue
            parsed = opened.get(key)
            if parsed is None:
                try:
                    value = graph[key]
                except KeyError:
                    parsed = self._read_missing(key)
                else:
                    parsed = read(key, value)
            if parsed[3]:
                if todo := [name for name in parsed[3] if name not in place]:
                    if key in opened:
                        # All it needs was looked at since, and is still not done: it needs itself.
                        self._report_cycle(key)
                    opened[key] = parsed
                    stack.append(key)
                    todo.reverse()
                    stack += todo
                    continue
                opened.pop(key, None)
            self._close(key, parsed)
        return self._ordered

    def _close(self, key: Any, parsed: Parsed) -> None:
        """All that ``key`` needs has its place: give it one."""
        function, arguments, fills, names = parsed
        ordered = self._ordered
        if function is ALIAS or function is LITERAL or function is KEPT:
            if not self._name(key, parsed):
                return
            function, arguments = steps.identity, parsed[1]
        entry: Entry = (function, arguments, fills)
        inputs: tuple[int, ...] = ()
        if names:
            if ordered.literals and not ordered.literals.keys().isdisjoint(names):
                entry, inputs = self._rearrange(entry, names)
            else:
                inputs = tuple(map(ordered.place.__getitem__, names))
                if len(inputs) > 1 and len(set(inputs)) < len(inputs):
                    entry, inputs = self._rearrange(entry, names)
        ordered.place[key] = len(ordered.keys)
        ordered.keys.append(key)
        ordered.entries.append(entry)
        ordered.inputs.append(inputs)

    def _name(self, key: Any, parsed: Parsed) -> bool:
        """Place what is no task. True if it has to be one after all."""
        function, arguments, _, names = parsed
        ordered = self._ordered
        if function is ALIAS:
            if names[0] in ordered.literals:
                self._take_literal(key, ordered.literals[names[0]])
            else:
                ordered.place[key] = ordered.place[names[0]]
        elif function is KEPT:
            if not arguments[0].is_of(self._engine):
                self._take_literal(key, arguments[0].fetch())
            else:
                ordered.place[key] = self._external(arguments[0])
        elif key not in self._wanted and is_large(arguments[0]):
            return True
        else:
            self._take_literal(key, arguments[0])
        return False

    def _take_literal(self, key: Any, value: Any) -> None:
        self._ordered.literals[key] = value
        self._ordered.place[key] = None

    def _external(self, kept: KeptResult) -> int:
        number = self._external_of.get(id(kept))
        if number is None:
            self._ordered.externals.append(kept)
            number = self._external_of[id(kept)] = -len(self._ordered.externals)
        return number

    def _rearrange(self, entry: Entry, names: tuple[Any, ...]) -> tuple[Entry, tuple[int, ...]]:
        """An entry some of whose inputs are literals, or the same task twice."""
        ordered = self._ordered
        function, arguments, fills = entry
        slots: dict[int, int] = {}
        values: list[Any] = []
        picks: list[tuple[int, int]] = []
        for position, name in enumerate(names):
            if name in ordered.literals:
                values.append(ordered.literals[name])
                continue
            values.append(None)
            place = ordered.place[name]
            picks.append((position, slots.setdefault(place, len(slots))))
        inputs = tuple(slots)
        if fills is None or len(slots) < len(picks):
            return (steps.run_rearranged, (entry, values, tuple(picks)), None), inputs
        filled = list(arguments)
        for position, value in zip(fills, values, strict=True):
            filled[position] = value
        return (function, tuple(filled), tuple(fills[position] for position, _ in picks)), inputs

    # -- what is wrong with a graph ----------------------------------------------------------------------

    def _read_missing(self, key: Any) -> Parsed:
        if type(key) is KeptResult:
            return (KEPT, (key,), (), ())
        if not self._open:
            raise MissingKeyError(f"the key {key!r} is not in the graph")
        parent = next(reversed(self._open))
        raise MissingKeyError(
            f"task {parent!r} needs the key {key!r}, which is not in the graph; "
            "whatever made this graph left it out"
        )

    def _report_cycle(self, key: Any) -> NoReturn:
        """What is open is the path to here; ``key`` is on it."""
        path = [*self._open]
        shown = [repr(part) for part in [*path[path.index(key) :], key]]
        if len(shown) > 12:
            shown = [*shown[:6], f"... {len(shown) - 11} more ...", *shown[-5:]]
        raise GraphError(f"the graph has a cycle: {' -> '.join(shown)}")


def is_large(value: Any) -> bool:
    """Whether a literal weighs enough to move as a file of its own."""
    kind = type(value)
    if kind in _SMALL_TYPES:
        return False
    if kind is str or kind is bytes:
        return sys.getsizeof(value) >= LARGE_LITERAL_BYTES
    return bool(sizeof(value) >= LARGE_LITERAL_BYTES)
