"""Connecting to one of a host's several addresses: all are tried side by side, the likeliest a little before.

A host of several interfaces offers addresses of which some lead nowhere, and silence takes as long to
understand as one is prepared to wait. So the wait is for all together, not for one after the other.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Generator, Sequence

from graphvine.protocol.messages import Address

#: Two packets may get lost (the kernel asks again after 1 s and 3 s).
CONNECT_S = 4.0
#: How long an address is tried before the next is tried beside it.
APART_S = 0.2
#: An idle link says so often that it is still there, so that firewalls on its way (which forget what is idle
#: for a minute or more) don't forget it, and so many questions without an answer are its end.
KEEPALIVE_S = 20
KEEPALIVE_INTERVAL_S = 10
KEEPALIVE_TRIES = 3

#: What says that nobody is there, or that nobody answers; other errors are somebody's answer.
_SILENCE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)


def is_silence(error: OSError) -> bool:
    """Whether an error in connecting is for want of an answer."""
    return isinstance(error, TimeoutError) or error.errno in _SILENCE


def dial(
    addresses: Sequence[Address], within_s: float = CONNECT_S
) -> Generator[tuple[Address, socket.socket | OSError], None, None]:
    """What becomes of each address, as it becomes known: a connected socket, which is the caller's, or why
    there is none. Ends after ``within_s``; what is still being tried when nobody asks any more is given
    up."""
    left = list(addresses)
    trying: dict[int, tuple[Address, socket.socket]] = {}
    poller = select.poll()
    deadline = time.monotonic() + within_s
    try:
        while left or trying:
            if left:
                address = left.pop(0)
                begun = _begin(address)
                if isinstance(begun, OSError):
                    yield address, begun
                    continue
                trying[begun.fileno()] = address, begun
                poller.register(begun, select.POLLOUT)
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                break
            wait_s = min(APART_S, remaining_s) if left else remaining_s
            for descriptor, _ in poller.poll(wait_s * 1000):
                poller.unregister(descriptor)
                yield _outcome(*trying.pop(descriptor))
        for address in left + [address for address, _ in trying.values()]:
            yield address, TimeoutError(errno.ETIMEDOUT, f"no answer within {within_s:g} s")
    finally:
        for _, begun in trying.values():
            begun.close()


def _begin(address: Address) -> socket.socket | OSError:
    """A socket that is connecting."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        begun = socket.socket(family, kind)
    except OSError as error:
        return error
    begun.setblocking(False)
    code = begun.connect_ex(place)
    if code in (0, errno.EINPROGRESS):
        return begun
    begun.close()
    return OSError(code, os.strerror(code))


def _outcome(address: Address, begun: socket.socket) -> tuple[Address, socket.socket | OSError]:
    code = begun.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        begun.close()
        return address, OSError(code, os.strerror(code))
    begun.setblocking(True)
    keep_alive(begun)
    return address, begun


def keep_alive(link: socket.socket) -> None:
    """Have the kernel see to it that an idle link stays, or is known to be dead; and that one over which
    nothing gets through any more ends as soon."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_TRIES)


def is_dead(link: socket.socket) -> bool:
    """Whether an idle link was closed by the other side, or given up by the kernel."""
    # Something to read is its end, or what nobody asked for.
    poller = select.poll()
    poller.register(link, select.POLLIN)
    return bool(poller.poll(0))
