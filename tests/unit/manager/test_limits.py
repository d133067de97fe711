"""Named limits."""

from __future__ import annotations

from graphvine.manager import rehearsal
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.manager.rehearsal import Rehearsal
from graphvine.protocol.messages import Turn

SLOW = TaskOptions(limit="server")


def plan_of(inputs: list[tuple[int, ...]], options: dict[int, TaskOptions], **more: object) -> Plan:
    """All of it is wanted."""
    return rehearsal.plan_of(inputs, range(len(inputs)), options=options, **more)


def given_out(cluster: Rehearsal) -> dict[int, int]:
    """Tasks that workers were given, and to whom."""
    cluster.turn()
    for number in cluster.workers:
        cluster.deliver_all_to_worker(number)
    return {
        task: worker.number for worker in cluster.workers.values() for task in [*worker.orders, *worker.begun]
    }


def end(cluster: Rehearsal, task: int, kind: str = "") -> None:
    worker = cluster.workers[given_out(cluster)[task]]
    worker.begin(task)
    if kind:
        worker.fail(task, kind)
    else:
        worker.finish(task)
    worker.send()
    cluster.deliver_to_manager(worker.number)


def test_only_so_many_run_at_once_on_all_workers_together(cluster: Rehearsal) -> None:
    for _ in range(3):
        cluster.join(cores=4)
    cluster.core.on_limit("server", 2, 0.0)
    base = cluster.run(plan_of([()] * 6, dict.fromkeys(range(5), SLOW)))
    assert sorted(given_out(cluster)) == [base, base + 1, base + 5]
    end(cluster, base)
    assert sorted(given_out(cluster)) == [base + 1, base + 2, base + 5]
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_task_counts_while_it_is_tried_again_and_no_longer_than_its_plan(cluster: Rehearsal) -> None:
    cluster.join(cores=4)
    cluster.core.on_limit("server", 1, 0.0)
    again = TaskOptions(limit="server", retries=1)
    base = cluster.run(plan_of([()] * 3, {}, default_options=again, separate=True))
    end(cluster, base, "raised")
    assert sorted(given_out(cluster)) == [base]
    end(cluster, base, "raised")
    assert sorted(given_out(cluster)) == [base + 1]
    other = cluster.run(plan_of([()], {0: SLOW}))
    cluster.core.on_cancel_plan(base, 0.0)
    assert sorted(given_out(cluster)) == [other]


def test_a_lost_worker_and_a_changed_limit(cluster: Rehearsal) -> None:
    first = cluster.join(cores=4)
    cluster.core.on_limit("server", 2, 0.0)
    base = cluster.run(plan_of([()] * 6, {}, default_options=SLOW))
    assert len(given_out(cluster)) == 2
    second = cluster.join(cores=4)
    cluster.kill(first.number)
    assert given_out(cluster) == {base: second.number, base + 1: second.number}
    cluster.core.on_limit("server", 1, 0.0)
    end(cluster, base)
    assert sorted(given_out(cluster)) == [base + 1]
    cluster.core.on_limit("server", 3, 0.0)
    assert len(given_out(cluster)) == 3
    cluster.core.on_limit("server", None, 0.0)
    assert len(given_out(cluster)) == 5
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_what_waits_for_inputs_is_not_given_ahead_of_its_limit(cluster: Rehearsal) -> None:
    cluster.join(cores=4)
    cluster.core.on_limit("server", 1, 0.0)
    base = cluster.run(plan_of([(), (), (0,), (1,)], {2: SLOW, 3: SLOW}))
    assert sorted(given_out(cluster)) == [base, base + 1]
    end(cluster, base)
    end(cluster, base + 1)
    assert sorted(given_out(cluster)) == [base + 2]
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_name_without_a_limit_lets_everybody_through(cluster: Rehearsal) -> None:
    cluster.join(cores=4)
    cluster.run(plan_of([()] * 3, dict.fromkeys(range(3), SLOW)))
    assert len(given_out(cluster)) == 3


