"""Stories in which things happen in an order that chance finds rarely: each once ended in something wrong."""

from __future__ import annotations

import pytest
from simulation.cluster import Weather
from simulation.scenarios import Mishap, PlanPart, Story, play


@pytest.mark.parametrize("seed", [15, 81, 91, 124, 128, 140])
def test_what_was_recalled_and_comes_back_when_its_packet_ends_is_returned(seed: int) -> None:
    """Its forerunner in the packet raised after the recall, and is run again elsewhere."""
    chains = PlanPart("chains", 36, faulty=0.1, doomed="fatal")
    play(Story(seed, (1, 1), (chains, PlanPart("at random", 1)), weather=Weather(jitter_s=0.0)))


@pytest.mark.parametrize("seed", [0, 3, 17, 27, 35, 43])
def test_a_file_that_turns_out_to_be_shorter_than_what_was_asked_for_holds_up_no_other(seed: int) -> None:
    """It was a file of the manager's machine, and is now the small word that it can't be had."""
    given = PlanPart("branches", 63, requests=True, separate=True, given=1.0, gone=True, limit=3)
    play(Story(seed, (1, 4), (given,), weather=Weather(stall=0.05)))


@pytest.mark.parametrize("seed", [37, 228, 240])
def test_what_lay_in_a_heap_when_it_lost_an_input_passes_its_limit_again(seed: int) -> None:
    """It is ready again before it comes off the heap: once more than the limit allowed were on their way."""
    part = PlanPart("at random", 51, seed, large=1.0, slow=0.1, separate=True, limit=2)
    mishaps = (Mishap(0.30859375, "kill", 0, 0.1), Mishap(0.306640625, "depart", 0, 0.1))
    play(Story(0, (2,), (part,), mishaps))


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 6])
def test_a_worker_whose_library_is_not_ready_is_offered_what_another_plan_brings(seed: int) -> None:
    """By that plan's families, it would have room that it did not have when it asked."""
    first = PlanPart("at random", 27, library="fits", large=0.3, slow=0.1)
    then = PlanPart("at random", 30, library="fits", large=0.3, slow=0.1, begin_s=0.05)
    play(Story(seed, (1,), (first, then)))
