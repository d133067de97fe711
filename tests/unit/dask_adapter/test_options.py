"""dask's annotations become options of tasks, in both dask worlds."""

from __future__ import annotations

import re
from typing import Any

import dask
import pytest

from graphvine.dask_adapter.inprocess import InProcessEngine
from graphvine.dask_adapter.options import AnnotatedOptions, as_resources
from graphvine.manager.plan import Plan, TaskOptions


def inc(x: int) -> int:
    return x + 1


def double(x: int) -> int:
    return 2 * x


def options_of(plan: Plan) -> dict[str, TaskOptions]:
    return {
        plan.categories[plan.category_of[task]]: plan.options.get(task, plan.default_options)
        for task in range(len(plan))
    }


def annotated(local: InProcessEngine, **annotations: Any) -> TaskOptions:
    """The options of an annotated task between two that are not."""
    a = dask.delayed(inc)(1)
    with dask.annotate(**annotations):
        b = dask.delayed(double)(a)
    c = dask.delayed(inc)(b)
    assert c.compute(scheduler=local.get) == 5
    found = options_of(local.plans[-1])
    assert found.get("inc", TaskOptions()) == TaskOptions()
    return found["double"] if "double" in found else found["inc+double"]


def test_priority_and_retries(local: InProcessEngine) -> None:
    found = annotated(local, priority=5, retries=2)
    assert (found.priority, found.retries) == (5, 2)


def test_workers(local: InProcessEngine) -> None:
    assert annotated(local, workers="here").workers == ("here",)
    found = annotated(local, workers=["here", "there"], allow_other_workers=True)
    assert found.workers == ("here", "there")
    assert found.allow_other_workers


def test_resources(local: InProcessEngine) -> None:
    found = annotated(local, resources={"cores": 3, "memory": 2000, "disk": 10, "gpus": 1})
    request = found.request
    assert (request.cores, request.memory_mb, request.disk_mb, request.gpus) == (3, 2000, 10, 1)


def test_unknown_resources(local: InProcessEngine) -> None:
    with pytest.raises(ValueError, match="unknown resource 'GPU'"):
        annotated(local, resources={"GPU": 1})


def test_values_may_be_functions_of_the_key(local: InProcessEngine) -> None:
    assert annotated(local, priority=lambda key: len(key)).priority > 5


def test_other_annotations_are_for_others(local: InProcessEngine) -> None:
    assert annotated(local, colour="red") == TaskOptions()


def test_annotated_arrays(local: InProcessEngine) -> None:
    da = pytest.importorskip("dask.array")
    with dask.annotate(retries=4):
        x = da.ones(10, chunks=5)
    with dask.config.set({"optimization.fuse.active": False}):
        (x + 1).sum().compute(scheduler=local.get, optimize_graph=False)
    plan = local.plans[-1]
    assert sorted({one.retries for one in plan.options.values()}) == [4]
    assert len(plan.options) == 2


def test_tasks_of_other_options_are_not_fused(local: InProcessEngine) -> None:
    annotated(local, priority=5)
    assert len(local.plans[-1]) == 3


def test_equal_annotations_are_one_object() -> None:
    annotations = {"priority": dict.fromkeys(range(100), 3)}
    options = AnnotatedOptions(annotations, TaskOptions())
    assert len({id(options.of(key)) for key in range(100)}) == 1
    assert options.of(100) is None
    assert AnnotatedOptions(annotations, TaskOptions(priority=3)).of(1) is None


@pytest.mark.parametrize("name", ["retries", "priority"])
@pytest.mark.parametrize("value", ["a", "", [], 1.5, True, float("nan"), {}])
def test_numbers_that_are_none_are_named(local: InProcessEngine, name: str, value: Any) -> None:
    words = re.escape(f"{name} should be a whole number, not {value!r}")
    with pytest.raises(ValueError, match=words):
        local.get({"a": (abs, 1)}, "a", **{name: value})
    with pytest.raises(ValueError, match=words):
        local.executor(**{name: value})
    with dask.annotate(**{name: lambda key: value}), pytest.raises(ValueError, match=words):
        dask.delayed(abs)(1).compute(scheduler=local.get)


@pytest.mark.parametrize("workers", [5, [5], [["a"]]])
def test_workers_that_are_no_names_are_named(local: InProcessEngine, workers: Any) -> None:
    with dask.annotate(workers=lambda key: workers):
        task = dask.delayed(abs)(1)
    with pytest.raises(ValueError, match="workers should be a worker's name or a list of names, not"):
        task.compute(scheduler=local.get)


@pytest.mark.parametrize("stated", [5, {"cores": float("inf")}, {"memory": float("nan")}])
def test_resources_that_nobody_can_have_are_refused_at_once(stated: Any) -> None:
    with pytest.raises(ValueError, match="resource"):
        as_resources(stated)
