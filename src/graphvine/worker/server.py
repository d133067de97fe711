"""A transfer server: hands out the files that are held here, to other workers and to the manager.

One thread lets in whoever knows the secret (``worker.porch``), and each link then has a thread of its own,
which answers one question after the other (``worker.serving``). Links are bounded: the one that was idle
longest makes room.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from graphvine.protocol.addresses import host_addresses
from graphvine.protocol.bulk import receive_request, set_timeout
from graphvine.protocol.dialing import keep_alive
from graphvine.protocol.messages import Address
from graphvine.worker.porch import Porch
from graphvine.worker.serving import Held, Served

log = logging.getLogger(__name__)

#: Links on which nothing is asked for so long are closed.
_IDLE_S = 120.0
#: Links that became idle just now are not closed to make room.
_SPARED_S = 0.25
#: So many that were let in wait for others to make room; beyond that, who waits longest goes.
_WAITING = 256


class TransferServer:
    def __init__(
        self,
        lookup: Callable[[int, float], Held],
        secret: str,
        host: str = "",
        *,
        max_links: int = 64,
        timeout_s: float = 20.0,
        encrypted: bool = False,
        opened: bool = True,
    ) -> None:
        """Listens at once, on any free port of ``host`` ("": all interfaces). ``lookup`` is called from
        threads with a file and how many seconds to wait for it to begin to come: its path, content,
        or arrival; None when it is not held. ``encrypted``: links are. ``opened`` False: that, or the
        secret, is not known yet, and who comes has to wait for ``open``."""
        self._lookup = lookup
        self._timeout_s = timeout_s
        self._listener = listen(host)
        self._host = host
        self._number = secrets.randbits(63) | 1
        self._helpers = ThreadPoolExecutor(2, thread_name_prefix="graphvine-hash")
        self._served = Served(self._helpers)
        self._porch = Porch(self._listener, self._number)
        self._max_links = max_links
        self._lock = threading.Lock()
        self._links: dict[socket.socket, float] = {}
        """Open links, and since when each waits to be asked (infinity: it does not wait)."""
        self._waiting: deque[tuple[socket.socket, str]] = deque()
        """Links that there is no room for yet."""
        self._threads: set[threading.Thread] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._main, name="graphvine-porch", daemon=True)
        if opened:
            self.open(secret, encrypted)

    def open(self, secret: str, encrypted: bool) -> None:
        """Begin to let others in. Does nothing when that was done before."""
        if self._thread.ident is None:
            self._porch.open(secret, encrypted)
            self._thread.start()

    @property
    def addresses(self) -> list[Address]:
        """Where others find it (one per address of this host that could be reached from outside; loopback
        only when there is nothing else)."""
        port = self._listener.getsockname()[1]
        hosts = [self._host] if self._host not in ("", "0.0.0.0") else host_addresses()
        return [Address(host, port, self._number) for host in hosts]

    def close(self) -> None:
        with self._lock:
            self._closing = True
            for link in self._links:
                _shut(link)
        if self._thread.ident is not None:
            self._porch.wake()
            self._thread.join()
        self._porch.close()
        self._listener.close()
        for thread in list(self._threads):
            thread.join()
        self._helpers.shutdown()

    # -- the porch's thread ------------------------------------------------------------------------------

    def _main(self) -> None:
        patience_s = None
        while not self._closing:
            self._waiting += self._porch.wait(patience_s)
            while len(self._waiting) > _WAITING:
                self._waiting.popleft()[0].close()
            patience_s = self._seat()
        for link, _ in self._waiting:
            link.close()

    def _seat(self) -> float | None:
        """Give links that wait their threads. In how many seconds to look again where there is no room."""
        with self._lock:
            while self._waiting and len(self._links) < self._max_links and not self._closing:
                self._begin(*self._waiting.popleft())
            return self._make_room() if self._waiting else None

    def _begin(self, link: socket.socket, host: str) -> None:
        thread = threading.Thread(
            target=self._serve, args=(link, host), name=f"graphvine-serve-{host}", daemon=True
        )
        self._links[link] = float("inf")
        self._threads.add(thread)
        thread.start()

    def _make_room(self) -> float | None:
        idlest = min(self._links, key=self._links.__getitem__)
        # Never one whose first question may be on its way.
        spared_s = self._links[idlest] + _SPARED_S - time.monotonic()
        if spared_s == float("inf"):
            return None
        if spared_s <= 0:
            _shut(idlest)
            return None
        return spared_s

    # -- a link's thread -------------------------------------------------------------------------------

    def _serve(self, link: socket.socket, host: str) -> None:
        try:
            with link:
                keep_alive(link)
                self._answer_all(link)
        except OSError as error:
            log.debug("a transfer link with %s ended: %s", host, error)
        finally:
            with self._lock:
                del self._links[link]
                self._threads.discard(threading.current_thread())
                self._tell_who_waits()

    def _answer_all(self, link: socket.socket) -> None:
        while True:
            with self._lock:
                self._links[link] = time.monotonic()
                self._tell_who_waits()
            set_timeout(link, _IDLE_S)
            request = receive_request(link)
            if request is None:
                return
            self._links[link] = float("inf")
            set_timeout(link, self._timeout_s)
            self._served.answer(link, *request, self._lookup)

    def _tell_who_waits(self) -> None:
        if self._waiting and not self._closing:
            self._porch.wake()


def listen(host: str) -> socket.socket:
    """A listener on any free port of ``host`` ("": all interfaces, of IPv4 and IPv6). Raises OSError."""
    if not host and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # IPv6 may be known here and switched off
            return socket.create_server(("", 0), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, backlog=1024)


def _shut(link: socket.socket) -> None:
    """Make whoever waits on it fail at once."""
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