def ask(cluster: Rehearsal, task: int, reply: str = "") -> None:
    """A task that was given away asks for its turn, or gives it back."""
    worker = given_out(cluster)[task]
    cluster.core.on_message(worker, Turn(task, "server", reply), cluster.now)


def answered(cluster: Rehearsal) -> list[str]:
    given_out(cluster)
    return [reply for worker in cluster.workers.values() for reply in worker.turns]


def test_what_workers_have_when_a_limit_is_first_set_counts_and_goes_on(cluster: Rehearsal) -> None:
    cluster.join(cores=1)
    base = cluster.run(plan_of([()] * 20, {}, default_options=SLOW))
    first, second = sorted(given_out(cluster))
    cluster.core.on_limit("server", 1, 0.0)
    end(cluster, first)
    assert sorted(given_out(cluster)) == [second]
    end(cluster, second)
    assert len(given_out(cluster)) == 1
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_running_tasks_take_turns(cluster: Rehearsal) -> None:
    cluster.join(cores=3)
    cluster.core.on_limit("server", 1, 0.0)
    base = cluster.run(plan_of([()] * 3, {}))
    for task in range(3):
        ask(cluster, base + task, f"of {task}")
    assert answered(cluster) == ["of 0"]
    ask(cluster, base + 0)
    assert answered(cluster) == ["of 0", "of 1"]
    # One that ends without a word has no turn any more.
    end(cluster, base + 1)
    assert answered(cluster) == ["of 0", "of 1", "of 2"]
    ask(cluster, base + 0, "again")
    assert "again" not in answered(cluster)
    ask(cluster, base + 2)
    assert "again" in answered(cluster)
    cluster.settle()


def test_who_has_its_turn_counts_with_those_who_were_let_through_before(cluster: Rehearsal) -> None:
    cluster.join(cores=4)
    cluster.core.on_limit("server", 2, 0.0)
    base = cluster.run(plan_of([()] * 4, {1: SLOW, 2: SLOW, 3: SLOW}))
    assert sorted(given_out(cluster)) == [base, base + 1, base + 2]
    ask(cluster, base, "mine")
    assert answered(cluster) == []
    end(cluster, base + 1)
    assert answered(cluster) == ["mine"]
    assert sorted(given_out(cluster)) == [base, base + 2], "who asks goes first"
    ask(cluster, base)
    assert sorted(given_out(cluster)) == [base, base + 2, base + 3]
    cluster.settle()


def test_turns_of_lost_workers_and_cancelled_tasks_are_over(cluster: Rehearsal) -> None:
    first = cluster.join(cores=2)
    cluster.core.on_limit("server", 1, 0.0)
    base = cluster.run(plan_of([()] * 2, {}, separate=True))
    given_out(cluster)
    second = cluster.join(cores=2)
    other = cluster.run(plan_of([()], {}))
    assert given_out(cluster) == {base: first.number, base + 1: first.number, other: second.number}
    for task in (base, base + 1, other):
        ask(cluster, task, f"of {task}")
    assert answered(cluster) == [f"of {base}"]
    cluster.core.on_cancel_tasks([base + 1], cluster.now)
    cluster.kill(first.number)
    given_out(cluster)
    assert second.turns == [f"of {other}"]
    cluster.settle()


def test_without_a_limit_it_is_everybodys_turn(cluster: Rehearsal) -> None:
    cluster.join(cores=2)
    base = cluster.run(plan_of([()] * 2, {}))
    ask(cluster, base, "first")
    assert answered(cluster) == ["first"]
    cluster.core.on_limit("server", 1, 0.0)
    ask(cluster, base, "second")
    ask(cluster, base + 1, "third")
    assert answered(cluster) == ["first", "second"]
    cluster.core.on_limit("server", None, 0.0)
    assert answered(cluster) == ["first", "second", "third"]
    cluster.settle()
