"""What DaskVine's options do to an ordered graph, before it becomes a plan.

Each function takes the tasks in their order, and the numbers of the wanted ones; it changes the tasks, and
gives the numbers of the wanted ones then: those that were wanted before come first, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphvine.dask_adapter import steps
from graphvine.dask_adapter.order import Ordered
from graphvine.protocol.payload import Entry

Change = Callable[[Ordered, list[int]], list[int]]


class DaskVineDag:
    """The graph, as ``checkpoint_fn`` sees it: what is computed, without values. As in TaskVine, a key's
    children are the keys that it needs."""

    def __init__(self, ordered: Ordered) -> None:
        self._task_of = {key: task for task, key in enumerate(ordered.keys)}
        self._keys = ordered.keys
        self._children = [[need for need in needs if need >= 0] for needs in ordered.inputs]
        self._parents: list[list[int]] = [[] for _ in self._children]
        self._depth: list[int] = []
        for task, children in enumerate(self._children):
            self._depth.append(1 + max((self._depth[child] for child in children), default=-1))
            for child in children:
                self._parents[child].append(task)

    def depth_of(self, key: Any) -> int:
        """The longest way down to a key that needs no other; 0 for such a key."""
        return self._depth[self._task_of[key]]

    def get_children(self, key: Any) -> set[Any]:
        """The keys that it needs."""
        return {self._keys[child] for child in self._children[self._task_of[key]]}

    def get_parents(self, key: Any) -> set[Any]:
        """The keys that need it."""
        return {self._keys[parent] for parent in self._parents[self._task_of[key]]}

    get_dependencies = get_children
    get_dependants = get_parents

    def __contains__(self, key: Any) -> bool:
        return key in self._task_of

    def __iter__(self) -> Any:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def with_checkpoints(
    ordered: Ordered, wanted: list[int], predicate: Callable[[Any, Any], object]
) -> list[int]:
    """What ``predicate(dag, key)`` is true of is wanted, too: it is brought to the manager."""
    dag = DaskVineDag(ordered)
    more = [task for task, key in enumerate(ordered.keys) if predicate(dag, key)]
    return list(dict.fromkeys([*wanted, *more]))


class Wrapped:
    """The tasks of a graph, each called by a function of the user's that has a result of its own."""

    def __init__(self, wrapper: Callable[..., tuple[Any, Any]]) -> None:
        self._wrapper = wrapper
        self.first = 0
        """From this one of the wanted results on, they are those of the wrapper."""

    def change(self, ordered: Ordered, wanted: list[int]) -> list[int]:
        """A task becomes a call of the wrapper; its own result and the wrapper's are tasks behind it."""
        is_wanted = frozenset(wanted)
        keys: list[Any] = []
        entries: list[Entry] = []
        inputs: list[tuple[int, ...]] = []
        number: list[int] = []
        value_of: dict[int, int] = {}
        extra: list[int] = []

        def add(key: Any, entry: Entry, needs: tuple[int, ...]) -> int:
            keys.append(key)
            entries.append(entry)
            inputs.append(needs)
            return len(keys) - 1

        for task, (key, entry) in enumerate(zip(ordered.keys, ordered.entries, strict=True)):
            needs = ordered.inputs[task]
            if entry[0] is steps.identity and not needs:
                # A value of the graph's own, no call.
                number.append(add(key, (steps.as_tuple, (None, *entry[1]), entry[2]), ()))
            else:
                pairs = tuple(position for position, need in enumerate(needs) if need >= 0)
                made = (_call_wrapped, (*entry, self._wrapper, key, pairs), None)
                moved = tuple(number[need] if need >= 0 else need for need in needs)
                number.append(add(key, made, moved))
                extra.append(add(("wrapper", key), _PICK_FIRST, (number[task],)))
            if task in is_wanted:
                value_of[task] = add(key, _PICK_SECOND, (number[task],))
        ordered.keys, ordered.entries, ordered.inputs = keys, entries, inputs
        self.first = len(wanted)
        return [*(value_of[task] for task in wanted), *extra]


def with_files(ordered: Ordered, held: Sequence[Any], names: Sequence[str], run_with: Any) -> None:
    """Each task finds files in its working directory. ``held``: those, as results of earlier plans;
    ``run_with(inputs, *entry, names)`` runs an entry with them, the last of its inputs."""
    begin = len(ordered.externals)
    ordered.externals.extend(held)
    places = tuple(-1 - number for number in range(begin, begin + len(held)))
    names = tuple(names)
    ordered.entries = [(run_with, (*entry, names), None) for entry in ordered.entries]
    ordered.inputs = [(*needs, *places) for needs in ordered.inputs]


def _call_wrapped(
    inputs: Sequence[Any],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    fills: tuple[int, ...] | None,
    wrapper: Callable[..., Any],
    key: Any,
    pairs: Sequence[int],
) -> tuple[Any, Any]:
    """``pairs``: positions of the inputs that are results of calls like this one. Raises TypeError."""
    values = list(inputs)
    for position in pairs:
        values[position] = values[position][1]
    if fills is None:
        result = wrapper(key, function, values, *arguments)
    else:
        filled = list(arguments)
        for position, value in zip(fills, values, strict=True):
            filled[position] = value
        result = wrapper(key, function, *filled)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"wrapper should return a pair of its own result and that of the call, not {result!r}"
        )
    return result


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _second(pair: tuple[Any, Any]) -> Any:
    return pair[1]


_PICK_FIRST: Entry = (_first, (None,), (0,))
_PICK_SECOND: Entry = (_second, (None,), (0,))
