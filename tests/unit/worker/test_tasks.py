"""Lanes keep the order in which orders came, whatever is woken, taken and forgotten in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graphvine.protocol.messages import Resources, TaskOrder
from graphvine.worker.tasks import Job, Lane, Queue


def job(lane: Lane, sequence: int) -> Job:
    return Job(TaskOrder(sequence, 0, 0, []), lane, sequence)


@given(st.lists(st.sampled_from(["arrive", "wait", "wake", "take", "forget"]), max_size=60), st.randoms())
def test_a_lane_gives_its_jobs_in_order(steps: list[str], chance: object) -> None:
    lane = Lane("", Resources())
    ready: list[Job] = []
    waiting: list[Job] = []
    for sequence, step in enumerate(steps):
        if step == "arrive":
            ready.append(job(lane, sequence))
            lane.arrive(ready[-1])
        elif step == "wait":
            waiting.append(job(lane, sequence))
        elif step == "wake" and waiting:
            woken = waiting.pop(chance.randrange(len(waiting)))  # type: ignore[attr-defined]
            ready.append(woken)
            lane.wake(woken)
        elif step == "forget" and ready:
            lane.discard(ready.pop(chance.randrange(len(ready))))  # type: ignore[attr-defined]
        elif step == "take" and ready:
            first = min(ready, key=lambda job: job.sequence)
            assert lane.front() is first
            assert lane.take() is first
            ready.remove(first)
        assert lane.size == len(ready)
    for expected in sorted(ready, key=lambda job: job.sequence):
        assert lane.front() is expected
        lane.take()
    assert lane.front() is None


def test_the_lane_with_the_earliest_job_comes_first() -> None:
    queue = Queue()
    one, two = queue.lane("", Resources(1)), queue.lane("", Resources(2))
    assert queue.lane("", Resources(2)) is two
    early, late = job(two, 1), job(one, 2)
    queue.jobs = {1: early, 2: late}
    queue.wake([late, early])
    assert queue.first_lane() is two
    queue.forget(1)
    assert queue.first_lane() is one
    queue.forget(2)
    assert queue.first_lane() is None
    queue.tidy()
    assert queue.ready == []
    queue.wake([job(two, 3)])
    assert queue.ready == [two]


def test_a_forgotten_job_is_not_woken() -> None:
    queue = Queue()
    lane = queue.lane("", Resources())
    gone = job(lane, 1)
    gone.missing = 1
    queue.jobs[1] = gone
    queue.forget(1)
    queue.wake([gone])
    assert lane.size == 0
