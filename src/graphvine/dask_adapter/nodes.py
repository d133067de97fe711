"""One value of a dask graph, read: what is called, with what, and which keys it needs.

Every node becomes ``Parsed``: ``(function, arguments, fills, dependencies)``, the first three of which are a
payload entry (``protocol.payload``) and the last the keys in slot order, each once. Three functions are marks
and never run: ``ALIAS`` (the one dependency is meant), ``LITERAL`` (the one argument is the value), ``KEPT``
(the one argument is a result that lies on the workers).

Rules:
- What is common is quick: flat tuples, flat ``Task`` objects, and a call on one list of keys are recognised
  by exact types. The rest is compiled to steps (``Compiler``).
- A tuple's arguments are keys if the graph has them, otherwise literals; within ``Task`` objects only
  references are keys. What dask means by a nested value, we mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from itertools import count
from typing import Any

import dask.optimization
from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    List,
    Set,
    Task,
    TaskRef,
    Tuple,
    _execute_subgraph,
    convert_legacy_task,
)

from graphvine.dask_adapter import steps
from graphvine.dask_adapter.kept import KeptNode, is_kept

Parsed = tuple[Callable[..., Any], tuple[Any, ...], "tuple[int, ...] | None", tuple[Any, ...]]


def ALIAS() -> None:
    """Mark: this key is another name for its dependency."""


def LITERAL() -> None:
    """Mark: this key is a value."""


def KEPT() -> None:
    """Mark: this key is a result kept on the workers."""


#: What an argument's type says about it.
_PLAIN, _NAME, _LIST, _TUPLE, _OTHER = range(5)
_Kinds = dict[type, int]

_CONTAINERS: dict[type, Callable[..., Any]] = {
    List: steps.as_list,
    Tuple: steps.as_tuple,
    Set: steps.as_set,
    # In dask 2024.12 a Dict is made of pairs.
    Dict: steps.as_dict if len(Dict({0: 0}).args) == 2 else steps.as_dict_of_pairs,
}
#: Whether a fused task has its dependencies as arguments; in dask 2024.12 it has two dictionaries of them.
_HAS_FLAT_SUBGRAPHS = any(
    parameter.kind is Parameter.VAR_POSITIONAL
    for parameter in signature(_execute_subgraph).parameters.values()
)
#: Fused tuples of dask 2024.12: they may need keys that their arguments do not name.
_SUBGRAPH = getattr(dask.optimization, "SubgraphCallable", None)


class Reader:
    """Reads the values of one graph."""

    def __init__(self, graph: Mapping[Any, Any]) -> None:
        self.graph = graph
        self._key_types = set(map(type, graph))
        self._numbers = any(issubclass(kind, (int, float, complex)) for kind in self._key_types)
        self._kinds: _Kinds = {list: _LIST, tuple: _TUPLE}
        self._steps: dict[Any, steps.Step] = {}
        self._programs: dict[tuple[int, ...], tuple[steps.Step, ...]] = {}
        self._templates: dict[tuple[Any, ...], tuple[Any, tuple[steps.Step, ...] | None]] = {}

    def read(self, key: Any, value: Any) -> Parsed:
        """What ``key`` is. Raises nothing: keys that are not there are for the caller to find."""
        kind = type(value)
        if kind is tuple:
            if value and callable(value[0]):
                if _SUBGRAPH is not None and type(value[0]) is _SUBGRAPH:
                    return self._compile(convert_legacy_task(key, value, self.graph))
                return self._read_call(value)
        elif kind is Task or kind is KeptNode:
            return self._read_task(value)
        elif kind is Alias:
            return (ALIAS, (), (), (_target(value),))
        elif kind is DataNode:
            return (LITERAL, (value.value,), (), ())
        return self._compile(value)

    # -- the common forms ------------------------------------------------------------------------------

    def _read_call(self, value: tuple[Any, ...]) -> Parsed:
        """A legacy tuple ``(function, argument, ...)``."""
        graph = self.graph
        kinds = self._kinds
        names: list[Any] = []
        fills: list[int] = []
        arguments = value[1:]
        for position, argument in enumerate(arguments):
            kind = kinds.get(type(argument))
            if kind is None:
                kind = self._learn(type(argument))
            if kind == _PLAIN:
                continue
            if kind == _NAME:
                if argument in graph:
                    names.append(argument)
                    fills.append(position)
            elif kind == _LIST:
                return self._read_call_on_list(value) if position == 0 else self._compile(value)
            elif kind == _TUPLE and self._is_key(argument):
                names.append(argument)
                fills.append(position)
            elif kind != _TUPLE or self._may_nest(argument):
                return self._compile(value)
        if not names:
            return (value[0], arguments, (), ())
        if len(names) > 1 and len(set(names)) < len(names):
            return self._compile(value)
        return (value[0], _blank(arguments, fills), tuple(fills), tuple(names))

    def _read_call_on_list(self, value: tuple[Any, ...]) -> Parsed:
        """``(function, [key, key, ...], plain, ...)``, or whatever it really is."""
        graph = self.graph
        try:
            names = dict.fromkeys(value[1])
        except TypeError:
            return self._compile(value)
        if len(names) < len(value[1]) or not names:
            return self._compile(value)
        for name in names:
            if name not in graph:
                return self._compile(value)
        for extra in value[2:]:
            if self._kinds.get(type(extra)) != _PLAIN:
                return self._compile(value)
        return (steps.call_on_list, (value[0], *value[2:]), None, tuple(names))

    def _read_task(self, node: Task) -> Parsed:
        if is_kept(node):
            return (KEPT, node.args, (), ())
        if node.kwargs:
            return self._read_task_with_keywords(node)
        arguments = node.args
        if not node._dependencies:
            if not any(isinstance(argument, GraphNode) for argument in arguments):
                return (
                    (node.func, arguments, (), ())
                    if node.func is not _execute_subgraph
                    else self._compile(node)
                )
            return self._compile(node)
        if node.func is _execute_subgraph:
            return self._read_subgraph(node)
        return self._read_flat(node.func, arguments) or self._read_list_task(node) or self._compile(node)

    def _read_task_with_keywords(self, node: Task) -> Parsed:
        if node.func is _execute_subgraph:
            return self._compile(node)
        names = tuple(node.kwargs)
        flat = self._read_flat(
            steps.call_with_keywords, (node.func, names, *node.args, *node.kwargs.values())
        )
        return flat or self._compile(node)

    def _read_flat(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Parsed | None:
        """A ``Task``'s call, if each argument is a literal or a reference."""
        names: list[Any] = []
        fills: list[int] = []
        nodes = False
        for position, argument in enumerate(arguments):
            kind = type(argument)
            if kind is TaskRef:
                names.append(argument.key)
            elif kind is Alias:
                names.append(_target(argument))
            elif kind is DataNode:
                nodes = True
                continue
            elif isinstance(argument, (GraphNode, TaskRef)):
                return None
            else:
                continue
            fills.append(position)
        if len(names) > 1 and len(set(names)) < len(names):
            return None
        if nodes:
            arguments = tuple([one.value if type(one) is DataNode else one for one in arguments])
        return (function, _blank(arguments, fills), tuple(fills), tuple(names))

    def _read_list_task(self, node: Task) -> Parsed | None:
        """A ``Task`` called on one ``List`` of references and literals after it."""
        first = node.args[0]
        if type(first) is not List:
            return None
        names = dict.fromkeys(_reference(argument) for argument in first.args)
        if None in names or len(names) < len(first.args):
            return None
        if any(isinstance(argument, (GraphNode, TaskRef)) for argument in node.args[1:]):
            return None
        return (steps.call_on_list, (node.func, *node.args[1:]), None, tuple(names))

    def _read_subgraph(self, node: Task) -> Parsed:
        """A fused task. Those of one layer have their inner tasks in common, and differ in what is given to
        these: the inner tasks are compiled once for all of them."""
        if not _HAS_FLAT_SUBGRAPHS:
            return self._compile(node)
        inner, wanted, inner_names, *given = node.args
        names: list[Any] = []
        values: list[Any] = []
        is_name: list[bool] = []
        for argument in given:
            name = _reference(argument)
            is_name.append(name is not None)
            if name is not None:
                names.append(name)
            elif type(argument) is DataNode:
                values.append(argument.value)
            elif isinstance(argument, GraphNode):
                return self._compile(node)
            else:
                values.append(argument)
        template = (id(inner), wanted, inner_names, *is_name)
        known = self._templates.get(template)
        if known is None:
            program = self._compile_template(inner, wanted, inner_names, is_name)
            # Kept with what it was made of, so that the ``id`` stays its own.
            known = self._templates[template] = (inner, program)
        program = known[1]
        if program is None:
            return self._compile(node)
        if values:
            return (steps.run_steps_with, (program, tuple(values)), None, tuple(names))
        return (steps.run_steps, (program,), None, tuple(names))

    def _compile_template(
        self, inner: Mapping[Any, Any], wanted: Any, inner_names: Iterable[Any], is_name: Sequence[bool]
    ) -> tuple[steps.Step, ...] | None:
        """The steps of a fused task, to run on its inputs followed by the values given to it. None when it
        is more than calls on these."""
        input_register, value_register = count(), count(sum(is_name))
        known = {
            name: (False, next(input_register if from_outside else value_register))
            for name, from_outside in zip(inner_names, is_name, strict=True)
        }
        compiler = Compiler(self)
        constant, result = compiler.compile_inner(inner, wanted, known)
        if constant or compiler.inputs or result != -len(compiler.steps):
            return None
        return self._shared(compiler.steps)

    # -- everything else -------------------------------------------------------------------------------

    def _compile(self, value: Any) -> Parsed:
        compiler = Compiler(self)
        constant, result = compiler.compile(value, compiler.outer, top=True)
        if constant:
            return (LITERAL, (result,), (), ())
        names = tuple(compiler.inputs)
        if not compiler.steps:
            return (ALIAS, (), (), names)
        if len(compiler.steps) == 1:
            function, arguments, fills = compiler.steps[0]
            if [register for _, register in fills] == list(range(len(names))):
                return (function, arguments, tuple(position for position, _ in fills), names)
        elif result != -len(compiler.steps):
            compiler.steps.append((steps.identity, (None,), ((0, result),)))
        return (steps.run_steps, (self._shared(compiler.steps),), None, names)

    def _shared(self, line: list[steps.Step]) -> tuple[steps.Step, ...]:
        """Equal steps of all tasks as one object, for the sake of what they weigh in a pickle."""
        line = [self._steps.setdefault(_identity(step), step) for step in line]
        program = tuple(line)
        return self._programs.setdefault(tuple(map(id, line)), program)

    def is_name(self, value: Any) -> bool:
        """Whether a legacy argument is a key of the graph."""
        kind = self._kinds.get(type(value))
        if kind is None:
            kind = self._learn(type(value))
        if kind in (_PLAIN, _LIST):
            return False
        try:
            return value in self.graph
        except TypeError:
            return False

    def _learn(self, kind: type) -> int:
        found = self._judge(kind)
        self._kinds[kind] = found
        return found

    def _judge(self, kind: type) -> int:
        if issubclass(kind, (GraphNode, TaskRef)) or getattr(kind, "__dask_future__", False):
            return _OTHER
        if issubclass(kind, (list, tuple, set, frozenset, dict)):
            return _OTHER
        if getattr(kind, "__hash__", None) is None:
            return _PLAIN
        if issubclass(kind, (int, float, complex)):
            return _NAME if self._numbers else _PLAIN
        return _NAME if any(issubclass(kind, key_type) for key_type in self._key_types) else _PLAIN

    def _is_key(self, argument: tuple[Any, ...]) -> bool:
        """Whether a tuple is a key of the graph, and not a call."""
        try:
            return argument in self.graph and not (argument and callable(argument[0]))
        except TypeError:
            return False

    def _may_nest(self, argument: tuple[Any, ...]) -> bool:
        """Whether a tuple that is no key is more than a tuple of plain values."""
        kinds = self._kinds
        for part in argument:
            kind = kinds.get(type(part))
            if kind is None:
                kind = self._learn(type(part))
            if kind == _PLAIN or (kind == _NAME and not callable(part)):
                continue
            return True
        return any(map(self.is_name, argument)) or bool(argument and callable(argument[0]))


