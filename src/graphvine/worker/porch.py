"""Where those stand who have come to a worker's transfer server and not proven yet that they know the secret.

One thread greets all of them at once (``protocol.greeting``), so that a stranger costs a descriptor and a few
hundred bytes, for ``GREETING_S`` at most, and there are never many (``protocol.crowds``). Of nobody more is
read than a greeting has, and those who know the secret pass between the others.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import time
from collections.abc import Iterator

from graphvine.protocol import bulk
from graphvine.protocol.crowds import Crowd, Refusals
from graphvine.protocol.greeting import Greeting, StrangerError

log = logging.getLogger(__name__)

#: So many may stand here at once.
_GUESTS = 128
#: So many are let onto the porch before those who stand there are looked after.
_AT_ONCE = 32
#: When there are no descriptors left nobody is let onto the porch for so long.
_PAUSE_S = 0.25
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Guest:
    """One who is being greeted."""

    def __init__(self, link: socket.socket, host: str, greeting: Greeting, due: float) -> None:
        self.link = link
        self.host = host
        self.greeting = greeting
        self.due = due
        self.heard = bytearray()
        self.in_handshake = False


class Porch:
    """Used by one thread, but for ``wake``."""

    def __init__(self, listener: socket.socket, number: int) -> None:
        """``number``: of this server (see ``Address``). Nobody is greeted before ``open``."""
        self._listener = listener
        self._secret = ""
        self._number = number
        self._encrypted = False
        self._not_yet: tuple[type[OSError], ...] = (BlockingIOError,)
        self._guests: Crowd[_Guest] = Crowd(_GUESTS)
        self._greeted: list[tuple[socket.socket, str]] = []
        self._refusals = Refusals(log.warning, time.monotonic)
        self._selector = selectors.DefaultSelector()
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._paused_until = 0.0
        listener.setblocking(False)

    def open(self, secret: str, encrypted: bool) -> None:
        """Greet whoever comes. ``encrypted``: links are to be."""
        self._secret = secret
        if encrypted:
            import ssl  # for those who need it

            self._not_yet = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
        self._encrypted = encrypted
        self._selector.register(self._listener, selectors.EVENT_READ)

    def wake(self) -> None:
        """Have ``wait`` come back; from any thread."""
        os.eventfd_write(self._waker, 1)

    def wait(self, timeout_s: float | None) -> list[tuple[socket.socket, str]]:
        """Look after who is here, for so long or until there is news. Who has proven to know the secret: the
        link, and its host."""
        for key, _ in self._selector.select(self._patience_s(timeout_s)):
            if key.fileobj is self._listener:
                self._let_in()
            elif key.data is None:
                os.eventfd_read(self._waker)
            # Who came meanwhile may have pushed this one out.
            elif key.data in self._guests:
                self._attend(key.data)
        self._turn_out_late(time.monotonic())
        greeted, self._greeted = self._greeted, []
        return greeted

    def close(self) -> None:
        """Everybody goes. The listener is closed by whoever made it."""
        for guest in self._guests:
            self._let_go(guest)
            guest.link.close()
        self._selector.close()
        os.close(self._waker)

    # -- who comes ---------------------------------------------------------------------------------------

    def _patience_s(self, timeout_s: float | None) -> float | None:
        times = [] if timeout_s is None else [timeout_s]
        now = time.monotonic()
        times += [guest.due - now for guest in self._oldest()]
        if self._paused_until:
            times.append(self._paused_until - now)
        return max(0.0, min(times)) if times else None

    def _oldest(self) -> Iterator[_Guest]:
        for guest in self._guests:
            yield guest
            return

    def _let_in(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                link, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._pause(error)
                    return
                continue  # that one has gone again
            try:
                self._welcome(link, str(peer[0]).removeprefix("::ffff:"))
            except OSError as error:
                link.close()
                log.debug("%s came and went: %s", peer[0], error)

    def _pause(self, error: OSError) -> None:
        self._refusals.note("", f"a transfer link could not be accepted: {error}")
        for guest in self._guests:
            self._turn_out(guest, "this worker has run out of descriptors")
        self._selector.unregister(self._listener)
        self._paused_until = time.monotonic() + _PAUSE_S

    def _welcome(self, link: socket.socket, host: str) -> None:
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.monotonic() + bulk.GREETING_S
        guest = _Guest(link, host, Greeting(self._secret, "server", self._number), due)
        if self._encrypted:
            from graphvine.protocol import tls

            guest.link = tls.wrap(link, self._secret, "server")
            guest.in_handshake = True
        leaving = self._guests.add(guest, host)
        if leaving is not None:
            self._selector.unregister(leaving.link)
            self._dismiss(leaving, "too many came at once")
        self._selector.register(guest.link, selectors.EVENT_READ, guest)
        if not self._encrypted:
            self._attend(guest, begin=True)

    # -- who is here -------------------------------------------------------------------------------------

    def _attend(self, guest: _Guest, begin: bool = False) -> None:
        """Go on with one's greeting as far as it goes without waiting."""
        try:
            if begin:
                _say(guest, guest.greeting.begin())
            if guest.in_handshake:
                self._shake_hands(guest)
            self._hear(guest)
        except self._not_yet:
            return
        except ConnectionError as error:
            self._let_go(guest)
            guest.link.close()
            log.debug("%s came and went: %s", guest.host, error)
        except (StrangerError, OSError) as error:
            self._turn_out(guest, str(error))
        else:
            self._let_go(guest)
            guest.link.setblocking(True)
            self._greeted.append((guest.link, guest.host))

    def _shake_hands(self, guest: _Guest) -> None:
        from graphvine.protocol import tls

        assert isinstance(guest.link, tls.TlsSocket)
        guest.link.do_handshake()
        tls.check_peer(guest.link, self._secret)
        guest.in_handshake = False
        _say(guest, guest.greeting.begin())

    def _hear(self, guest: _Guest) -> None:
        greeting = guest.greeting
        while greeting.wanted:
            heard = guest.link.recv(greeting.wanted - len(guest.heard))
            if not heard:
                raise ConnectionResetError("it left before it had proven to know the secret")
            guest.heard += heard
            if len(guest.heard) == greeting.wanted:
                heard = bytes(guest.heard)
                guest.heard.clear()
                _say(guest, greeting.feed(heard))

    def _turn_out_late(self, now: float) -> None:
        for guest in self._guests:
            if guest.due > now:
                break
            self._turn_out(guest, "it did not prove in time that it knows the secret")
        if self._paused_until and self._paused_until <= now:
            self._paused_until = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _turn_out(self, guest: _Guest, why: str) -> None:
        self._let_go(guest)
        self._dismiss(guest, why)

    def _dismiss(self, guest: _Guest, why: str) -> None:
        guest.link.close()
        self._refusals.note(guest.host, f"a transfer link from {guest.host} was refused: {why}")

    def _let_go(self, guest: _Guest) -> None:
        self._guests.remove(guest)
        with contextlib.suppress(KeyError):
            self._selector.unregister(guest.link)


def _say(guest: _Guest, words: bytes) -> None:
    """All of it fits into the kernel's buffer of a link on which nothing else was said. Raises OSError."""
    if words and guest.link.send(words) != len(words):
        raise OSError("it takes nothing in")
