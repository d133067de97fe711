"""What a worker is given, when, and with what."""

from __future__ import annotations

from graphvine.manager.core import Core
from graphvine.manager.instructions import Instruction, PlanDone, Say
from graphvine.manager.plan import Code, TaskOptions
from graphvine.manager.rehearsal import Rehearsal, plan_of
from graphvine.manager.settings import Settings
from graphvine.protocol.messages import Assign, Resources, Source, Welcome


def assigned(instructions: list[Instruction], worker: int) -> Assign | None:
    for said in instructions:
        if isinstance(said, Say) and said.worker == worker:
            for message in said.messages:
                if isinstance(message, Assign):
                    return message
    return None


def orders(instructions: list[Instruction], worker: int) -> list[int]:
    assign = assigned(instructions, worker)
    return [order.task for order in assign.orders] if assign else []


def test_a_worker_is_welcomed_with_the_settings_both_must_share(cluster: Rehearsal) -> None:
    cluster.join()
    (said,) = cluster.turn()
    shared = cluster.core.settings
    welcome = Welcome(1, shared.heartbeat_s, shared.inline_bytes, silent_s=shared.silent_s)
    assert said == Say(1, [welcome])


def test_unmeasured_tasks_are_given_two_a_core(cluster: Rehearsal) -> None:
    cluster.join(cores=3)
    base = cluster.run(plan_of([()] * 100, wanted=list(range(100))))
    assert orders(cluster.turn(), 1) == list(range(base, base + 6))


def test_measured_tasks_are_given_a_window_s_worth(cluster: Rehearsal) -> None:
    cluster.duration_s = 0.004
    cluster.join(cores=1)
    cluster.run(plan_of([()] * 200, wanted=list(range(200))))
    cluster.step()
    assert len(orders(cluster.turn(), 1)) == 25


def test_a_chain_is_given_at_once_to_the_worker_that_has_its_beginning(cluster: Rehearsal) -> None:
    cluster.join(cores=2)
    cluster.join(cores=2)
    base = cluster.run(plan_of([(), (0,), (1,)]))
    first = cluster.turn()
    assert orders(first, 1) + orders(first, 2) == [base, base + 1, base + 2]
    assert not (orders(first, 1) and orders(first, 2))


def test_a_task_with_inputs_on_two_workers_waits_until_they_exist(cluster: Rehearsal) -> None:
    cluster.join()
    cluster.join()
    base = cluster.run(plan_of([(), (), (0,), (1,), (2, 3)]))
    first = cluster.turn()
    given = orders(first, 1) + orders(first, 2)
    assert sorted(given) == [base, base + 1, base + 2, base + 3]
    assert orders(first, 1)
    assert orders(first, 2)
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_small_inputs_ride_along_large_ones_are_named(cluster: Rehearsal) -> None:
    cluster.join()
    cluster.join()
    base = cluster.run(plan_of([(), (), (0,), (1,), (2, 3)]), large=[2])
    cluster.turn()
    cluster.react()
    instructions = cluster.turn()
    # The sum runs where the large summand is; the small one is sent there.
    (holder,) = cluster.core.holders(base + 2)
    assign = assigned(instructions, holder)
    assert assign is not None
    assert assign.values == {base + 3: cluster.values[base + 3]}
    assert assign.sources == []


def test_blobs_and_contexts_go_to_a_worker_once(cluster: Rehearsal) -> None:
    cluster.join()
    code = Code("abc", b"zip", ("json",))
    cluster.run(plan_of([(), ()], wanted=[0, 1], code=code))
    assign = assigned(cluster.turn(), 1)
    assert assign is not None
    assert [blob.data for blob in assign.blobs] == [b"blob"]
    assert [context.name for context in assign.contexts] == ["abc"]
    assert assign.blobs[0].context == assign.contexts[0].context
    cluster.settle()
    cluster.run(plan_of([(), ()], wanted=[0, 1], code=code))
    again = assigned(cluster.turn(), 1)
    assert again is not None
    assert len(again.blobs) == 1
    assert again.contexts == []


