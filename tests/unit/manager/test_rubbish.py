"""A worker that holds the key and talks nonsense: the core goes on, whatever it is told."""

from __future__ import annotations

import random

import pytest
from tests.rubbish import value

from graphvine.manager.core import Core
from graphvine.manager.instructions import Note
from graphvine.manager.rehearsal import plan_of
from graphvine.manager.settings import Settings
from graphvine.protocol.codec import decode_to_manager, encode
from graphvine.protocol.messages import Address, Goodbye, Heartbeat, Hello, Leaving, Report, Resources

KINDS = [Report] * 6 + [Heartbeat, Goodbye, Leaving]


def hello(chance: random.Random, worker: int) -> Hello:
    made: Hello = value(chance, Hello)
    made.name, made.node = f"n{worker}", f"node{worker}"
    made.capacity = Resources(2.0, 1000.0, 1000.0)
    made.addresses = [Address("192.0.2.1", 1)]
    return made


@pytest.mark.parametrize("seed", range(300))
def test_the_core_goes_on(seed: int) -> None:
    chance = random.Random(seed)
    core = Core(Settings())
    now = 0.0
    for worker in (1, 2):
        core.on_worker_joined(worker, hello(chance, worker), now)
    size = chance.randrange(1, 6)
    inputs = [tuple(chance.sample(range(task), chance.randrange(min(task, 2) + 1))) for task in range(size)]
    core.on_plan(plan_of(inputs, list(range(size))), chance.random() < 0.3, now)
    for _ in range(12):
        now += 1.0
        (message,) = decode_to_manager(encode([value(chance, chance.choice(KINDS))]))
        core.on_message(chance.choice((1, 1, 2)), message, now)
        core.turn(now)
        core.on_time(now)
        core.turn(now)
    # Who comes then and makes sense is welcome.
    core.on_worker_joined(3, hello(chance, 3), now)
    assert core.turn(now)


def notes(core: Core, now: float) -> list[str]:
    return [one.text for one in core.turn(now) if isinstance(one, Note)]


def test_a_worker_that_speaks_of_more_than_there_ever_was_is_not_listened_to() -> None:
    core = Core(Settings())
    joined = hello(random.Random(1), 1)
    joined.holds = [(number, 1) for number in range(100_000)]
    core.on_worker_joined(1, joined, 0.0)
    core.on_plan(plan_of([(), (), (0, 1)]), False, 0.0)
    assert "100000 things at once" in notes(core, 0.0)[0]
    many = list(range(1, 100_000))
    for report in (Report(lost=many), Report(fetched=many), Report(returned=many), Report(lost=[99, 98])):
        core.on_message(1, report, 1.0)
        # Said once.
        assert notes(core, 1.0) == []


def test_numbers_that_were_never_given_out_are_noted_once() -> None:
    core = Core(Settings())
    joined = hello(random.Random(1), 1)
    joined.holds = []
    core.on_worker_joined(1, joined, 0.0)
    core.turn(0.0)
    core.on_message(1, Report(lost=[5, 6, -1], fetched=[7]), 1.0)
    assert len(notes(core, 1.0)) == 1