class Compiler:
    """Compiles one node to steps. ``inputs`` maps the keys it needs to their slots."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.inputs: dict[Any, int] = {}
        self.steps: list[steps.Step] = []

    def outer(self, key: Any) -> tuple[bool, Any]:
        """The register of a key of the graph."""
        return False, self.inputs.setdefault(key, len(self.inputs))

    def compile(
        self, value: Any, scope: Callable[[Any], tuple[bool, Any]], top: bool = False
    ) -> tuple[bool, Any]:
        """(True, constant) or (False, register). ``scope`` finds what a reference means."""
        if isinstance(value, GraphNode):
            return self._compile_node(value, scope)
        if isinstance(value, TaskRef) or getattr(value, "__dask_future__", False):
            return scope(value.key)
        kind = type(value)
        if kind is tuple and value and callable(value[0]):
            if _SUBGRAPH is not None and type(value[0]) is _SUBGRAPH:
                return self._compile_node(convert_legacy_task(None, value, self._reader.graph), scope)
            return self._call(value[0], [self._compile_argument(part, scope) for part in value[1:]])
        if self._reader.is_name(value):
            return scope(value)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._compile_container(value, scope)
        return True, value

    def _compile_argument(self, value: Any, scope: Callable[[Any], tuple[bool, Any]]) -> tuple[bool, Any]:
        if type(value) is dict and any(isinstance(part, (GraphNode, TaskRef)) for part in value.values()):
            return self._compile_node(Dict(value), scope)
        return self.compile(value, scope)

    def _compile_container(self, value: Any, scope: Callable[[Any], tuple[bool, Any]]) -> tuple[bool, Any]:
        parts = [self.compile(part, scope) for part in value]
        if all(constant for constant, _ in parts):
            return True, value
        kind = type(value)
        if kind is list:
            return self._call(steps.as_list, parts)
        if kind is tuple:
            return self._call(steps.as_tuple, parts)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._call(kind, parts)
        return self._call(steps.as_type, [(True, kind), *parts])

    def _compile_node(self, node: GraphNode, scope: Callable[[Any], tuple[bool, Any]]) -> tuple[bool, Any]:
        kind = type(node)
        if kind is Alias:
            return scope(_target(node))
        if kind is DataNode:
            return True, node.value
        if kind is Task or kind is KeptNode:
            return self._compile_task(node, scope)
        container = _CONTAINERS.get(kind)
        if container is not None:
            return self._call(container, [self._compile_part(part, scope) for part in node.args])
        keys = tuple(node.dependencies)
        return self._call(steps.call_node, [(True, node), (True, keys), *map(scope, keys)])

    def _compile_part(self, value: Any, scope: Callable[[Any], tuple[bool, Any]]) -> tuple[bool, Any]:
        """An argument of a ``Task``: only nodes and references are more than literals."""
        if isinstance(value, GraphNode):
            return self._compile_node(value, scope)
        return scope(value.key) if isinstance(value, TaskRef) else (True, value)

    def _compile_task(self, node: Task, scope: Callable[[Any], tuple[bool, Any]]) -> tuple[bool, Any]:
        if is_kept(node):
            return self.outer(node.args[0])
        if node.func is _execute_subgraph and not node.kwargs:
            return self._compile_subgraph(node, scope)
        parts = [self._compile_part(part, scope) for part in (*node.args, *node.kwargs.values())]
        if node.kwargs:
            return self._call(
                steps.call_with_keywords, [(True, node.func), (True, tuple(node.kwargs)), *parts]
            )
        return self._call(node.func, parts)

    def _compile_subgraph(self, node: Task, scope: Callable[[Any], tuple[bool, Any]]) -> tuple[bool, Any]:
        """What ``GraphNode.fuse`` made: the inner tasks, in order, as steps of this one."""
        inner, wanted = node.args[:2]
        known = {name: self._compile_part(value, scope) for name, value in _subgraph_inputs(node)}
        return self.compile_inner(inner, wanted, known)

    def compile_inner(
        self, inner: Mapping[Any, GraphNode], wanted: Any, known: dict[Any, tuple[bool, Any]]
    ) -> tuple[bool, Any]:
        """The steps of a fused task's inner tasks; ``known``: what is given to them, by name."""

        def find(key: Any) -> tuple[bool, Any]:
            return known[key]

        stack = [wanted]
        while stack:
            key = stack[-1]
            if key in known:
                stack.pop()
                continue
            needed = [name for name in inner[key].dependencies if name not in known]
            if needed:
                stack += needed
                continue
            known[key] = self._compile_node(inner[key], find)
            stack.pop()
        return known[wanted]

    def _call(self, function: Callable[..., Any], parts: list[tuple[bool, Any]]) -> tuple[bool, Any]:
        fills = tuple((position, part) for position, (constant, part) in enumerate(parts) if not constant)
        self.steps.append((function, tuple(part if constant else None for constant, part in parts), fills))
        return False, -len(self.steps)


