"""Stories for hypothesis to draw, to shrink and to print."""

from __future__ import annotations

from hypothesis import strategies as st

from simulation.cluster import Weather
from simulation.executors import BROKEN
from simulation.graphs import SHAPES
from simulation.scenarios import MISHAPS, Mishap, PlanPart, Story

seeds = st.integers(0, 2**20)
shapes = st.sampled_from(sorted(SHAPES))


def shares(*values: float) -> st.SearchStrategy[float]:
    return st.sampled_from(values)


weathers = st.builds(
    Weather,
    latency_s=shares(0.0003, 0.0, 0.01),
    jitter_s=shares(0.001, 0.0, 0.02),
    stall=shares(0.0, 0.05),
    stall_s=shares(0.3, 0.05),
    bandwidth=shares(1e6, 1e4, 1e5),
    damage=shares(0.0, 0.1),
    walls=shares(0.0, 0.3, 1.0),
    walls_s=shares(1e9, 1.0),
    addresses=shares(True, True, False),
    false_starts=shares(0.0, 0.1),
    full_inboxes=shares(0.0, 0.1),
    reliefs=shares(0.0, 0.1),
    unpassed=shares(0.0, 0.1),
)

fair_weathers = st.builds(Weather, latency_s=shares(0.0003, 0.01), jitter_s=shares(0.001, 0.02))

plans = st.builds(
    PlanPart,
    shape=shapes,
    count=st.integers(1, 80),
    seed=seeds,
    begin_s=shares(0.0, 0.05, 0.3),
    large=shares(0.3, 0.0, 1.0),
    slow=shares(0.1, 0.0, 0.5),
    requests=st.booleans(),
    few_sinks=st.booleans(),
    library=st.sampled_from(["", "", "", "fits", "cuts"]),
)

mishaps = st.builds(
    Mishap,
    at_s=st.floats(0.0, 3.0, width=16),
    kind=st.sampled_from(MISHAPS),
    whom=st.integers(0, 5),
    for_s=st.sampled_from([0.1, 0.5, 1.2, 2.5]),
)

workers = st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple)


@st.composite
def plan_groups(draw: st.DrawFn) -> tuple[PlanPart, ...]:
    """One to four plans, some building on a kept one, some cancelled, some with misbehaving tasks."""
    parts: list[PlanPart] = []
    kept: list[int] = []
    for number in range(draw(st.integers(1, 4))):
        part = draw(plans)
        changes = {
            "on": draw(st.sampled_from([-1, *kept])),
            "keep": draw(st.booleans()),
            "cancel_s": draw(shares(-1.0, -1.0, -1.0, 0.05, 0.5)),
            "faulty": draw(shares(0.0, 0.0, 0.1)),
            "environment": draw(st.sampled_from(["", "", "", "", "conda", "venv", BROKEN])),
            "library": draw(st.sampled_from(["", "", "", "", "fits", "cuts", BROKEN])),
            "doomed": draw(
                st.sampled_from(["", "", "", "", "raised", "killed", "unpicklable", "storage", "fatal"])
            ),
        }
        if changes["keep"]:
            kept.append(number)
        parts.append(_with(part, changes))
    return tuple(parts)


@st.composite
def separate_groups(draw: st.DrawFn) -> tuple[PlanPart, ...]:
    """One to three plans whose tasks stand alone, some building on a kept one."""
    parts: list[PlanPart] = []
    kept: list[int] = []
    for number in range(draw(st.integers(1, 3))):
        changes = {
            "separate": draw(st.sampled_from([True, True, True, False])),
            "library": "",
            "on": draw(st.sampled_from([-1, *kept])),
            "keep": draw(st.booleans()),
            "cancel_s": draw(shares(-1.0, -1.0, -1.0, 0.3)),
            "faulty": draw(shares(0.0, 0.1)),
            "doomed": draw(st.sampled_from(["", "raised", "killed", "unpicklable", "storage", "fatal"])),
        }
        if changes["separate"]:
            changes |= {
                "given": draw(shares(0.0, 0.3, 1.0)),
                "gone": draw(st.sampled_from([False, False, True])),
                "cancel_tasks_s": draw(shares(-1.0, 0.0, 0.01, 0.1, 0.5)),
                "max_s": draw(shares(0.0, 0.0, 0.05, 0.2)),
                "limit": draw(st.integers(0, 3)),
            }
        else:
            changes["doomed"] = ""
        if changes["keep"]:
            kept.append(number)
        parts.append(_with(draw(plans), changes))
    return tuple(parts)


def _with(part: PlanPart, changes: dict[str, object]) -> PlanPart:
    import msgspec

    return msgspec.structs.replace(part, **changes)


fair_stories = st.builds(Story, seed=seeds, workers=workers, plans=st.tuples(plans), weather=fair_weathers)
stories = st.builds(
    Story,
    seed=seeds,
    workers=workers,
    plans=st.tuples(plans),
    mishaps=st.lists(mishaps, max_size=8).map(tuple),
    weather=weathers,
)
long_stories = st.builds(
    Story,
    seed=seeds,
    workers=workers,
    plans=plan_groups(),
    mishaps=st.lists(mishaps, max_size=12).map(tuple),
    weather=weathers,
)
separate_stories = st.builds(
    Story,
    seed=seeds,
    workers=workers,
    plans=separate_groups(),
    mishaps=st.lists(mishaps, max_size=8).map(tuple),
    weather=weathers,
)
