"""Resources set aside for requests."""

from __future__ import annotations

import pytest

from graphvine.protocol.messages import Resources
from graphvine.worker.crew import Crew, cut_down
from graphvine.worker.tasks import Lane

CAPACITY = Resources(cores=4, memory_mb=8000, disk_mb=100, gpus=1)


@pytest.mark.parametrize(
    ("request_", "aside"),
    [
        (Resources(), Resources(1, 2000)),
        (Resources(2, memory_mb=100), Resources(2, 100)),
        (Resources(99, 1e9, 1e9, 9), Resources(4, 8000, 100, 1)),
        (Resources(0), Resources(4, 8000)),
        (Resources(0.01), Resources(0.01)),
        (Resources(0.01, disk_mb=1), Resources(0.01, 20, 1)),
        (Resources(0, memory_mb=2000), Resources(1, 2000)),
        (Resources(0, memory_mb=2000, disk_mb=50), Resources(2, 2000, 50)),
        (Resources(0, gpus=1), Resources(4, 8000, 0, 1)),
        (Resources(0, memory_mb=99999), Resources(4, 8000)),
        (Resources(0, share=0.5), Resources(2, 4000)),
        (Resources(1, share=0.5), Resources(2, 4000)),
        (Resources(3, share=0.5), Resources(3, 6000)),
        (Resources(0, memory_mb=6000, share=0.5), Resources(3, 6000)),
    ],
)
def test_what_is_set_aside(request_: Resources, aside: Resources) -> None:
    assert cut_down(request_, CAPACITY) == aside


def test_unequal_thirds_of_a_core_fit_as_often_as_they_should() -> None:
    crew = Crew(Resources(cores=1, memory_mb=1000))
    lane = Lane("", cut_down(Resources(1 / 3), crew.capacity))
    for number in range(3):
        assert crew.fits(lane.request)
        crew.occupy(crew.add(number, ""), lane)
    assert not crew.fits(lane.request)
    for executor in crew.executors.values():
        crew.vacate(executor)
        crew.vacate(executor)  # a second time changes nothing
    assert crew.fits(lane.request, 3)
    assert not crew.fits(lane.request, 4)


@pytest.mark.parametrize(("cores", "limit"), [(1, 4), (2, 4), (0.5, 8), (0.01, 16), (0, 16)])
def test_how_many_executors_there_may_be(cores: float, limit: int) -> None:
    assert Crew(CAPACITY).limit(Resources(cores)) == limit


def test_executors_with_the_right_imports_are_chosen() -> None:
    crew = Crew(CAPACITY)
    plain, special = Lane("", Resources()), Lane("numpy", Resources())
    one, two = crew.add(1, "numpy"), crew.add(2, "")
    assert crew.idle_for(plain) is None
    assert crew.count_starting(special) == 1
    assert crew.count_starting(plain) == 2
    one.ready = True
    assert crew.idle_for(plain) is one, "for want of a plain one"
    two.ready = True
    assert crew.idle_for(plain) is two
    assert crew.idle_for(special) is one
    assert crew.idle_stranger(special) is two
    assert crew.idle_stranger(plain) is None
