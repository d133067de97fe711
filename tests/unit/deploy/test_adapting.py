"""Scaling and the fleet together, over an hour of simulated work: wide, a lull, wide again, a tail."""

from __future__ import annotations

from tests.unit.deploy.make_believe import MakeBelieve

from graphvine.deploy.batch import JobState
from graphvine.deploy.scaling import Policy, Scaler, Size
from graphvine.protocol.messages import Resources, Wanted

START_S = 30
"""What the batch system takes until a job runs."""


class Site(MakeBelieve):
    """Workers of one core do one task after the other; a phase begins when the one before is done."""

    def __init__(self, policy: Policy, phases: list[tuple[int, int]]) -> None:
        """``phases``: how many tasks, and the seconds of each."""
        super().__init__()
        self.scaler = Scaler(policy, Size(1.0))
        self.phases = phases
        self.ready = 0
        self.running: dict[str, float] = {}
        self.submitted: dict[str, float] = {}
        self.history: list[int] = []
        self._next_phase()

    def step(self) -> None:
        """A second passes."""
        self.now += 1.0
        for name, job in list(self.alive.items()):
            since = self.submitted.setdefault(name, self.now)
            if job.state is JobState.PENDING and self.now - since >= START_S:
                self.connect(name)
        for name, ends in list(self.running.items()):
            if ends <= self.now:
                del self.running[name]
                self.rest(name)
        for name in set(self.retired) & set(self.alive) - set(self.running):
            self.end(name)
        if not self.ready and not self.running:
            self._next_phase()
        for name, job in self.alive.items():
            if self.ready and job.worker and name not in self.running and name not in self.retired:
                self.ready -= 1
                self.running[name] = self.now + self.each_s
                self.rest(name, busy=True)
        self._adapt()
        self.history.append(sum(job.worker > 0 for job in self.alive.values()))

    def _adapt(self) -> None:
        able = self.ready + len(self.running)
        later = sum(count for count, _ in self.phases)
        seconds = able * self.each_s + sum(count * each_s for count, each_s in self.phases)
        self.scaler.on_demand([Wanted(Resources(), (), (), able, able + later, seconds, 0)] if able else [])
        target = self.scaler.target(self.fleet.have, self.now)
        self.want(target, self.scaler.policy.maximum)

    def _next_phase(self) -> None:
        self.ready, self.each_s = self.phases.pop(0) if self.phases else (0, 0)


def run(policy: Policy, phases: list[tuple[int, int]], seconds: int) -> Site:
    site = Site(policy, phases)
    for _ in range(seconds):
        site.step()
    return site


def test_an_hour_of_work():
    # 40 minutes of 50 cores, a lull of 4 minutes, and the same once more; then one long task.
    policy = Policy(maximum=50, finish_s=60.0, hold_s=60.0, lull_s=600.0)
    site = run(policy, [(1000, 60), (1, 240), (1000, 60), (1, 600)], 4200)
    assert site.phases == []
    assert (site.ready, site.running) == (0, {})
    assert max(site.history) == 50
    lull = site.history[1300:1450]
    assert min(lull) == 50, "what is about to be needed is kept"
    assert len(site.jobs) == 50, "and nobody had to be started twice"
    tail = site.history[2900:3000]
    assert max(tail) == 1, "a tail holds one"
    assert site.history[-1] == 0
    assert site.texts("warning") == []


def test_short_work_starts_few():
    policy = Policy(maximum=200, finish_s=60.0)
    site = run(policy, [(600, 1)], 300)
    assert max(site.history) == 10
    assert len(site.jobs) == 10
    assert site.history[-1] == 0