def test_a_large_blob_comes_from_a_worker_that_has_it(cluster: Rehearsal) -> None:
    cluster.join()
    blob = b"x" * 2**21
    base = cluster.run(plan_of([()] * 20, wanted=list(range(20)), blobs=[blob]))
    first = assigned(cluster.turn(), 1)
    assert first is not None
    assert first.blobs[0].data is None, "however large, it does not go with the orders"
    assert first.sources == [Source(base + 20, 2**21, [])]
    assert cluster.core.blob(base + 20) == blob
    assert cluster.core.blob(base) is None
    cluster.deliver_to_worker(1)
    cluster.workers[1].fetch(base + 20)
    cluster.workers[1].send()
    cluster.deliver_to_manager(1)
    cluster.join()
    assign = assigned(cluster.turn(), 2)
    assert assign is not None
    assert assign.blobs[0].data is None
    (source,) = assign.sources
    assert (source.file, source.size, source.holders) == (base + 20, 2**21, [1])
    assert assign.peers == {1: cluster.workers[1].hello.addresses}
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_a_large_blob_that_cannot_be_fetched_is_sent(cluster: Rehearsal) -> None:
    cluster.join()
    base = cluster.run(plan_of([()] * 20, wanted=list(range(20)), blobs=[b"x" * 2**21]))
    cluster.turn()
    cluster.deliver_to_worker(1)
    cluster.workers[1].fetch(base + 20)
    cluster.workers[1].send()
    cluster.deliver_to_manager(1)
    cluster.join()
    cluster.cuts.add((2, 1))
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert cluster.workers[2].ran


def test_requests_are_told_and_go_only_where_they_fit(cluster: Rehearsal) -> None:
    cluster.join(cores=1)
    cluster.join(cores=4)
    wish = Resources(cores=2, memory_mb=500)
    base = cluster.run(plan_of([()] * 3, wanted=[0, 1, 2], options={1: TaskOptions(request=wish)}))
    instructions = cluster.turn()
    big = assigned(instructions, 2)
    assert big is not None
    assert big.requests == {base + 1: wish}
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert base + 1 in cluster.workers[2].ran


def test_a_restricted_task_runs_only_where_it_may(cluster: Rehearsal) -> None:
    for name in ("ant", "bee", "cat"):
        cluster.join(name=name)
    base = cluster.run(
        plan_of([()] * 12, wanted=list(range(12)), default_options=TaskOptions(workers=("bee", "host3")))
    )
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)
    assert cluster.workers[1].ran == []


def test_a_mere_preference_is_heeded_and_gives_way(cluster: Rehearsal) -> None:
    cluster.join(name="ant")
    cluster.join(name="bee")
    wish = TaskOptions(workers=("bee",), allow_other_workers=True)
    base = cluster.run(plan_of([()] * 2, wanted=[0, 1], default_options=wish))
    cluster.settle()
    assert cluster.workers[2].ran == [base, base + 1]
    other = cluster.run(
        plan_of([()], default_options=TaskOptions(workers=("nobody",), allow_other_workers=True))
    )
    cluster.settle()
    assert isinstance(cluster.over[other], PlanDone)


def test_priority_comes_before_plan_order_and_earlier_plans_before_later_ones() -> None:
    cluster = Rehearsal(Core(Settings(checked=True, ahead_per_core=1, window_s=0.0001)))
    first = cluster.run(plan_of([()] * 3, wanted=[0, 1, 2], options={2: TaskOptions(priority=1)}))
    second = cluster.run(plan_of([()] * 2, wanted=[0, 1]))
    urgent = cluster.run(plan_of([()], default_options=TaskOptions(priority=5)))
    worker = cluster.join()
    cluster.settle()
    assert worker.ran == [urgent, first + 2, first, first + 1, second, second + 1]


def test_an_urgent_plan_overtakes_what_is_kept_for_a_worker(cluster: Rehearsal) -> None:
    worker = cluster.join()
    cluster.run(plan_of([()] * 50, wanted=list(range(50))))
    cluster.turn()
    urgent = cluster.run(plan_of([()], default_options=TaskOptions(priority=1)))
    cluster.settle()
    assert worker.ran.index(urgent) == 2


def test_an_urgent_task_among_others_of_its_plan_overtakes_what_is_kept_for_a_worker(
    cluster: Rehearsal,
) -> None:
    worker = cluster.join()
    cluster.run(plan_of([()] * 50, wanted=list(range(50))))
    cluster.turn()
    mixed = cluster.run(plan_of([()] * 2, wanted=[0, 1], options={1: TaskOptions(priority=1)}))
    cluster.settle()
    assert worker.ran.index(mixed + 1) == 2
    assert worker.ran.index(mixed) > 10
