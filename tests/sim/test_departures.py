"""Workers that come and go, and say so: whatever the network is like, nothing is done twice."""

from __future__ import annotations

import random

import pytest
from simulation.cluster import Cluster, Weather
from simulation.graphs import SHAPES
from simulation.scenarios import Mishap, PlanPart, Play, Story
from simulation.work import plain_work

SEEDS = range(24)


def story_of(seed: int) -> Story:
    """A kept plan, and one that builds on it, while most workers leave and others come."""
    chance = random.Random(seed)
    shape = chance.choice(sorted(SHAPES))
    kept = PlanPart(shape, 60, seed, large=1.0, keep=True, slow=0.3)
    later = PlanPart(on=0, seed=seed, count=50, large=0.6, slow=0.3, begin_s=chance.choice([0.0, 0.3, 1.5]))
    mishaps = [
        Mishap(
            chance.random() * 2, chance.choice(["depart", "retire", "join", "depart"]), chance.randrange(6), 9
        )
        for _ in range(8)
    ]
    weather = Weather(walls=chance.choice([0.0, 0.3, 1.0]), addresses=chance.random() < 0.8, jitter_s=0.01)
    return Story(seed, (1, 2, 1, 2), (kept, later), tuple(mishaps), weather)


@pytest.mark.parametrize("seed", SEEDS)
def test_workers_that_leave_in_time_leave_nothing_undone(seed: int) -> None:
    story = Play(story_of(seed))
    cluster = story.to_the_end()
    leavers = [agent for agent in cluster.agents if agent.leaving]
    assert leavers
    assert all(agent.gone_well for agent in leavers)
    again = [
        count for run in story.runs.values() if run.work is not None for count in run.work.begun if count > 1
    ]
    assert again == []


@pytest.mark.parametrize("seed", SEEDS)
def test_what_cannot_end_before_a_worker_goes_is_not_begun_there(seed: int) -> None:
    """Every worker has a wall time; one follows the other. Each task takes a twentieth of it."""
    chance = random.Random(seed)
    cluster = Cluster(seed, Weather(walls=chance.choice([0.0, 1.0])))
    graph = SHAPES[chance.choice(sorted(SHAPES))](80, chance)
    work = cluster.add(plain_work(graph, [0.5 + 0.5 * chance.random() for _ in graph], size=500))

    def follow() -> None:
        cluster.join(chance.choice([1.0, 2.0]), left_s=chance.uniform(5.0, 15.0))
        cluster.events.after(4.0, follow)

    follow()
    run = cluster.manager.run(work, keep=False)
    cluster.run_until(lambda: run.over, 1000.0)
    assert run.done
    assert max(work.begun) == 1
    # What was begun ended before its worker began to leave, but for those of which nothing was known yet.
    assert sum(agent.late for agent in cluster.agents) <= 2
