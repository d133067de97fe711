"""Work that nobody can run: warnings, and the end of patience."""

from __future__ import annotations

from graphvine.manager.core import Core
from graphvine.manager.instructions import PlanFailed
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.manager.rehearsal import Rehearsal
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Resources


def plan_of(options: TaskOptions) -> Plan:
    return Plan(["big"], [()], [b"blob"], [0], [0], ["work"], [0], [0], default_options=options)


def test_without_any_worker_there_is_a_warning_and_no_end(cluster: Rehearsal) -> None:
    base = cluster.run(plan_of(TaskOptions()))
    cluster.wait(10_000)
    assert [note.text for note in cluster.notes] == ["no worker has joined; task 'big' and others wait"]
    assert base not in cluster.over
    cluster.join()
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_the_warning_says_what_to_do() -> None:
    cluster = Rehearsal(Core(Settings(how_to_join="do this")))
    cluster.run(plan_of(TaskOptions()))
    cluster.wait(20)
    assert [note.text.rpartition("; ")[2] for note in cluster.notes] == ["do this"]


def test_a_task_too_large_for_every_worker_fails_in_the_end(cluster: Rehearsal) -> None:
    cluster.join(cores=4)
    cluster.join(cores=2, memory_mb=8000.0)
    base = cluster.run(plan_of(TaskOptions(request=Resources(8, 100))))
    cluster.wait(20)
    (note,) = cluster.notes
    assert "task 'big' asks for 8 cores, 100 MB of memory" in note.text
    assert "the largest has 4 cores, 8000 MB of memory" in note.text
    assert base not in cluster.over
    cluster.wait(200)
    failed = cluster.over[base]
    assert isinstance(failed, PlanFailed)
    assert (failed.kind, failed.text) == ("unrunnable", note.text)


def test_a_name_nobody_has_is_named(cluster: Rehearsal) -> None:
    cluster.join()
    cluster.run(plan_of(TaskOptions(workers=("zebra",))))
    cluster.wait(20)
    assert "on a worker or host named zebra" in cluster.notes[0].text


def test_a_worker_that_fits_ends_the_waiting(cluster: Rehearsal) -> None:
    cluster.join()
    base = cluster.run(plan_of(TaskOptions(request=Resources(8))))
    cluster.wait(100)
    cluster.join(cores=8)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_pools_of_special_tasks_go_with_their_plans(cluster: Rehearsal) -> None:
    cluster.join(cores=8)
    for cores in range(2, 8):
        cluster.run(plan_of(TaskOptions(request=Resources(cores))))
    cluster.settle()
    assert len(cluster.core.state.pools) == 0
    assert cluster.core.state.workers[1].pools == []
