"""Who is connected: numbers, routing ids and descriptors of the workers that were let in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec

from graphvine.protocol.messages import PROTOCOL_VERSION, Address, Hello
from graphvine.protocol.node import python_version


class Peer(msgspec.Struct, frozen=True):
    """A worker that joined."""

    worker: int
    identity: bytes
    descriptor: int
    hello: Hello


class Peers:
    """All workers that are connected now. Worker numbers begin at 1 and are never used twice."""

    def __init__(self) -> None:
        self._next = 1
        self._by_worker: dict[int, Peer] = {}
        self._by_identity: dict[bytes, Peer] = {}
        self._by_descriptor: dict[int, Peer] = {}
        self.hellos: dict[int, Hello] = {}

    def add(self, identity: bytes, descriptor: int, hello: Hello) -> Peer:
        peer = Peer(self._next, identity, descriptor, hello)
        self._next += 1
        self._by_worker[peer.worker] = peer
        self._by_identity[identity] = peer
        self._by_descriptor[descriptor] = peer
        self.hellos[peer.worker] = hello
        return peer

    def remove(self, worker: int) -> Peer | None:
        peer = self._by_worker.pop(worker, None)
        if peer is None:
            return None
        del self.hellos[worker]
        self._by_identity.pop(peer.identity, None)
        if self._by_descriptor.get(peer.descriptor) is peer:
            del self._by_descriptor[peer.descriptor]
        return peer

    def identity(self, worker: int) -> bytes | None:
        peer = self._by_worker.get(worker)
        return peer.identity if peer is not None else None

    def at_identity(self, identity: bytes) -> Peer | None:
        return self._by_identity.get(identity)

    def at_descriptor(self, descriptor: int) -> int | None:
        peer = self._by_descriptor.get(descriptor)
        return peer.worker if peer is not None else None

    def __contains__(self, worker: int) -> bool:
        return worker in self._by_worker

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._by_worker.values()))

    def __len__(self) -> int:
        return len(self._by_worker)


def refusal(hello: Hello, version: str) -> str | None:
    """Why a worker that says this can't join, and what to do; None when it can."""
    python = python_version()
    if hello.protocol != PROTOCOL_VERSION:
        return (
            f"it speaks protocol version {hello.protocol}, the manager {PROTOCOL_VERSION}; "
            f"install graphvine {version} for the worker"
        )
    if hello.graphvine != version:
        return (
            f"it is graphvine {hello.graphvine}, the manager {version}; "
            f"install graphvine {version} for the worker"
        )
    if hello.python != python:
        return f"it runs Python {hello.python}, the manager {python}; start the worker with Python {python}"
    return None


def with_seen(addresses: list[Address], host: str) -> list[Address]:
    """Where a worker may be found, by its own word, and last at the address from which it was seen to come:
    that of a network's door, which perhaps leads to it, or of one it does not know as its own."""
    if not addresses or not host or any(address.host == host for address in addresses):
        return addresses
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return addresses
    return [*addresses, msgspec.structs.replace(addresses[0], host=host)]
