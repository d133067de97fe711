"""Workers that are about to leave: nothing of what they have is lost, and nothing is done twice."""

from __future__ import annotations

from graphvine.manager import rehearsal
from graphvine.manager.plan import Plan, TaskOptions
from graphvine.manager.rehearsal import FakeWorker, Rehearsal


def plan_of(inputs: list[tuple[int, ...]], **more: object) -> Plan:
    """All of it is wanted."""
    return rehearsal.plan_of(inputs, range(len(inputs)), **more)


def runs(*workers: FakeWorker) -> list[int]:
    """All that they ran, ever."""
    return sorted(task for worker in workers for task in worker.ran)


def gone(cluster: Rehearsal) -> list[int]:
    """Who was sent away."""
    return [sent.worker for sent in cluster.sent_away]


def test_kept_results_go_to_who_stays_and_nothing_is_made_again(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 10), keep=True, large=True)
    cluster.settle()
    first, second = cluster.join(), cluster.join()
    cluster.go_away(leaver.number)
    cluster.settle()
    assert gone(cluster) == [leaver.number]
    assert len(first.files) + len(second.files) == 10
    assert first.files
    assert second.files
    later = cluster.run(plan_of([(-1 - n,) for n in range(10)], externals=list(range(base, base + 10))))
    cluster.settle()
    assert cluster.results[later] == cluster.expected(later)
    assert runs(leaver) == list(range(base, base + 10)), "not once more"


def test_what_has_not_begun_goes_elsewhere_what_runs_is_waited_for(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 6 + [(0,)]), large=True)
    cluster.turn()
    cluster.deliver_to_worker(leaver.number)
    leaver.begin(base)
    other = cluster.join()
    cluster.go_away(leaver.number)
    cluster.deliver_to_manager(leaver.number)
    for _ in range(5):
        # All but the task that has begun.
        cluster.turn()
        cluster.deliver_all_to_worker(leaver.number)
        leaver.send()
        while cluster.to_manager[leaver.number]:
            cluster.deliver_to_manager(leaver.number)
        cluster.deliver_all_to_worker(other.number)
    assert gone(cluster) == []
    assert len(other.orders) == 2
    leaver.finish(base)
    cluster.settle()
    assert gone(cluster) == [leaver.number]
    assert cluster.results[base] == cluster.expected(base)
    assert leaver.ran == [base]
    assert runs(leaver, other) == list(range(base, base + 7))


def test_what_only_the_user_waits_for_goes_to_the_manager_alone(cluster: Rehearsal) -> None:
    leaver, other = cluster.join(), cluster.join()
    base = cluster.run(plan_of([()] * 3), large=True)
    while len(leaver.files) + len(other.files) < 3:
        cluster.turn()
        for worker in (leaver, other):
            cluster.deliver_all_to_worker(worker.number)
            for task in worker.can_begin():
                worker.begin(task)
                worker.finish(task)
            worker.send()
            while cluster.to_manager[worker.number]:
                cluster.deliver_to_manager(worker.number)
    held = dict(other.files)
    cluster.go_away(leaver.number)
    cluster.deliver_to_manager(leaver.number)
    cluster.turn()
    cluster.turn()
    cluster.deliver_all_to_worker(other.number)
    assert gone(cluster) == [], "its results were not fetched yet"
    assert other.fetching == {}
    assert other.files == held
    cluster.settle()
    assert gone(cluster) == [leaver.number]
    assert cluster.results[base] == cluster.expected(base)


def test_a_worker_that_takes_over_and_is_lost_is_followed_by_another(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 4), keep=True, large=True)
    cluster.settle()
    doomed = cluster.join()
    cluster.go_away(leaver.number)
    cluster.deliver_to_manager(leaver.number)
    cluster.turn()
    cluster.deliver_all_to_worker(doomed.number)
    assert len(doomed.fetching) == 4
    heir = cluster.join()
    cluster.kill(doomed.number)
    cluster.settle()
    assert gone(cluster) == [leaver.number]
    assert sorted(heir.files) == list(range(base, base + 4))


def test_who_takes_over_and_then_leaves_too_passes_it_on(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 4), keep=True, large=True)
    cluster.settle()
    second = cluster.join()
    cluster.go_away(leaver.number)
    cluster.deliver_to_manager(leaver.number)
    cluster.turn()
    cluster.deliver_all_to_worker(second.number)
    for file in list(second.fetching)[:2]:
        second.fetch(file)
    second.send()
    heir = cluster.join()
    cluster.go_away(second.number)
    cluster.settle()
    assert sorted(gone(cluster)) == [leaver.number, second.number]
    assert sorted(heir.files) == list(range(base, base + 4))
    assert runs(second, heir) == []


def test_who_cannot_get_it_is_followed_by_another(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 4), keep=True, large=True)
    cluster.settle()
    full, heir = cluster.join(), cluster.join()
    cluster.full.add(full.number)
    cluster.go_away(leaver.number)
    cluster.settle()
    assert gone(cluster) == [leaver.number]
    assert sorted(heir.files) == list(range(base, base + 4))


