"""Plans whose tasks stand alone, with real processes."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cloudpickle
import pytest

from graphvine.manager.engine import Outcome
from graphvine.manager.manager import Manager
from graphvine.manager.plan import GivenValue, Plan
from graphvine.protocol import values
from graphvine.protocol.outcomes import Failed
from graphvine.worker.scratch import set_note

Call = tuple[Callable[..., Any], tuple[Any, ...]]


@pytest.fixture(autouse=True, scope="module")
def by_value() -> Iterator[None]:
    """The workers of these tests don't find this module."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def plan_of(calls: Sequence[Call], inputs: Sequence[tuple[int, ...]] | None = None, **more: Any) -> Plan:
    """A separate plan of calls, each with its inputs' values in front of its arguments."""
    size = len(calls)
    entries = [(with_inputs, (function, arguments), None) for function, arguments in calls]
    fields: dict[str, Any] = {
        "keys": [f"t{task}" for task in range(size)],
        "inputs": list(inputs or [()] * size),
        "blobs": [cloudpickle.dumps(entries)],
        "blob_of": [0] * size,
        "blob_index": list(range(size)),
        "categories": ["work"],
        "category_of": [0] * size,
        "wanted": list(range(size)),
        "separate": True,
    }
    return Plan(**{**fields, **more})


def with_inputs(inputs: Sequence[Any], function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    return function(*inputs, *arguments)


def outcomes_of(manager: Manager, plan: Plan, keep: bool = False) -> list[Outcome]:
    """Run a plan, and what became of each wanted task."""
    told: queue.Queue[Outcome] = queue.Queue()
    run = manager.run(plan, keep=keep)
    run.add_outcome_callback(told.put)
    found = [told.get(timeout=60) for _ in plan.wanted]
    return sorted(found, key=lambda outcome: outcome.position)


def double(value: Any) -> Any:
    return value if isinstance(value, Failed) else 2 * value


def trouble() -> None:
    raise ValueError("trouble")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def noted(fails: bool) -> int:
    set_note(b"a word")
    if fails:
        raise ValueError("with a note")
    return 1


def test_each_task_ends_in_its_own_way(manager: Manager) -> None:
    plan = plan_of(
        [(double, (4,)), (trouble, ()), (die, ()), (os.getpid, ()), (double, ())], [(), (), (), (), (1,)]
    )
    good, raised, killed, other, after = outcomes_of(manager, plan)
    assert (good.ok, values.loads_inline(good.value or b"")) == (True, 8)
    assert (raised.ok, raised.kind, str(pickle.loads(raised.error))) == (False, "raised", "trouble")
    assert (killed.kind, killed.tries) == ("killed", 3)
    assert killed.text.count("SIGKILL") == 3
    assert other.ok
    assert other.worker
    failure = values.loads_inline(after.value or b"")
    assert isinstance(failure, Failed)
    assert "trouble" in failure.text


def test_results_of_a_run_have_the_failures_in_their_places(manager: Manager) -> None:
    result = manager.run(plan_of([(double, (1,)), (trouble, ())])).result(60)
    assert result[0] == 2
    assert isinstance(result[1], Failed)


def test_notes_arrive_whatever_becomes_of_the_result(manager: Manager) -> None:
    plan = plan_of([(noted, (False,)), (noted, (True,)), (double, (1,))])
    assert [outcome.note for outcome in outcomes_of(manager, plan)] == [b"a word", b"a word", b""]


def test_given_values_are_inputs(manager: Manager) -> None:
    given = {0: GivenValue(pickle.dumps(21))}
    kept = manager.run(plan_of([(double, ())] * 2, [(), (0,)], given=given), keep=True)
    assert manager.fetch(kept.files()) == [21, 42]
    manager.release(kept.files())


def test_a_cancelled_task_is_stopped_and_the_others_go_on(manager: Manager) -> None:
    told: queue.Queue[Outcome] = queue.Queue()
    run = manager.run(plan_of([(time.sleep, (600,)), (double, (2,))]), keep=True)
    run.add_outcome_callback(told.put)
    assert told.get(timeout=60).position == 1
    manager.cancel_tasks(run.files()[:1])
    assert told.get(timeout=60).kind == "cancelled"
    assert manager.run(plan_of([(double, (3,))])).result(60) == [6]
