"""Plans with a set-up and variables of their own, on real managers and workers."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from graphvine.manager.manager import Manager
from graphvine.manager.plan import Code, Plan
from graphvine.protocol.errors import LibraryError
from graphvine.protocol.libraries import Setup, dump_setup
from graphvine.worker import library
from graphvine.worker.library import load_variable

pytestmark = pytest.mark.usefixtures("by_value")


def calls(code: Code, *entries: tuple[Callable[..., Any], tuple[Any, ...]]) -> Plan:
    """A plan of independent calls."""
    count = len(entries)
    return Plan(
        keys=list(range(count)),
        inputs=[()] * count,
        blobs=[cloudpickle.dumps([(function, arguments, ()) for function, arguments in entries])],
        blob_of=[0] * count,
        blob_index=list(range(count)),
        categories=["call"],
        category_of=[0] * count,
        wanted=list(range(count)),
        code=code,
    )


def with_setup(name: str, function: Callable[..., Any] | None, *args: Any, **functions: Any) -> Code:
    return Code(setup=dump_setup(Setup(function, args, functions=functions)), setup_name=name)


def test_a_set_up_runs_once_per_worker_and_plans_share_it(manager: Manager, tmp_path: Path) -> None:
    counter = tmp_path / "counter"

    def set_up(path: str) -> dict[str, Any]:
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")
        return {"offset": 100}

    code = with_setup("fits", set_up, str(counter), shift=lambda x: x + load_variable("offset"))
    for _ in range(2):
        plan = calls(code, *[(library.call_named, ("shift", (i,), {})) for i in range(50)])
        assert manager.run(plan).result() == [100 + i for i in range(50)]
    assert len(counter.read_text().splitlines()) == 1


def test_variables_are_those_of_the_plan_alone(manager: Manager) -> None:
    ask = (os.getenv, ("GVT_MODE",))
    plans = [calls(Code(variables=(("GVT_MODE", mode),)), ask, ask) for mode in ("fast", "slow")]
    runs = [manager.run(plan) for plan in [*plans, calls(Code(), ask)]]
    assert [run.result() for run in runs] == [["fast"] * 2, ["slow"] * 2, [None]]


def test_variables_may_be_long(manager: Manager) -> None:
    text = "x" * 100_000
    assert manager.run(calls(Code(variables=(("GVT_LONG", text),)), (os.getenv, ("GVT_LONG",)))).result() == [
        text
    ]


def test_a_set_up_that_raises_fails_its_plan_with_the_reason_and_nobody_else(manager: Manager) -> None:
    def set_up() -> None:
        raise OSError("no calibration at /nowhere")

    good = manager.run(calls(with_setup("good", lambda: {"x": 1}), *[(load_variable, ("x",))] * 20))
    bad = manager.run(calls(with_setup("bad", set_up), (load_variable, ("x",))))
    with pytest.raises(LibraryError, match=r"library bad could not be started.*no calibration") as caught:
        bad.result()
    assert "in set_up" in str(caught.value.__cause__)
    assert good.result() == [1] * 20


def test_a_set_up_that_kills_its_process_is_given_up_with_the_reason(manager: Manager) -> None:
    run = manager.run(calls(with_setup("crashing", lambda: os._exit(9)), (load_variable, ("x",))))
    with pytest.raises(LibraryError, match=r"library crashing could not be started.*exited with code 9"):
        run.result()
    assert manager.run(calls(Code(), (abs, (-1,)))).result() == [1]


def test_calls_in_children_fail_alone(manager: Manager) -> None:
    def work(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return load_variable("base") + x  # type: ignore[no-any-return]

    code = with_setup("fits", lambda: {"base": 10}, work=work)
    entry = library.call_named_forked
    assert manager.run(calls(code, *[(entry, ("work", (x,), {})) for x in (1, 2)])).result() == [11, 12]
    with pytest.raises(ValueError, match="three"):
        manager.run(calls(code, (entry, ("work", (3,), {})))).result()


def test_a_name_that_is_not_there_is_told_with_those_that_are(manager: Manager) -> None:
    code = with_setup("fits", lambda: {"base": 10}, work=abs)
    with pytest.raises(LookupError, match="no function 'wrok'; it has: work"):
        manager.run(calls(code, (library.call_named, ("wrok", (), {})))).result()
    with pytest.raises(KeyError, match="there are: base"):
        manager.run(calls(code, (load_variable, ("bsae",)))).result()


def test_results_pass_between_a_library_and_other_tasks(manager: Manager) -> None:
    kept = manager.run(calls(with_setup("fits", lambda: {"x": 5}), (load_variable, ("x",))), keep=True)
    (file,) = kept.files()
    kept.result()
    plan = calls(Code(), (pow, (None, 2)))
    plan.externals = [file]
    plan.inputs = [(-1,)]
    plan.blobs = [pickle.dumps([(pow, (None, 2), (0,))])]
    assert manager.run(plan).result() == [25]
    manager.release([file])


def test_other_tasks_go_on_while_a_library_starts(manager: Manager, tmp_path: Path) -> None:
    """Its calls, more of them than are given to a worker, were there first."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def set_up(path: str) -> dict[str, Any]:
        with open(path) as file:
            return {"offset": int(file.read())}

    code = with_setup("slow", set_up, str(gate), shift=lambda x: x + load_variable("offset"))
    slow = manager.run(calls(code, *[(library.call_named, ("shift", (i,), {})) for i in range(50)]))
    others = manager.run(calls(Code(), *[(abs, (-i,)) for i in range(50)]))
    assert others.result() == list(range(50))
    gate.write_text("100")
    assert slow.result() == [100 + i for i in range(50)]
