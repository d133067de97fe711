"""DaskVine's options: what becomes of each, and wrong values."""

from __future__ import annotations

import json
from operator import add
from typing import Any

import dask
import pytest

from graphvine.dask_adapter.client import DaskClient
from graphvine.dask_adapter.inprocess import InProcessEngine
from graphvine.dask_adapter.vine import read_options, vine_names

GRAPH = {
    "x": 1,
    "y": 2,
    "z": (add, "x", "y"),
    "w": (sum, ["x", "y", "z"]),
    "v": [(sum, ["w", "z"]), 2],
    "t": (sum, "v"),
}


def wrapper(key: Any, function: Any, *args: Any) -> tuple[Any, Any]:
    return key, function(*args)


def test_the_wrapper_is_called_around_each_call_and_its_results_come_here(client: DaskClient) -> None:
    seen: list[Any] = []
    found = client.get(GRAPH, [["t"], "w"], wrapper=wrapper, wrapper_proc=seen.append)
    assert found == ((11,), 6)
    assert sorted(seen) == ["t", "v", "w", "z"]


def test_what_the_wrapper_returned_is_printed_by_default(
    client: DaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.get({"a": (add, 1, 2)}, "a", wrapper=wrapper) == 3
    assert "a\n" in capsys.readouterr().out


def test_a_wrapper_that_returns_no_pair(client: DaskClient) -> None:
    with pytest.raises(TypeError, match="a pair of its own result"):
        client.get({"a": (add, 1, 2)}, "a", wrapper=lambda key, function, *args: function(*args))


def test_an_error_of_wrapper_proc_is_the_callers(client: DaskClient) -> None:
    def fail(_: Any) -> None:
        raise LookupError("not this one")

    with pytest.raises(LookupError, match="not this one"):
        client.get({"a": (add, 1, 2)}, "a", wrapper=wrapper, wrapper_proc=fail)


def test_checkpoint_fn_sees_the_graph_and_true_brings_the_result_here(local: InProcessEngine) -> None:
    asked: dict[Any, tuple[int, set[Any], set[Any]]] = {}

    def at_even_levels(dag: Any, key: Any) -> bool:
        asked[key] = dag.depth_of(key), dag.get_children(key), dag.get_parents(key)
        return dag.depth_of(key) % 2 == 0 and len(dag.get_children(key)) > 0

    assert local.get(GRAPH, ["t"], checkpoint_fn=at_even_levels) == (11,)
    assert asked == {
        "z": (0, set(), {"w", "v"}),
        "w": (1, {"z"}, {"v"}),
        "v": (2, {"w", "z"}, {"t"}),
        "t": (3, {"v"}, set()),
    }
    plan = local.plans[-1]
    assert [plan.keys[task] for task in plan.wanted] == ["t", "v"]


def test_false_brings_nothing_more(local: InProcessEngine) -> None:
    local.get(GRAPH, "t", checkpoint_fn=lambda dag, key: False)
    assert len(local.plans[-1].wanted) == 1


def test_modules_are_imported_ahead_and_executors_are_told_apart_by_them(local: InProcessEngine) -> None:
    local.get({"a": (add, 1, 2)}, "a")
    local.get({"a": (add, 1, 2)}, "a", lib_modules=[json, "colorsys"])
    without, with_them = (plan.code for plan in local.plans)
    assert {"json", "colorsys"} <= set(with_them.imports)
    assert with_them.name != without.name


def test_a_label_loses_its_colour(local: InProcessEngine) -> None:
    local.get({"a": (add, 1, 2)}, "a", progress_label="[green]my tasks", progress_disable=True)
    assert local.plans[-1].label == "my tasks"


def test_a_value_of_env_vars_may_be_a_function(local: InProcessEngine) -> None:
    local.get({"a": (add, 1, 2)}, "a", env_vars={"A": lambda manager, task: f"{manager is local}"})
    assert local.plans[-1].code.variables == (("A", "True"),)


def test_what_there_is_nothing_to_do_for(client: DaskClient) -> None:
    found = client.get(
        {"a": (add, 1, 2)},
        "a",
        worker_transfers=True,
        lazy_transfers=False,
        resources_mode="fixed",
        task_mode="function-calls",
        submit_per_cycle=100,
        max_pending=None,
        lib_resources={"cores": 2, "memory": 100, "slots": 2},
        lib_command="nice",
        lib_extra_functions=[wrapper],
        task_priority_mode="largest-input-first",
        scheduling_mode="FIFO",
        worker_scheduler="max-available-disk",
        init_command="nice",
        prune_depth=2,
    )
    assert found == 3


def test_verbose_says_what_is_run(client: DaskClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.get({"a-1": (add, 1, 2)}, "a-1", verbose=True)
    assert "1 tasks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"resources_mode": "max"}, NotImplementedError, "resources_mode='max': .* comes later"),
        ({"resources_mode": "most"}, ValueError, "resources_mode='most'"),
        ({"task_mode": "call"}, ValueError, "task_mode='call': there are 'tasks', 'function-calls'"),
        ({"task_priority_mode": "any"}, ValueError, "task_priority_mode='any'"),
        ({"scheduling_mode": 7}, ValueError, "scheduling_mode=7"),
        ({"worker_transfers": "yes"}, TypeError, "worker_transfers should be True or False"),
        ({"submit_per_cycle": "all"}, TypeError, "submit_per_cycle should be a whole number"),
        ({"max_pending": 1.5}, TypeError, "max_pending should be a whole number"),
        ({"prune_depth": True}, TypeError, "prune_depth should be a whole number"),
        ({"lib_resources": {"core": 1}}, ValueError, "lib_resources: unknown resource 'core'"),
        ({"lib_resources": {"slots": "all"}}, TypeError, "slots should be a whole number"),
        ({"lib_modules": "json"}, TypeError, "lib_modules should be a list of modules"),
        ({"lib_modules": [3]}, TypeError, "lib_modules should be a list of modules, but has 3"),
        ({"lib_command": 3}, TypeError, "lib_command should be a string"),
        ({"wrapper": 3}, TypeError, "wrapper should be a function"),
        ({"checkpoint_fn": "a"}, TypeError, "checkpoint_fn should be a function"),
        ({"extra_files": ["a"]}, TypeError, "extra_files should be like"),
        ({"extra_files": {1: "../a"}}, ValueError, "extra_files: '../a' leads out"),
        ({"extra_files": {1: "/a"}}, ValueError, "extra_files: '/a' is no name"),
        ({"extra_files": {1: "a", 2: "a"}}, ValueError, "extra_files: two files have the same name"),
        ({"progress_label": 1}, TypeError, "progress_label should be a string"),
    ],
)
def test_wrong_values_are_named(
    client: DaskClient, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        client.get({"a": (add, 1, 2)}, "a", **options)


def test_unknown_options_list_these_too(client: DaskClient) -> None:
    with pytest.raises(
        TypeError, match=r"unknown option retires; did you mean retries\? known are resources"
    ):
        read_options({"retires": 3, "num_workers": 4})
    with pytest.raises(TypeError, match=r"unknown option colour; known are .*task_mode.*wrapper"):
        client.get({"a": (add, 1, 2)}, "a", colour="red")


@pytest.mark.parametrize("name", ["wrapper", "checkpoint_fn"])
def test_options_of_get_only(client: DaskClient, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is an option of get only"):
        client.persist(dask.delayed(add)(1, 2), **{name: wrapper})
    with pytest.raises(TypeError, match=f"{name} is an option of get only"):
        client.compute(dask.delayed(add)(1, 2), **{name: wrapper})


def test_none_is_no_value() -> None:
    assert read_options(dict.fromkeys(vine_names())) == read_options({})
