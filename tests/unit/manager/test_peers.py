from __future__ import annotations

import pytest

from graphvine.manager.peers import with_seen
from graphvine.protocol.messages import Address

SAID = [Address("10.0.0.5", 4000, 17), Address("192.168.7.5", 4000, 17)]


@pytest.mark.parametrize("seen", ["203.0.113.9", "2001:db8::9", "fe80::9%eth0"])
def test_the_address_a_worker_was_seen_at_comes_last_and_is_the_same_server(seen: str) -> None:
    assert with_seen(SAID, seen) == [*SAID, Address(seen, 4000, 17)]


@pytest.mark.parametrize("seen", ["", "10.0.0.5", "127.0.0.1", "::1"])
def test_what_is_known_or_means_nothing_elsewhere_is_left_out(seen: str) -> None:
    assert with_seen(SAID, seen) == SAID


def test_a_worker_that_lets_nobody_in_has_no_address() -> None:
    assert with_seen([], "203.0.113.9") == []
