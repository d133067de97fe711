"""How two ends of a link prove the secret: what passes, and what an attacker can do with it."""

from __future__ import annotations

import random

import pytest

from graphvine.protocol.greeting import HELLO, Greeting, MisledError, Role, StrangerError

SECRET = "a secret"
NUMBER = 17


class Side:
    """One side, with what it was told and not taken in yet."""

    def __init__(self, secret: str, role: Role, server: int = NUMBER) -> None:
        self.greeting = Greeting(secret, role, server)
        self.said = self.greeting.begin()
        self.pending = b""

    def hear(self, words: bytes) -> bytes:
        """Take in words; what it says to them."""
        self.pending += words
        said = b""
        while (wanted := self.greeting.wanted) and len(self.pending) >= wanted:
            heard, self.pending = self.pending[:wanted], self.pending[wanted:]
            said += self.greeting.feed(heard)
        self.said += said
        return said

    @property
    def done(self) -> bool:
        return not self.greeting.wanted


def talk(one: Side, other: Side) -> None:
    words = other.hear(one.greeting.begin())
    answer = one.hear(other.greeting.begin())
    words += other.hear(answer)
    one.hear(words)


def test_both_are_sure_of_each_other_and_nothing_is_left_over() -> None:
    client, server = Side(SECRET, "client"), Side(SECRET, "server")
    talk(client, server)
    assert client.done
    assert server.done
    assert client.pending == server.pending == b""


def test_a_client_may_take_any_server() -> None:
    client, server = Side(SECRET, "client", 0), Side(SECRET, "server")
    talk(client, server)
    assert client.done
    assert server.done


def test_who_does_not_know_the_secret_gets_no_proof() -> None:
    client, server = Side("another", "client"), Side(SECRET, "server")
    with pytest.raises(StrangerError):
        talk(client, server)
    assert server.said == server.greeting.begin()
    assert not server.done


def test_what_was_said_before_is_of_no_use_again() -> None:
    client, server = Side(SECRET, "client"), Side(SECRET, "server")
    talk(client, server)
    again = Side(SECRET, "server")
    with pytest.raises(StrangerError):
        again.hear(client.said)
    assert again.said == again.greeting.begin()
    twice = Side(SECRET, "client")
    with pytest.raises(StrangerError):
        twice.hear(server.said)


def test_a_side_cannot_be_had_to_answer_itself() -> None:
    # What it says comes back to it, over this link or over another one to the same server.
    roles: list[Role] = ["client", "server"]
    for role in roles:
        side = Side(SECRET, role, NUMBER if role == "server" else 0)
        with pytest.raises(StrangerError):
            side.hear(side.hear(side.greeting.begin()) or bytes(32))
    first, second = Side(SECRET, "server"), Side(SECRET, "server")
    first.hear(second.greeting.begin())
    second.hear(first.greeting.begin())
    assert first.said == first.greeting.begin()
    assert second.said == second.greeting.begin()


def test_a_client_shows_its_proof_to_nobody_but_the_one_it_wants() -> None:
    client, server = Side(SECRET, "client", NUMBER), Side(SECRET, "server", NUMBER + 1)
    with pytest.raises(MisledError):
        client.hear(server.greeting.begin())
    assert client.said == client.greeting.begin()


def test_a_proof_meant_for_one_server_is_of_no_use_at_another() -> None:
    # Somebody between the two says to be the one that is wanted, and passes the rest on to another.
    client, server = Side(SECRET, "client", NUMBER), Side(SECRET, "server", NUMBER + 1)
    hello = server.greeting.begin()
    pretended = hello[:-8] + NUMBER.to_bytes(8, "little")
    proof = client.hear(pretended)
    with pytest.raises(StrangerError):
        server.hear(client.greeting.begin() + proof)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_said_instead_is_refused_before_anything_is_told(seed: int) -> None:
    chance = random.Random(seed)
    client, server = Side(SECRET, "client"), Side(SECRET, "server")
    right = bytearray(client.greeting.begin() + client.hear(server.greeting.begin()))
    kind = chance.choice(["noise", "flip", "cut"])
    if kind == "noise":
        words = chance.randbytes(chance.randrange(1, 300))
    elif kind == "flip":
        at = chance.choice([*range(len(HELLO) + 32), *range(len(right) - 32, len(right))])
        right[at] ^= 1 << chance.randrange(8)
        words = bytes(right)
    else:
        words = bytes(right[: chance.randrange(len(right))])
    try:
        server.hear(words)
    except StrangerError:
        assert kind != "cut"
    assert not server.done
    assert server.said == server.greeting.begin()