def _blank(arguments: tuple[Any, ...], fills: list[int]) -> tuple[Any, ...]:
    """``arguments`` without the references at ``fills``."""
    if len(fills) == len(arguments):
        return (None,) * len(fills)
    blank = list(arguments)
    for position in fills:
        blank[position] = None
    return tuple(blank)


#: Types whose equal values cannot be told apart.
_VALUES = frozenset({int, str, bytes, bool})


def _identity(step: steps.Step) -> Any:
    """Equal for steps that do the same. The graph keeps alive what is known here by its ``id``."""
    function, arguments, fills = step
    return (
        id(function),
        fills,
        tuple([(type(one), one) if type(one) in _VALUES else id(one) for one in arguments]),
    )


def _reference(argument: Any) -> Any:
    """The key that an argument refers to, or None."""
    kind = type(argument)
    if kind is TaskRef:
        return argument.key
    return _target(argument) if kind is Alias else None


def _subgraph_inputs(node: Task) -> Iterable[tuple[Any, Any]]:
    """What a fused task takes from outside: names within it, and what they mean."""
    if _HAS_FLAT_SUBGRAPHS:
        return zip(node.args[2], node.args[3:], strict=True)
    return [
        (pair.args[0], pair.args[1]) if isinstance(pair, Tuple) else (pair, given[pair])
        for given in node.args[2:]
        for pair in (given.args if isinstance(given, Dict) else given)
    ]


def _target(alias: Alias) -> Any:
    """The key an alias means (in dask 2024.12 a reference to it)."""
    target = alias.target
    return target.key if type(target) is TaskRef else target
