"""What is learned of links, from how much, and for how long it is believed."""

from __future__ import annotations

import random

import pytest

from graphvine.manager.reach import Place, Reach, place_of
from graphvine.protocol.messages import Address, Hello, Resources


def place(worker: int, host: str = "", network: str = "") -> Place:
    return Place(worker, host or f"host{worker}", network)


@pytest.fixture
def reach() -> Reach:
    return Reach(retry_s=30.0, retry_most_s=100.0, marks=1000)


def test_nothing_speaks_against_a_link_of_which_nothing_is_known(reach: Reach) -> None:
    assert reach.advise(place(1), place(2), 0.0) == "try"


def test_silence_counts_for_the_hosts_and_a_refusal_for_that_worker(reach: Reach) -> None:
    reach.note_failed(place(1, "a"), place(2, "b"), silent=True, now=0.0)
    assert reach.advise(place(1, "a"), place(2, "b"), 1.0) == "avoid"
    assert reach.advise(place(3, "a"), place(4, "b"), 1.0) == "avoid", "others on those hosts"
    assert reach.advise(place(2, "b"), place(1, "a"), 1.0) == "try", "the other way"
    reach.note_failed(place(1, "a"), place(5, "c"), silent=False, now=0.0)
    assert reach.advise(place(3, "a"), place(5, "c"), 1.0) == "avoid"
    assert reach.advise(place(1, "a"), place(6, "c"), 1.0) == "try", "another worker there"


def test_it_is_probed_later_and_later_as_long_as_it_fails(reach: Reach) -> None:
    asker, holder = place(1), place(2)
    reach.note_failed(asker, holder, silent=True, now=0.0)
    probed = []
    for now in range(1, 600):
        advice = reach.advise(asker, holder, float(now))
        assert advice != "try"
        if advice == "probe":
            probed.append(now)
            reach.note_failed(asker, holder, silent=True, now=now + 4.0)
    assert probed == [30, 90, 190, 290, 390, 490, 590]


def test_what_works_again_is_used_at_once_and_doubted_anew_from_the_beginning(reach: Reach) -> None:
    asker, holder = place(1), place(2)
    for now in (0.0, 30.0, 90.0):
        reach.note_failed(asker, holder, silent=True, now=now)
    reach.note_made(asker, holder, 200.0)
    assert reach.advise(asker, holder, 200.0) == "try"
    reach.note_failed(asker, holder, silent=True, now=300.0)
    assert reach.advise(asker, holder, 329.0) == "avoid"
    assert reach.advise(asker, holder, 330.0) == "probe"
    reach.note_failed(asker, holder, silent=False, now=400.0)
    reach.note_made(asker, holder, 401.0)
    assert reach.advise(asker, holder, 402.0) == "try"


def test_a_nat_is_found_out_by_two_pairs_of_hosts(reach: Reach) -> None:
    outside = [place(number, network="out") for number in range(1, 5)]
    inside = [place(number, network="nat") for number in range(11, 15)]
    reach.note_failed(outside[0], inside[0], silent=True, now=0.0)
    assert reach.advise(outside[1], inside[1], 1.0) == "try"
    reach.note_failed(outside[1], inside[1], silent=True, now=1.0)
    assert reach.advise(outside[2], inside[3], 2.0) == "avoid"
    assert reach.advise(inside[0], inside[1], 2.0) == "try", "on the same side"
    assert reach.advise(inside[0], outside[0], 2.0) == "try", "the other way"


def test_a_dead_host_says_nothing_of_its_network(reach: Reach) -> None:
    dead, other = place(11, network="nat"), place(12, network="nat")
    for number in (1, 2):
        reach.note_failed(place(number, network="out"), dead, silent=True, now=0.0)
    assert reach.advise(place(3, network="out"), other, 1.0) == "try"


def test_a_part_that_works_speaks_for_the_rest(reach: Reach) -> None:
    outside = [place(number, network="out") for number in range(1, 5)]
    inside = [place(number, network="nat") for number in range(11, 15)]
    reach.note_made(outside[0], inside[0], 0.0)
    for asker, holder in zip(outside[1:3], inside[1:3], strict=True):
        reach.note_failed(asker, holder, silent=True, now=1.0)
    assert reach.advise(outside[3], inside[3], 2.0) == "try"
    assert reach.advise(outside[1], inside[1], 2.0) == "avoid"


def test_one_probe_finds_out_that_a_network_is_open(reach: Reach) -> None:
    outside = [place(number, network="out") for number in range(1, 5)]
    inside = [place(number, network="nat") for number in range(11, 15)]
    for asker, holder in zip(outside[:2], inside[:2], strict=True):
        reach.note_failed(asker, holder, silent=True, now=0.0)
    advice = [reach.advise(asker, inside[3], 40.0) for asker in outside]
    assert advice.count("probe") == 1
    assert "try" not in advice
    reach.note_made(outside[advice.index("probe")], inside[3], 41.0)
    assert reach.advise(outside[2], inside[2], 42.0) == "try"
    assert reach.advise(outside[0], inside[0], 29.0) == "avoid", "what failed itself is looked at by itself"


def test_a_host_that_nobody_reaches_and_one_that_reaches_nobody_are_found_out(reach: Reach) -> None:
    closed, lonely = place(50), place(60)
    for number in (1, 2, 3):
        reach.note_failed(place(number), closed, silent=True, now=0.0)
        reach.note_failed(lonely, place(number + 10), silent=True, now=0.0)
    assert reach.advise(place(4), closed, 1.0) == "avoid"
    assert reach.advise(lonely, place(4), 1.0) == "avoid"
    assert reach.advise(place(4), place(5), 1.0) == "try"
    assert reach.advise(place(51, "host50"), closed, 1.0) == "try", "on that host itself"


def test_the_same_pair_again_and_again_says_nothing_of_others(reach: Reach) -> None:
    for now in range(20):
        reach.note_failed(place(1), place(2), silent=True, now=float(now))
    assert reach.advise(place(1), place(3), 20.0) == "try"
    assert reach.advise(place(3), place(2), 20.0) == "try"


def test_what_is_remembered_is_bounded() -> None:
    reach = Reach(30.0, 600.0, marks=100)
    chance = random.Random(1)
    for now in range(5000):
        asker, holder = place(chance.randrange(200)), place(chance.randrange(200), network="nat")
        if chance.random() < 0.5:
            reach.note_failed(asker, holder, chance.random() < 0.5, float(now))
        else:
            reach.note_made(asker, holder, float(now))
        assert len(reach) <= 100


def test_a_place_is_a_node_with_its_addresses_behind_a_nat_or_not() -> None:
    def hello(*hosts: str) -> Hello:
        addresses = [Address(host, 1) for host in hosts]
        return Hello(1, "0", "3.11", "w", "h", "node", "", 0, Resources(), addresses)

    assert place_of(1, hello("10.0.0.2", "1.2.3.4"), "1.2.3.4") == place_of(
        1, hello("1.2.3.4", "10.0.0.2"), ""
    )
    assert place_of(1, hello("10.0.0.2"), "1.2.3.4").network == "1.2.3.4"
    assert place_of(1, hello("10.0.0.2"), "").host != place_of(1, hello("10.0.0.3"), "").host
