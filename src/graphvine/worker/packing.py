"""How ready jobs form packets: by what is known of how long their categories take.

A packet is about ``packet_s`` of work. A job of a category that was never measured, or that is as long as a
packet, or that may run for so long only, goes alone: whoever shares a packet waits for those before it and
cannot be moved.
"""

from __future__ import annotations

from graphvine.worker.settings import Settings
from graphvine.worker.tasks import Job, Lane

#: Weight of the newest run in the mean. Large enough to forget a first run that had to import something.
_WEIGHT = 0.125


class Durations:
    """Mean duration per category, recent runs counting more (an exponentially weighted moving average)."""

    def __init__(self) -> None:
        self.means: dict[int, float] = {}

    def learn(self, category: int, duration_s: float) -> None:
        mean = self.means.get(category)
        self.means[category] = duration_s if mean is None else mean + _WEIGHT * (duration_s - mean)


def share_of(lane: Lane, takers: int) -> int:
    """How many jobs one of ``takers`` executors may take, so that the others get some too."""
    return -(-lane.size // takers) if takers > 1 else lane.size


class Load:
    """What goes into one packet. ``long``: not to be followed by another packet before it is done.
    ``followers``: how many of the jobs, the last ones, need others of them (see ``family``)."""

    __slots__ = ("expected_s", "followers", "jobs", "long")

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.expected_s = 0.0
        self.followers = 0
        self.long = False


def fill(lane: Lane, at_most: int, means: dict[int, float], settings: Settings) -> Load:
    """Take the jobs of the next packet from a lane that is not empty."""
    load = Load()
    jobs = load.jobs
    room = min(at_most, settings.packet_tasks)
    expected = 0.0
    while len(jobs) < room and expected < settings.packet_s:
        job = lane.front()
        if job is None:
            break
        mean = means.get(job.order.category)
        if mean is None or mean >= settings.packet_s or job.max_s:
            if not jobs:
                jobs.append(lane.take())
                load.long = mean is None or mean >= settings.ahead_s or job.max_s > 0
                expected = mean or 0.0
            break
        jobs.append(lane.take())
        expected += mean + settings.task_overhead_s
    load.expected_s = expected
    return load
