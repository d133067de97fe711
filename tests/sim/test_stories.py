"""Random graphs on random clusters with random mishaps: every plan ends as it must, and nothing is left.

``GRAPHVINE_SIM_EXAMPLES=5000`` looks for that many examples, different ones each time; otherwise the same few
are played every time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, given, settings
from simulation import strategies
from simulation.scenarios import Story, play

_HUNTED = int(os.environ.get("GRAPHVINE_SIM_EXAMPLES", "0"))


def examples(count: int) -> settings:
    return settings(
        max_examples=_HUNTED or count,
        derandomize=not _HUNTED,
        deadline=None,
        database=None,
        print_blob=False,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@given(strategies.fair_stories)
@examples(60)
def test_without_mishaps_every_task_runs_once(story: Story) -> None:
    play(story)


@given(strategies.stories)
@examples(150)
def test_one_plan_survives_mishaps(story: Story) -> None:
    play(story)


@given(strategies.long_stories)
@examples(100)
def test_many_plans_survive_mishaps(story: Story) -> None:
    play(story)


@given(strategies.separate_stories)
@examples(100)
def test_tasks_that_stand_alone_end_alone(story: Story) -> None:
    play(story)
