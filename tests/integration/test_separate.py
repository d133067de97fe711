"""Plans whose tasks stand alone, with real processes."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from tests.integration.conftest import StartWorker

from graphvine.manager.engine import Outcome
from graphvine.manager.manager import Manager
from graphvine.manager.plan import GivenFile, GivenValue, Plan, TaskOptions
from graphvine.protocol import values
from graphvine.protocol.errors import GivenFileError, TaskKilledError, TaskTimeoutError
from graphvine.protocol.given_files import stamp_of
from graphvine.protocol.outcomes import Failed
from graphvine.worker.scratch import set_note

Call = tuple[Callable[..., Any], tuple[Any, ...]]


pytestmark = pytest.mark.usefixtures("by_value")


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


# -- files of the manager's machine ---------------------------------------------------------------------


def read(tree: Any) -> Any:
    if isinstance(tree, Failed):
        return tree
    root = Path(tree.path)
    if root.is_file():
        return root.read_bytes()
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def given_file(path: Path) -> GivenFile:
    return GivenFile(str(path), path.stat().st_size, stamp=stamp_of(str(path)))


def test_a_given_file_or_directory_is_an_input(manager: Manager, tmp_path: Path) -> None:
    file, directory = tmp_path / "file", tmp_path / "directory"
    file.write_bytes(os.urandom(3_000_000))
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "one").write_bytes(b"1")
    (directory / "two").write_bytes(b"2" * 2_000_000)
    given = {0: given_file(file), 1: GivenFile(str(directory), 0)}
    plan = plan_of([(read, ())] * 4, [(), (), (0,), (1,)], given=given, wanted=[2, 3])
    content, contents = manager.run(plan).result(60)
    assert content == file.read_bytes()
    assert contents == {"sub/one": b"1", "two": b"2" * 2_000_000}


def test_a_worker_on_the_managers_node_reads_a_given_file_itself(manager: Manager, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3_000_000))
    plan = plan_of([(read, ())] * 2, [(), (0,)], given={0: given_file(file)}, wanted=[1])
    assert manager.run(plan).result(60) == [file.read_bytes()]
    assert manager._loop._giver._thread is None, "nothing went through the manager"


def test_what_a_worker_on_the_managers_node_cannot_read_goes_through_the_manager(
    manager: Manager, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3_000_000))
    descriptor = os.open(file, os.O_RDONLY)
    try:
        # A path that means this file to the manager's process only.
        given = {0: given_file(Path(f"/proc/self/fd/{descriptor}"))}
        plan = plan_of([(read, ())] * 2, [(), (0,)], given=given, wanted=[1])
        assert manager.run(plan).result(60) == [file.read_bytes()]
        assert manager._loop._giver._thread is not None
    finally:
        os.close(descriptor)


def test_given_files_go_from_worker_to_worker(
    bare_manager: Manager, start_worker: StartWorker, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(5_000_000))
    for number in range(3):
        start_worker(bare_manager, name=f"w{number}")
    given = {0: given_file(file)}
    only = {task: TaskOptions(workers=(f"w{task - 1}",)) for task in (1, 2, 3)}
    plan = plan_of([(read, ())] * 4, [(), (0,), (0,), (0,)], given=given, options=only)
    run = bare_manager.run(plan, keep=True)
    run.result(60)
    source, *copies = run.files()
    assert bare_manager.replicas(source) == 3
    assert all(content == file.read_bytes() for content in bare_manager.fetch(copies))
    bare_manager.prune([source])
    assert bare_manager.replicas(source) == 0
    (tree,) = bare_manager.fetch([source])
    assert Path(tree.path).read_bytes() == file.read_bytes()
    assert tree.path != str(file), "theirs who fetched it, not the user's own file"


@pytest.mark.parametrize("what", ["changed", "vanished"])
def test_a_given_file_that_is_not_what_it_was_fails_clearly(
    manager: Manager, tmp_path: Path, what: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    given = {0: given_file(file)}
    if what == "changed":
        file.write_bytes(bytes(200_000))
    else:
        file.unlink()
    plan = plan_of([(read, ()), (read, ()), (double, (1,))], [(), (0,), ()], given=given, wanted=[1, 2])
    failed, good = manager.run(plan).result(60)
    assert (failed.kind, good) == ("missing", 2)
    assert str(file) in failed.text
    assert ("since it was declared" in failed.text) == (what == "changed")
    plan.separate = False
    with pytest.raises(GivenFileError, match=str(file)):
        manager.run(plan).result(60)


def test_a_file_of_values_can_be_given(manager: Manager, tmp_path: Path) -> None:
    file = tmp_path / "values"
    data, buffers = values.dumps(list(range(100_000)))
    file.write_bytes(b"".join(values.layout(data, buffers)))
    given = {0: GivenFile(str(file), file.stat().st_size, tree=False)}
    run = manager.run(plan_of([(sum, ())] * 2, [(), (0,)], given=given), keep=True)
    assert manager.fetch(run.files()) == [list(range(100_000)), sum(range(100_000))]


# -- what tasks ask for ---------------------------------------------------------------------------------


def test_a_task_that_runs_for_too_long_is_stopped(manager: Manager) -> None:
    plan = plan_of([(time.sleep, (600,)), (double, (1,))], default_options=TaskOptions(max_s=0.3))
    slow, quick = outcomes_of(manager, plan)
    assert (slow.kind, quick.ok) == ("timeout", True)
    plan.separate = False
    with pytest.raises(TaskTimeoutError, match=r"than the 0\.3 s"):
        manager.run(plan).result(60)


def test_a_task_runs_where_its_feature_is(bare_manager: Manager, start_worker: StartWorker) -> None:
    start_worker(bare_manager, 1, "plain")
    start_worker(bare_manager, 1, "able", "--feature", "root", "--feature", "gcc")
    plan = plan_of([(double, (1,))] * 6, default_options=TaskOptions(features=("gcc",)))
    assert {outcome.worker for outcome in outcomes_of(bare_manager, plan)} == {"able"}


def test_a_blocked_host_gets_no_tasks(bare_manager: Manager, start_worker: StartWorker) -> None:
    bare_manager.block_host("bad")
    start_worker(bare_manager, 1, "bad")
    start_worker(bare_manager, 1, "good")
    plan = plan_of([(double, (1,))] * 20)
    assert {outcome.worker for outcome in outcomes_of(bare_manager, plan)} == {"good"}


def test_nobody_begins_before_as_many_are_there_as_were_asked_for(
    bare_manager: Manager, start_worker: StartWorker
) -> None:
    start_worker(bare_manager, 1, "first")
    bare_manager.run(plan_of([(double, (1,))])).result(60)
    assert bare_manager.tune("wait-for-workers", 2) == 0
    run = bare_manager.run(plan_of([(double, (2,))]))
    start_worker(bare_manager, 1, "second")
    run.result(60)
    assert bare_manager.stats.workers_connected == 2


# -- calls ----------------------------------------------------------------------------------------------


def leave_mark(directory: str, number: int, fatal: bool) -> int:
    with open(Path(directory, str(number)), "a") as file:
        file.write("x")
    if fatal:
        die()
    return number


def test_a_call_that_kills_its_process_fails_alone_and_no_other_is_run_again(
    manager: Manager, tmp_path: Path
) -> None:
    with manager.executor() as executor:
        futures = [executor.submit(leave_mark, str(tmp_path), number, number == 7) for number in range(30)]
        built_on_it = executor.submit(double, futures[7])
        assert isinstance(futures[7].exception(60), TaskKilledError)
        assert isinstance(built_on_it.exception(60), TaskKilledError)
        assert [f.result(60) for f in futures if f is not futures[7]] == [n for n in range(30) if n != 7]
    runs = {int(path.name): path.stat().st_size for path in tmp_path.glob("[0-9]*")}
    assert runs.pop(7) == 3
    assert set(runs.values()) == {1}
