"""When the next address of a manager is tried, and when nobody tries any more."""

from __future__ import annotations

from graphvine.protocol.approach import Approach, Patience

PATIENCE = Patience(connect_s=2.0, answer_s=10.0, refused_s=0.1, rejected_s=5.0, lost_s=60.0)


def test_the_only_address_may_take_as_long_as_an_answer():
    assert Approach(["a"], PATIENCE, 100.0).next_at == 110.0


def test_one_of_several_is_left_soon_unless_it_is_connected():
    approach = Approach(["a", "b"], PATIENCE, 100.0)
    assert approach.next_at == 102.0
    approach.on_news("made", {}, 101.0)
    assert approach.next_at == 111.0
    approach.tried(111.0)
    assert approach.next_at == 113.0


def test_what_refuses_is_left_after_a_moment():
    approach = Approach(["a", "b"], PATIENCE, 100.0)
    approach.on_news("refused", {}, 101.0)
    assert approach.next_at == 101.1
    approach.on_news("refused", {}, 101.05)
    assert approach.next_at == 101.1, "another refusal does not put it off"


def test_there_is_no_hope_in_a_connection_after_one_that_ended():
    approach = Approach(["a", "b"], PATIENCE, 100.0)
    approach.on_news("ended", {}, 100.5)
    approach.on_news("made", {}, 100.55)
    assert approach.next_at == 100.6
    approach.tried(100.6)
    approach.on_news("made", {}, 100.7)
    assert approach.next_at == 110.7, "the next address is another matter"


def test_nobody_tries_for_long_where_every_address_is_somebody_elses():
    approach = Approach(["a", "b"], PATIENCE, 100.0)
    assert not approach.on_news("rejected", {"a": 9}, 106.0), "b was not heard of"
    assert not approach.on_news("rejected", {"a": 9, "b": 1}, 107.0), "once may be chance"
    assert not approach.on_news("rejected", {"a": 9, "b": 2}, 108.0)
    assert approach.on_news("ended", {"a": 9, "b": 2}, 112.0)
    assert not approach.is_over(112.0)


def test_news_of_nothing_rejected_end_nothing():
    assert not Approach([], PATIENCE, 100.0).on_news("ended", {}, 200.0)


def test_it_is_over_so_long_after_the_last_answer():
    approach = Approach(["a"], PATIENCE, 100.0)
    assert not approach.is_over(159.0)
    assert approach.is_over(160.0)
    approach.lost(300.0)
    approach.tried(350.0)
    assert not approach.is_over(359.0)
    assert approach.is_over(360.0)
