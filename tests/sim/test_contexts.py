"""Libraries and environments that become ready late, break, or lose their processes; simulated clusters."""

from __future__ import annotations

import pytest
from simulation.cluster import Weather
from simulation.executors import BROKEN
from simulation.scenarios import Mishap, PlanPart, Play, Story, make_work, play

SEEDS = range(12)
ARCHIVE = PlanPart(count=20, keep=True, large=1.0)
"""The first plan of each story: its results are environments."""


@pytest.mark.parametrize("seed", SEEDS)
def test_an_environment_that_is_still_to_be_made_is_waited_for(seed: int) -> None:
    inside = PlanPart(on=0, seed=seed, environment="conda", library="fits" if seed % 2 else "")
    play(Story(seed, (1, 2), (ARCHIVE, inside)))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_environment_that_is_lost_is_made_again(seed: int) -> None:
    inside = PlanPart(on=0, seed=seed, environment="conda", begin_s=0.5)
    mishaps = (Mishap(0.4, "kill"), Mishap(0.6, "kill", 1), Mishap(0.8, "lose file", 2), Mishap(0.9, "kill"))
    play(Story(seed, (1, 2, 1), (ARCHIVE, inside, inside), mishaps))


@pytest.mark.parametrize("seed", SEEDS)
def test_zygotes_and_helpers_that_die_are_replaced(seed: int) -> None:
    plans = (
        ARCHIVE,
        *(PlanPart(on=0, seed=seed, environment="venv", library=name) for name in ("fits", "cuts")),
    )
    mishaps = tuple(Mishap(0.1 * n, "kill zygote", n) for n in range(1, 12))
    play(Story(seed, (2, 2), plans, mishaps, Weather(false_starts=0.2)))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_broken_fails_alone(seed: int) -> None:
    plans = (
        ARCHIVE,
        PlanPart(on=0, seed=seed, environment=BROKEN),
        PlanPart(seed=seed, library=BROKEN),
        PlanPart(on=0, seed=seed, environment="conda", library="fits"),
        PlanPart(seed=seed),
    )
    story = Play(Story(seed, (1, 2), plans))
    story.to_the_end()
    kinds = {number: run.failed.kind for number, run in story.runs.items() if run.failed is not None}
    assert kinds == {1: "environment", 2: "library"}


@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_to_run_alone_does_not_wait_for_an_environment_that_is_not_made(seed: int) -> None:
    """A task takes down one worker after the other, and with them the environment of its neighbour: both come
    to be run alone, and there is one worker at a time."""
    archive = PlanPart("chains", 13, 933, keep=True, slow=0.5, faulty=0.1, requests=True, few_sinks=True)
    fatal, one = PlanPart("at random", 1, doomed="fatal"), PlanPart("at random", 1)
    inside = PlanPart("at random", 1, on=0, environment="conda")
    play(Story(seed, (1,), (archive, one, fatal, inside)))


@pytest.mark.parametrize("seed", range(3))
def test_other_tasks_do_not_wait_while_a_library_starts(seed: int) -> None:
    """Its calls were there first, and are many."""
    story = Story(seed, (1, 2), (), weather=Weather(setup_s=5.0))
    cluster = Play(story).cluster
    for cores in story.workers:
        cluster.join(float(cores))
    calls = cluster.manager.run(
        cluster.add(make_work(PlanPart("at random", 120, library="fits"), 0, None)), False
    )
    others = cluster.manager.run(cluster.add(make_work(PlanPart("at random", 40, seed=seed), 1, None)), False)
    cluster.run_until(lambda: others.over, 4.0)
    assert others.done
    assert not calls.over
    cluster.run_until(lambda: calls.over, 100.0)
    assert calls.done
