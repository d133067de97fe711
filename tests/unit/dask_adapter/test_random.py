"""Random graphs: what we compute is what dask computes."""

from __future__ import annotations

from typing import Any

import dask
from dask._task_spec import Alias, DataNode, Dict, List, Task, TaskRef, Tuple
from hypothesis import given, settings
from hypothesis import strategies as st

from graphvine.dask_adapter.inprocess import InProcessEngine

settings.register_profile("adapter", deadline=None, max_examples=150)
settings.load_profile("adapter")


def call(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return ("called", args, tuple(sorted(kwargs.items())))


#: Keys of both kinds, more than the graphs have: so some strings are literals.
KEYS = [f"k{i}" for i in range(6)] + [("t", i) for i in range(6)]
LITERALS = st.sampled_from([0, 1, 7, "text", "k99", None, 2.5, (1, 2), ("t", 99), True])


def legacy_arguments(known: list[Any]) -> st.SearchStrategy[Any]:
    leaves = st.one_of(LITERALS, st.sampled_from(known)) if known else LITERALS
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.lists(inner, max_size=2).map(lambda args: (call, *args)),
        ),
        max_leaves=5,
    )


@st.composite
def legacy_graphs(draw: st.DrawFn) -> dict[Any, Any]:
    graph: dict[Any, Any] = {}
    for key in draw(st.permutations(KEYS))[: draw(st.integers(1, len(KEYS)))]:
        arguments = legacy_arguments(list(graph))
        form = draw(st.integers(0, 5))
        if form == 0:
            graph[key] = draw(arguments)
        elif form == 1 and graph:
            graph[key] = (call, draw(st.lists(st.sampled_from(list(graph)), min_size=1, max_size=4)))
        else:
            graph[key] = (call, *draw(st.lists(arguments, max_size=3)))
    return graph


def spec_arguments(known: list[Any]) -> st.SearchStrategy[Any]:
    leaves: st.SearchStrategy[Any] = LITERALS
    if known:
        references = st.sampled_from(known)
        leaves = st.one_of(LITERALS, references.map(TaskRef), references.map(Alias))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda parts: List(*parts)),
            st.lists(inner, max_size=3).map(lambda parts: Tuple(*parts)),
            st.dictionaries(st.sampled_from("pqr"), inner, max_size=2).map(Dict),
            st.lists(inner, max_size=2).map(lambda parts: Task(None, call, *parts)),
        ),
        max_leaves=5,
    )


@st.composite
def spec_graphs(draw: st.DrawFn) -> dict[Any, Any]:
    graph: dict[Any, Any] = {}
    for key in draw(st.permutations(KEYS))[: draw(st.integers(1, len(KEYS)))]:
        arguments = spec_arguments(list(graph))
        form = draw(st.integers(0, 6))
        if form == 0:
            graph[key] = DataNode(key, draw(LITERALS))
        elif form == 1 and graph:
            graph[key] = Alias(key, draw(st.sampled_from(list(graph))))
        else:
            keywords = (
                draw(st.dictionaries(st.sampled_from("abc"), arguments, max_size=2)) if form == 2 else {}
            )
            graph[key] = Task(key, call, *draw(st.lists(arguments, max_size=3)), **keywords)
    return graph


def agree(graph: dict[Any, Any], wanted: list[Any]) -> None:
    engine = InProcessEngine()
    assert engine.get(graph, wanted) == dask.get(graph, wanted)
    engine.close()


@given(st.data())
def test_legacy_graphs(data: st.DataObject) -> None:
    graph = data.draw(legacy_graphs())
    agree(graph, data.draw(st.lists(st.sampled_from(list(graph)), min_size=1, max_size=4)))


@given(st.data())
def test_task_graphs(data: st.DataObject) -> None:
    graph = data.draw(spec_graphs())
    agree(graph, data.draw(st.lists(st.sampled_from(list(graph)), min_size=1, max_size=4)))


@given(st.data())
def test_mixed_graphs(data: st.DataObject) -> None:
    graph = data.draw(legacy_graphs())
    for key in data.draw(st.lists(st.sampled_from(list(graph)), max_size=3, unique=True)):
        earlier = list(graph)[: list(graph).index(key)]
        graph[key] = Task(key, call, *data.draw(st.lists(spec_arguments(earlier), max_size=3)))
    agree(graph, data.draw(st.lists(st.sampled_from(list(graph)), min_size=1, max_size=4)))
