"""Plans made of graphs of every form."""

# ruff: noqa: E501 -- a table of graphs reads best with a graph a line
from __future__ import annotations

from collections import namedtuple
from operator import add
from typing import Any

import dask
import pytest
from dask._task_spec import Alias, DataNode, Dict, GraphNode, List, Set, Task, TaskRef, Tuple
from dask.highlevelgraph import HighLevelGraph

from graphvine.dask_adapter.fuse import MAX_CHAIN
from graphvine.dask_adapter.inprocess import InProcessEngine
from graphvine.dask_adapter.lower import lower
from graphvine.dask_adapter.nodes import _HAS_FLAT_SUBGRAPHS, Reader
from graphvine.protocol.errors import GraphError, MissingKeyError

Point = namedtuple("Point", ["x", "y"])


def inc(x: int) -> int:
    return x + 1


def keep(*args: Any, **kwargs: Any) -> Any:
    """Shows what it was called with."""
    return args, kwargs


class Key:
    """A hashable key of a type nobody knows; like dask's, it means itself everywhere."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.name == self.name

    def __repr__(self) -> str:
        return f"Key({self.name!r})"


#: name -> (graph, key, value)
GRAPHS: dict[str, tuple[dict[Any, Any], Any, Any]] = {
    "flat": ({"a": 1, "b": (add, "a", 2)}, "b", 3),
    "no arguments": ({"a": (dict,)}, "a", {}),
    "same key twice": ({"a": (inc, 0), "b": (add, "a", "a")}, "b", 2),
    "same task by alias": ({"a": (inc, 0), "c": "a", "b": (add, "a", "c")}, "b", 2),
    "same literal twice": ({"a": 1, "b": (add, "a", "a")}, "b", 2),
    "literal in a list of tasks": ({"a": 1, "b": (inc, 1), "c": (sum, ["a", "b", "b"])}, "c", 5),
    "empty tuple as a key": ({(): (inc, 0), "b": (keep, ())}, "b", ((1,), {})),
    "nested tuple as a key": ({("a", ("b", 1)): (inc, 0), "c": (inc, ("a", ("b", 1)))}, "c", 2),
    "tuple of values": ({"a": (inc, 0), "b": (keep, ("x", 1), "a")}, "b", ((("x", 1), 1), {})),
    "tuple with a list": ({"a": (inc, 0), "b": (keep, ([1], "y"), "a")}, "b", ((([1], "y"), 1), {})),
    "list of keys": ({"a": (inc, 0), "b": (inc, 1), "c": (sum, ["a", "b"])}, "c", 3),
    "list of keys and a literal": ({"a": (inc, 0), "b": (inc, 1), "c": (sum, ["a", "b"], 10)}, "c", 13),
    "list of keys and a key": ({"a": (inc, 0), "b": (inc, 1), "c": (sum, ["a", "b"], "a")}, "c", 4),
    "list with literals": ({"a": (inc, 0), "c": (sum, ["a", 5])}, "c", 6),
    "list of lists": ({"a": (inc, 0), "c": (keep, [["a"], [1, ["a"]]])}, "c", (([[1], [1, [1]]],), {})),
    "list in a list": ({"a": (inc, 0), "c": (keep, [["a"]])}, "c", (([[1]],), {})),
    "empty list": ({"c": (keep, [])}, "c", (([],), {})),
    "list second": ({"a": (inc, 0), "c": (keep, 5, ["a"])}, "c", ((5, [1]), {})),
    "task in a task": ({"a": (inc, 0), "b": (add, (inc, "a"), (inc, (inc, 5)))}, "b", 9),
    "tuple key": ({("x", 0): (inc, 1), ("x", 1): (inc, ("x", 0))}, ("x", 1), 3),
    "tuple that is no key": ({("x", 0): (inc, 1), "c": (keep, ("x", 7))}, "c", ((("x", 7),), {})),
    "tuple of keys": ({"a": (inc, 1), "c": (keep, ("a", 7))}, "c", (((2, 7),), {})),
    "tuple of slices": ({"a": 3, "c": (keep, (slice(1), None), "a")}, "c", (((slice(1), None), 3), {})),
    "named tuple": ({"a": (inc, 1), "c": (keep, Point("a", 7))}, "c", ((Point(2, 7),), {})),
    "set of keys": ({"a": (inc, 1), "c": (keep, {"a"})}, "c", (({2},), {})),
    "unhashable value": ({"a": (keep, {1}, {"k": [1]}, bytearray(b"x"))}, "a", (({1}, {"k": [1]}, bytearray(b"x")), {})),
    "dict is a literal": ({"a": 1, "c": (keep, {"k": "a"})}, "c", (({"k": "a"},), {})),
    "keywords by apply": ({"a": 1, "c": (dask.utils.apply, keep, ["a"], (dict, [["k", "a"]]))}, "c", ((1,), {"k": 1})),
    "integer keys": ({1: (inc, 10), 2: (add, 1, 100)}, 2, 111),
    "a true one": ({1: (inc, 10), "b": (keep, True)}, "b", ((11,), {})),
    "integers are literals": ({"a": (inc, 10), "b": (add, 1, "a")}, "b", 12),
    "float key": ({1.5: (inc, 10), "b": (inc, 1.5)}, "b", 12),
    "bytes key": ({b"a": (inc, 10)}, b"a", 11),
    "key of an unknown type": ({Key("a"): (inc, 10), "b": (inc, 1)}, Key("a"), 11),
    "alias": ({"a": (inc, 1), "b": "a", "c": "b"}, "c", 2),
    "alias of a literal": ({"a": [1], "b": "a", "c": (sum, "b")}, "c", 1),
    "literal": ({"a": [1, 2]}, "a", [1, 2]),
    "list value": ({"a": (inc, 1), "b": ["a", 5, ["a"]]}, "b", [2, 5, [2]]),
    "function as a value": ({"a": inc}, "a", inc),
    "function as an argument": ({"a": (map, inc, [1]), "b": (list, "a")}, "b", [2]),
    "large literal": ({"a": list(range(9000)), "b": (len, "a"), "c": (sum, "a"), "d": (add, "b", "c")}, "d", 40504500),
    "Task": ({"a": DataNode("a", 1), "b": Task("b", add, TaskRef("a"), 2)}, "b", 3),
    "Task with Alias": ({"a": Task("a", inc, 0), "b": Task("b", inc, Alias("a"))}, "b", 2),
    "Task twice": ({"a": Task("a", inc, 0), "b": Task("b", add, TaskRef("a"), TaskRef("a"))}, "b", 2),
    "strings are literals in a Task": ({"a": Task("a", inc, 0), "b": Task("b", keep, "a", ["a"])}, "b", (("a", ["a"]), {})),
    "Alias node": ({"a": Task("a", inc, 0), "b": Alias("b", "a")}, "b", 1),
    "keywords": ({"a": Task("a", inc, 0), "b": Task("b", keep, 1, k=2)}, "b", ((1,), {"k": 2})),
    "keyword references": (
        {"a": Task("a", inc, 0), "b": Task("b", keep, TaskRef("a"), k=TaskRef("a"), m=List(TaskRef("a")))},
        "b",
        ((1,), {"k": 1, "m": [1]}),
    ),
    "List": ({"a": Task("a", inc, 0), "b": Task("b", sum, List(TaskRef("a"), TaskRef("a")))}, "b", 2),
    "List of references": (
        {"a": Task("a", inc, 0), "c": Task("c", inc, 1), "b": Task("b", sum, List(TaskRef("a"), TaskRef("c")), 5)},
        "b",
        8,
    ),
    "List of Nones": ({"b": Task("b", keep, List(None, DataNode(None, 3)))}, "b", (([None, 3],), {})),
    "containers": (
        {
            "a": Task("a", inc, 0),
            "b": Task(
                "b",
                keep,
                Dict({"k": TaskRef("a"), "l": List(TaskRef("a"))}),
                Tuple(TaskRef("a"), 5),
                Set(TaskRef("a")),
            ),
        },
        "b",
        (({"k": 1, "l": [1]}, (1, 5), {1}), {}),
    ),
    "container at the top": ({"a": Task("a", inc, 0), "b": List(TaskRef("a"), 5)}, "b", [1, 5]),
    "Task in a Task": ({"a": Task("a", inc, 0), "b": Task("b", inc, Task(None, inc, TaskRef("a")))}, "b", 3),
    "both forms": ({"a": Task("a", inc, 0), "b": (inc, "a"), "c": Task("c", add, TaskRef("a"), TaskRef("b"))}, "c", 3),
    "Task in a tuple": ({"a": Task("a", inc, 0), "b": (inc, Task(None, inc, TaskRef("a")))}, "b", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_every_form_is_computed(name: str, local: InProcessEngine) -> None:
    graph, key, expected = GRAPHS[name]
    assert local.get(graph, key) == expected


@pytest.mark.parametrize("name", GRAPHS)
def test_every_form_means_what_dask_means(name: str) -> None:
    graph, key, expected = GRAPHS[name]
    assert dask.get(graph, key) == expected


def plan_of(graph: Any, *keys: Any) -> Any:
    return lower(graph, keys).plan


def test_culls() -> None:
    plan = plan_of({"a": (inc, 0), "unused": (inc, 1), "b": (add, "a", 1)}, "a", "b")
    assert plan.keys == ["a", "b"]


def test_depth_first() -> None:
    graph: dict[Any, Any] = {f"in-{i}": (inc, i) for i in range(8)}
    graph |= {f"pair-{i}": (add, f"in-{2 * i}", f"in-{2 * i + 1}") for i in range(4)}
    graph |= {"all": (sum, [f"pair-{i}" for i in range(4)])}
    plan = plan_of(graph, "all")
    assert plan.keys == [
        "in-0", "in-1", "pair-0", "in-2", "in-3", "pair-1", "in-4", "in-5", "pair-2", "in-6", "in-7", "pair-3", "all",
    ]  # fmt: skip
    assert plan.inputs[-1] == (2, 5, 8, 11)


def test_aliases_and_literals_are_no_tasks() -> None:
    lowered = lower({"a": 5, "b": "a", "c": (inc, "b"), "d": "c"}, ["d", "b"])
    assert lowered.plan.keys == ["c"]
    assert lowered.plan.inputs == [()]
    assert lowered.literals == {"b": 5}


def test_wanted_twice_is_made_once() -> None:
    lowered = lower({"a": (inc, 1), "b": "a"}, ["a", "b", "a"])
    assert lowered.plan.wanted == [0]


def test_a_straight_chain_is_one_task() -> None:
    plan = plan_of({"a": (inc, 0), "b": (inc, "a"), "c": (add, 5, "b")}, "c")
    assert plan.keys == ["c"]


def test_what_is_wanted_is_not_fused_away() -> None:
    assert plan_of({"a": (inc, 0), "b": (inc, "a")}, "a", "b").keys == ["a", "b"]


def test_what_two_need_is_not_fused() -> None:
    assert len(plan_of({"a": (inc, 0), "b": (inc, "a"), "c": (inc, "a"), "d": (add, "b", "c")}, "d")) == 4


def test_chains_are_cut() -> None:
    graph: dict[Any, Any] = {0: (inc, 0), **{i: (inc, i - 1) for i in range(1, 10_000)}}
    graph = {f"k{i}": (inc, f"k{i - 1}" if i else 0) for i in range(10_000)}
    plan = plan_of(graph, "k9999")
    assert len(plan) == -(-10_000 // MAX_CHAIN)
    assert plan.inputs[1:] == [(i,) for i in range(len(plan) - 1)]


def test_a_deep_chain_of_tasks(local: InProcessEngine) -> None:
    graph: dict[Any, Any] = {0: Task(0, inc, 0)}
    graph |= {i: Task(i, inc, TaskRef(i - 1)) for i in range(1, 10_000)}
    assert local.get(graph, 9_999) == 10_000


def test_a_deep_chain_of_aliases(local: InProcessEngine) -> None:
    graph: dict[Any, Any] = {"k0": (inc, 0), **{f"k{i}": f"k{i - 1}" for i in range(1, 10_000)}}
    assert local.get(graph, "k9999") == 1


def test_a_deep_fused_task(local: InProcessEngine) -> None:
    tasks = [Task("k0", inc, 0), *(Task(f"k{i}", inc, TaskRef(f"k{i - 1}")) for i in range(1, 3000))]
    graph = {"k2999": GraphNode.fuse(*tasks)}
    assert local.get(graph, "k2999") == 3000


def test_fused_tasks_are_unfolded(local: InProcessEngine) -> None:
    a = Task("a", inc, TaskRef("x"))
    b = Task("b", add, TaskRef("a"), TaskRef("y"))
    c = Task("c", keep, TaskRef("b"), TaskRef("x"), List(TaskRef("a")))
    graph = {"x": Task("x", inc, 0), "y": Task("y", inc, 1), "c": GraphNode.fuse(a, b, c)}
    assert local.get(graph, "c") == ((4, 1, [2]), {})
    assert b"_execute_subgraph" not in b"".join(local.plans[-1].blobs)


def fused_layer(count: int) -> dict[Any, Any]:
    """Fused tasks that have their inner tasks in common, each with an input and a value of its own."""
    fused = GraphNode.fuse(
        Task("sum", add, TaskRef("here"), TaskRef("by")), Task("out", keep, TaskRef("sum"), TaskRef("here"))
    )
    inner, wanted, inner_names = fused.args[:3]
    graph: dict[Any, Any] = {("x", i): Task(("x", i), inc, i) for i in range(count)}
    for i in range(count):
        own = {"here": TaskRef(("x", i)), "by": DataNode(None, 100 * i)}
        key = ("out", i)
        graph[key] = Task(key, fused.func, inner, wanted, inner_names, *(own[name] for name in inner_names))
    return graph


FLAT_SUBGRAPHS = pytest.mark.skipif(not _HAS_FLAT_SUBGRAPHS, reason="this dask fuses in another form")


@FLAT_SUBGRAPHS
def test_fused_tasks_of_one_layer_share_their_steps(local: InProcessEngine) -> None:
    graph = fused_layer(200)
    keys = [("out", i) for i in range(200)]
    expected = [((i + 1 + 100 * i, i + 1), {}) for i in range(200)]
    assert list(local.get(graph, keys)) == expected
    reader = Reader(graph)
    programs = {id(reader.read(key, graph[key])[1][0]) for key in keys}
    assert len(programs) == 1, "the inner tasks are the same for all, and are to be compiled once"


@FLAT_SUBGRAPHS
def test_a_fused_task_given_the_same_twice(local: InProcessEngine) -> None:
    graph = fused_layer(2)
    graph["out", 1] = graph["out", 1].substitute({("x", 1): ("x", 0)})
    for key in (("x", 0), "y"):
        node = graph["out", 0]
        graph["both"] = Task("both", node.func, *node.args[:3], TaskRef(("x", 0)), TaskRef(key))
        graph["y"] = Alias("y", ("x", 0))
        assert local.get(graph, "both") == ((2, 1), {})
    assert local.get(graph, ("out", 1)) == ((101, 1), {})


@FLAT_SUBGRAPHS
def test_fused_tasks_that_are_given_more_than_names_and_values(local: InProcessEngine) -> None:
    graph = fused_layer(1)
    node = graph["out", 0]
    position = node.args[2].index("by")
    graph["out", 0] = Task(
        ("out", 0),
        node.func,
        *node.args[:3],
        *(Task(None, inc, TaskRef(("x", 0))) if i == position else TaskRef(("x", 0)) for i in range(2)),
    )
    assert local.get(graph, ("out", 0)) == ((3, 1), {})


def test_missing_key_names_key_and_task() -> None:
    graph = {"a": Task("a", inc, TaskRef("nowhere")), "b": Task("b", inc, TaskRef("a"))}
    with pytest.raises(MissingKeyError, match="task 'a' needs the key 'nowhere'"):
        plan_of(graph, "b")


def test_missing_key_within_a_nest() -> None:
    graph = {"a": Task("a", sum, List(TaskRef("nowhere"), 1))}
    with pytest.raises(MissingKeyError, match="task 'a' needs the key 'nowhere'"):
        plan_of(graph, "a")


def test_missing_wanted_key() -> None:
    with pytest.raises(KeyError, match="'b' is not in the graph"):
        plan_of({"a": 1}, "b")


def test_a_key_error_of_a_mapping_is_not_ours_to_hide() -> None:
    assert plan_of({"a": (inc, 1)}, "a").keys == ["a"]


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_cycles_are_shown(length: int) -> None:
    graph = {i: Task(i, inc, TaskRef((i + 1) % length)) for i in range(length)}
    graph["start"] = Task("start", inc, TaskRef(0))
    with pytest.raises(GraphError, match=r"cycle: 0 ->.* 0$"):
        plan_of(graph, "start")


def test_a_diamond_is_no_cycle() -> None:
    graph = {"a": (inc, 0), "b": (inc, "a"), "c": (add, "b", "a"), "d": (sum, ["c", "b", "a"])}
    assert len(plan_of(graph, "d")) == 4


def test_not_a_graph() -> None:
    with pytest.raises(TypeError, match="not a dask graph"):
        plan_of([1, 2], "a")


def test_finalize_is_left_to_us(local: InProcessEngine) -> None:
    graph = {
        "x-0": Task("x-0", inc, 0),
        "x-1": Task("x-1", inc, 1),
        "finalize-abc": Task("finalize-abc", sum, List(TaskRef("x-0"), TaskRef("x-1"))),
    }
    assert local.get(graph, ["finalize-abc"]) == (3,)
    assert list(local.plans[-1].keys) == ["x-0", "x-1"]
    assert len(local.plans[-1].wanted) == 2


def test_finalize_that_somebody_else_needs(local: InProcessEngine) -> None:
    graph = {"x": (inc, 0), "y": (inc, 1), "finalize-a": (sum, ["x", "y"]), "z": (inc, "finalize-a")}
    assert local.get(graph, ["finalize-a", "z", "x"]) == (3, 4, 1)


def test_finalize_that_does_not_exist() -> None:
    with pytest.raises(MissingKeyError):
        plan_of({"a": 1}, "finalize-x")


def test_finalize_of_literals(local: InProcessEngine) -> None:
    assert local.get({"x": 1, "finalize-a": (sum, ["x", "x"])}, "finalize-a") == 2
    assert local.plans == []


def test_high_level_graph(local: InProcessEngine) -> None:
    graph = HighLevelGraph({"a": {"x": (inc, 0)}, "b": {"y": (inc, "x")}}, {"a": set(), "b": {"a"}})
    assert local.get(graph, [["y"], "x"]) == ((2,), 1)


def test_large_literals_travel_once(local: InProcessEngine) -> None:
    large = bytes(1_000_000)
    graph: dict[Any, Any] = {"large": large, **{f"n-{i}": (add, (len, "large"), i) for i in range(3000)}}
    graph["all"] = (sum, [f"n-{i}" for i in range(3000)])
    assert local.get(graph, "all") == sum(1_000_000 + i for i in range(3000))
    assert sum(map(len, local.plans[-1].blobs)) < 1_500_000


def test_a_large_literal_that_is_wanted_stays_here(local: InProcessEngine) -> None:
    large = list(range(10_000))
    assert local.get({"a": large, "b": (len, "a")}, ["a", "b"]) == (large, 10_000)
    assert local.plans[-1].keys == ["b"]


def test_categories() -> None:
    graph = {
        ("sum-partial-1234567890abcdef", 0): (inc, 0),
        "load-0": (inc, 1),
        "load-1": (inc, 2),
        "x1": (add, 1, 2),
        7: (add, 1, 2),
    }
    plan = plan_of(graph, *graph)
    names = [plan.categories[number] for number in plan.category_of]
    assert names == ["sum-partial", "load", "load", "add", "add"]


def test_category_of_a_chain() -> None:
    plan = plan_of({"load-0": (inc, 1), "fill-0": (inc, "load-0"), "fill-1": (inc, "fill-0")}, "fill-1")
    assert plan.categories[plan.category_of[0]] == "load+fill"


def test_a_plan_without_tasks_is_not_run(local: InProcessEngine) -> None:
    assert local.get({"a": 1, "b": "a"}, ["a", "b"]) == (1, 1)
    assert local.plans == []
