"""How jobs form packets."""

from __future__ import annotations

import pytest

from graphvine.protocol.messages import Resources, TaskOrder
from graphvine.worker.packing import Durations, fill, share_of
from graphvine.worker.settings import Settings
from graphvine.worker.tasks import Job, Lane

SETTINGS = Settings(packet_s=0.002, packet_tasks=100, task_overhead_s=0.0, ahead_s=0.05)


def lane_of(*categories: int) -> Lane:
    lane = Lane("", Resources())
    for number, category in enumerate(categories):
        lane.arrive(Job(TaskOrder(number, 0, 0, [], category), lane, number))
    return lane


@pytest.mark.parametrize(
    ("mean_s", "count"), [(1e-6, 100), (1e-4, 20), (0.0005, 4), (0.002, 1), (1.0, 1), (None, 1)]
)
def test_a_packet_is_about_so_much_work(mean_s: float | None, count: int) -> None:
    means = {} if mean_s is None else {0: mean_s}
    assert abs(len(fill(lane_of(*[0] * 200), 200, means, SETTINGS).jobs) - count) <= 1


def test_an_unmeasured_job_does_not_join_others() -> None:
    lane = lane_of(0, 0, 1, 0)
    means = {0: 1e-5}
    loads = [fill(lane, 100, means, SETTINGS) for _ in range(3)]
    assert [[job.order.task for job in load.jobs] for load in loads] == [[0, 1], [2], [3]]
    assert [load.long for load in loads] == [False, True, False]


def test_a_job_that_may_run_for_so_long_only_goes_alone() -> None:
    lane = lane_of(0, 0, 0)
    lane._arrived[1].max_s = 9.0
    loads = [fill(lane, 100, {0: 1e-5}, SETTINGS) for _ in range(3)]
    assert [[job.order.task for job in load.jobs] for load in loads] == [[0], [1], [2]]
    assert [load.long for load in loads] == [False, True, False]


@pytest.mark.parametrize(("mean_s", "long"), [(0.001, False), (0.01, False), (0.05, True), (None, True)])
def test_only_long_or_unmeasured_packets_are_not_followed(mean_s: float | None, long: bool) -> None:
    means = {} if mean_s is None else {0: mean_s}
    assert fill(lane_of(0), 1, means, SETTINGS).long is long


def test_shares_leave_something_for_the_others() -> None:
    lane = lane_of(*[0] * 10)
    assert [share_of(lane, takers) for takers in (1, 2, 3, 4, 20)] == [10, 5, 4, 3, 1]


def test_a_mean_forgets_an_unusual_first_run() -> None:
    durations = Durations()
    durations.learn(1, 1.0)
    assert durations.means[1] == 1.0
    for _ in range(100):
        durations.learn(1, 0.001)
    assert durations.means[1] < 0.002
