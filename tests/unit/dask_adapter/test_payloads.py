"""Blobs: small where tasks share nothing, shared where they do."""

from __future__ import annotations

import pickle
import subprocess
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from graphvine.dask_adapter.lower import lower
from graphvine.dask_adapter.payloads import LIGHT_TASKS, MAX_BLOB_BYTES, dump
from graphvine.envs.modules import Found
from graphvine.protocol.payload import run


def inc(x: int) -> int:
    return x + 1


def check_blobs(plan: Any) -> None:
    """Every task is where the plan says it is."""
    entries = [pickle.loads(blob) for blob in plan.blobs]
    places = list(zip(plan.blob_of, plan.blob_index, strict=True))
    assert sorted(places) == [(b, i) for b, blob in enumerate(entries) for i in range(len(blob))]


def test_light_tasks_share_blobs_in_order() -> None:
    count = 3 * LIGHT_TASKS + 5
    plan = lower({f"x-{i}": (inc, i) for i in range(count)}, [f"x-{i}" for i in range(count)]).plan
    check_blobs(plan)
    assert len(plan.blobs) == 4
    assert list(plan.blob_of) == sorted(plan.blob_of)
    assert run(pickle.loads(plan.blobs[1])[7], ()) == LIGHT_TASKS + 8


def test_a_shared_closure_is_pickled_a_few_times() -> None:
    """Like fused coffea tasks: 100 kB each alone, next to nothing together."""
    table = list(range(50_000))

    def look(shift: int, i: int) -> int:
        return table[(i + shift) % len(table)]

    shared = partial(look, 1)
    graph = {("chunk", i): (shared, i) for i in range(2000)}
    plan = lower(graph, list(graph)).plan
    check_blobs(plan)
    together = len(cloudpickle.dumps([(shared, (i,), ()) for i in range(2000)]))
    assert sum(map(len, plan.blobs)) < 1.2 * together


def test_several_heavy_categories_interleaved() -> None:
    graph: dict[Any, Any] = {}
    for name in ("first", "second"):
        table = list(range(20_000))
        for i in range(500):
            graph[f"{name}-{i}"] = (lambda i, table=table: table[i], i)
    graph |= {f"light-{i}": (sum, [f"first-{i}", f"second-{i}"]) for i in range(500)}
    plan = lower(graph, [f"light-{i}" for i in range(500)]).plan
    check_blobs(plan)
    assert len(plan.blobs) < 12


def test_large_arguments_make_blobs_of_bounded_size() -> None:
    graph = {f"x-{i}": (len, bytes(200_000)) for i in range(200)}
    graph = {f"x-{i}": (len, bytes([i % 256]) * 200_000) for i in range(200)}
    plan = lower(graph, list(graph)).plan
    check_blobs(plan)
    assert len(plan.blobs) > 4
    assert max(map(len, plan.blobs)) <= MAX_BLOB_BYTES


def test_what_is_of_main_travels_by_value(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    blob = tmp_path / "blob"
    script.write_text(
        "import sys\n"
        "from graphvine.dask_adapter.lower import lower\n"
        "def twice(x): return helper(x) * 2\n"
        "def helper(x): return x + 1\n"
        "open(sys.argv[1], 'wb').write(lower({'a': (twice, 3)}, ['a']).plan.blobs[0])\n"
    )
    subprocess.run([sys.executable, str(script), str(blob)], check=True)
    assert run(pickle.loads(blob.read_bytes())[0], ()) == 8


def test_modules_in_memory_travel_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_in_memory")
    exec("def three():\n    return 3\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_in_memory", module)
    found = Found(by_value=("made_in_memory",))
    plain = lower({"a": (module.three,)}, ["a"], found=found).plan.blobs[0]
    closure = lower({"a": (lambda: module.three(),)}, ["a"], found=found).plan.blobs[0]
    monkeypatch.delitem(sys.modules, "made_in_memory")
    assert run(pickle.loads(plain)[0], ()) == 3
    assert run(pickle.loads(closure)[0], ()) == 3
    assert not cloudpickle.list_registry_pickle_by_value()


def test_plain_pickle_where_it_holds() -> None:
    assert dump((inc, 1)) == pickle.dumps((inc, 1), protocol=5)


def test_code_names_modules_worth_importing() -> None:
    np = pytest.importorskip("numpy")

    def with_global(x: Any) -> Any:
        return np.sum(x)

    plan = lower({"a": (inc, np.ones(3)), "b": (with_global, 1), "c": (inc, 1)}, ["a", "b", "c"]).plan
    assert any(name.startswith("numpy") for name in plan.code.imports)
    assert not any(name.startswith("graphvine") for name in plan.code.imports)
    nothing = lower({"c": (sum, [1])}, ["c"]).plan
    assert nothing.code.imports == ()
    assert nothing.code.name == ""


def test_code_has_the_users_modules() -> None:
    found = Found("abc", b"archive")
    first = lower({"c": (sum, [1])}, ["c"], found=found).plan.code
    other = lower({"c": (sum, [1])}, ["c"], found=Found("xyz", b"archive2")).plan.code
    assert first.modules == b"archive"
    assert first.name not in ("", other.name)
