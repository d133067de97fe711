"""Connecting to several addresses at once."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from graphvine.protocol import bulk
from graphvine.protocol.bulk import RefusedError, UnreachableError, connect
from graphvine.protocol.dialing import KEEPALIVE_S, dial, is_dead, is_silence
from graphvine.protocol.messages import Address


@contextlib.contextmanager
def mute_address() -> Iterator[Address]:
    """One at which nobody answers: a listener whose backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield Address("127.0.0.1", port)


@contextlib.contextmanager
def listening() -> Iterator[tuple[Address, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("127.0.0.1", listener.getsockname()[1]), listener


def closed_address() -> Address:
    with listening() as (address, _):
        return address


def test_an_address_that_does_not_answer_does_not_keep_the_others_waiting() -> None:
    with mute_address() as mute, listening() as (good, _), contextlib.closing(dial([mute, good])) as dialled:
        address, connected = next(dialled)
        assert address == good
        assert isinstance(connected, socket.socket)
        with connected:
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_S


def test_every_address_has_its_outcome() -> None:
    with mute_address() as mute:
        closed = closed_address()
        outcomes = dict(dial([closed, mute, Address("no such host.invalid", 1)], within_s=0.5))
    assert set(outcomes) == {closed, mute, Address("no such host.invalid", 1)}
    assert all(isinstance(outcome, OSError) for outcome in outcomes.values())
    assert isinstance(outcomes[closed], ConnectionRefusedError)
    assert [address for address, error in outcomes.items() if is_silence(error)] == [mute]  # type: ignore[arg-type]


def test_all_addresses_are_waited_for_together() -> None:
    with mute_address() as first, mute_address() as second, mute_address() as third:
        began = time.monotonic()
        outcomes = list(dial([first, second, third], within_s=1.0))
    assert len(outcomes) == 3
    assert time.monotonic() - began < 3.0, "not one after the other"


def test_what_answers_and_is_no_worker_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "GREETING_S", 0.3)
    with (
        listening() as (stalling, _),
        pytest.raises(UnreachableError, match="does not answer as a worker") as told,
    ):
        connect([stalling, closed_address()], "secret")
    assert not told.value.silent
    with mute_address() as mute, pytest.raises(UnreachableError) as told:
        connect([closed_address(), mute], "secret", connect_s=0.3)
    assert told.value.silent


def test_another_service_is_refused() -> None:
    with listening() as (address, listener):
        client = socket.create_connection((address.host, address.port))
        client.close()
        listener.accept()[0].close()
        import threading

        def answer() -> None:
            with listener.accept()[0] as link:
                link.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 4)
                link.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RefusedError, match="no graphvine worker"):
            connect([address], "secret")
        thread.join()


def test_an_idle_link_that_was_closed_is_dead() -> None:
    with listening() as (address, listener):
        ((_, connected),) = dial([address])
        assert isinstance(connected, socket.socket)
        with connected:
            other = listener.accept()[0]
            assert not is_dead(connected)
            other.close()
            connected.settimeout(5)
            connected.recv(1, socket.MSG_PEEK)
            assert is_dead(connected)