def test_what_no_worker_has_room_for_the_manager_takes_in(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 4), keep=True, large=True)
    cluster.settle()
    small = cluster.join(disk_mb=2.5)
    cluster.go_away(leaver.number)
    cluster.settle()
    assert gone(cluster) == [leaver.number]
    assert len(small.files) == len(cluster.staged) == 2
    fetched = cluster.core.on_wanted(range(base, base + 4), 0.0)
    cluster.settle()
    assert len(cluster.results[fetched]) == 4
    assert small.ran == []


def test_the_last_worker_leaves_everything_with_the_manager(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 4), keep=True, large=True)
    cluster.settle()
    cluster.go_away(leaver.number)
    cluster.settle()
    assert gone(cluster) == [leaver.number]
    assert len(cluster.staged) == 4
    heir = cluster.join()
    later = cluster.run(plan_of([(-1,), (-2,)], externals=[base, base + 1]))
    cluster.settle()
    assert cluster.results[later] == cluster.expected(later)
    assert heir.ran == [later, later + 1]
    cluster.core.on_release(range(base, base + 4), 0.0)
    cluster.settle()
    assert cluster.staged == [], "nobody needs it any more"


def test_what_the_manager_took_in_and_cannot_read_is_made_again(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 2), keep=True, large=True)
    cluster.settle()
    cluster.go_away(leaver.number)
    cluster.settle()
    cluster.core.on_given_lost(base, "the disk broke", 0.0)
    heir = cluster.join()
    cluster.settle()
    assert heir.ran == [base]
    assert cluster.staged == [f"staged/{base + 1}"]


def test_what_nobody_has_room_for_is_made_again(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 3), keep=True, large=True)
    cluster.settle()
    cluster.stageable = False
    cluster.go_away(leaver.number)
    cluster.settle()
    assert gone(cluster) == [leaver.number]
    heir = cluster.join()
    cluster.settle()
    assert heir.ran == [base, base + 1, base + 2]


def test_a_worker_that_is_lost_while_it_leaves_makes_nobody_suspect(cluster: Rehearsal) -> None:
    for _ in range(5):
        leaver = cluster.join()
        base = cluster.run(plan_of([()]))
        cluster.turn()
        cluster.deliver_all_to_worker(leaver.number)
        leaver.begin(base)
        cluster.go_away(leaver.number)
        cluster.deliver_to_manager(leaver.number)
        cluster.turn()
        cluster.kill(leaver.number)
        cluster.core.on_cancel_plan(base, 0.0)
        table = cluster.core.state.plan(base)
        assert table is None or not table.losses


def test_while_all_leave_the_work_waits_for_who_comes(cluster: Rehearsal) -> None:
    leaver = cluster.join()
    base = cluster.run(plan_of([()] * 3))
    cluster.turn()
    cluster.deliver_all_to_worker(leaver.number)
    leaver.begin(base)
    cluster.go_away(leaver.number)
    cluster.deliver_to_manager(leaver.number)
    cluster.wait(500.0)
    assert "about to leave" in cluster.notes[-1].text
    assert base not in cluster.over, "that is no reason to give it up"
    cluster.join()
    cluster.settle()
    assert cluster.results[base] == cluster.expected(base)


def test_an_idle_worker_may_leave_unless_it_alone_holds_what_is_needed(cluster: Rehearsal) -> None:
    holder, idle = cluster.join(), cluster.join()
    base = cluster.run(
        plan_of([()], default_options=TaskOptions(workers=(holder.hello.name,))), keep=True, large=True
    )
    cluster.settle()
    for worker in (holder, idle):
        cluster.go_away(worker.number, idle=True)
    cluster.settle()
    assert gone(cluster) == [idle.number]
    cluster.core.on_release([base], 0.0)
    cluster.go_away(holder.number, idle=True)
    cluster.settle()
    assert gone(cluster) == [idle.number, holder.number]


def test_a_worker_that_was_given_work_meanwhile_may_not_leave(cluster: Rehearsal) -> None:
    worker = cluster.join()
    base = cluster.run(plan_of([()]))
    cluster.turn()
    cluster.go_away(worker.number, idle=True)
    cluster.settle()
    assert gone(cluster) == []
    assert cluster.results[base] == cluster.expected(base)


def test_workers_retire_by_name_by_job_and_by_number(cluster: Rehearsal) -> None:
    named, _, third = cluster.join(name="a"), cluster.join(job="12.3"), cluster.join(name="c")
    assert cluster.core.on_retire(["a", "12.3", "nobody", ""], "too many", 0.0) == 2
    cluster.settle()
    assert sorted(gone(cluster)) == [named.number, 2]
    fourth = cluster.join()
    base = cluster.run(plan_of([()] * 2), keep=True, large=True)
    cluster.settle()
    assert cluster.core.on_retire_some(1, "too many", 0.0) == 1
    cluster.settle()
    assert len(gone(cluster)) == 3
    assert runs(third, fourth) == [base, base + 1]
    assert cluster.core.on_retire_some(5, "too many", 0.0) == 1


def test_who_came_and_went_is_counted(cluster: Rehearsal) -> None:
    killed, left, leaver, stays = (cluster.join() for _ in range(4))
    cluster.core.on_block_host(stays.hello.host, None, 0.0)
    cluster.kill(killed.number)
    cluster.leave(left.number)
    cluster.go_away(leaver.number)
    cluster.settle()
    stats = cluster.core.stats()
    assert (stats.joined, stats.workers) == (4, 1)
    assert (stats.lost, stats.released, stats.blocked) == (1, 1, 1)
