"""Files between workers: a server that hands out what is held here, and a fetcher that brings what is not.

Both have their own threads; the agent's loop learns of finished fetches through ``Fetcher.descriptor``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from graphvine.protocol.messages import Address


class Fetched(msgspec.Struct):
    """The whole file is at the path that was given, and its checksum was right."""

    file: int
    size: int
    holder: int


class FetchFailed(msgspec.Struct):
    """``unreachable``: no link could be made at all (firewall, NAT, gone), so the relay is the way."""

    file: int
    holder: int
    reason: str
    unreachable: bool


class TransferServer:
    def __init__(
        self,
        lookup: Callable[[int], str | bytes | None],
        secret: str,
        host: str = "",
        *,
        max_links: int = 64,
        timeout_s: float = 30.0,
    ) -> None:
        """Listens at once, on any free port of ``host`` ("": all interfaces). ``lookup`` is called from
        threads: path or content of a file, None when not held."""
        raise NotImplementedError

    @property
    def addresses(self) -> list[Address]:
        """Where others find it (one per address of this host that could be reached from outside; loopback
        only when there is nothing else)."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Fetcher:
    def __init__(self, secret: str, *, total: int = 8, per_source: int = 2, timeout_s: float = 30.0) -> None:
        raise NotImplementedError

    def start(self, file: int, size: int, holder: int, addresses: Sequence[Address], path: str) -> None:
        """Fetch ``file`` (``size`` bytes expected) from worker ``holder`` into ``path`` (made, or
        overwritten; give ``Store.incoming``). Ends in exactly one of Fetched, FetchFailed, or ``cancel``."""
        raise NotImplementedError

    def cancel(self, file: int) -> None:
        """Stop a fetch; nothing is reported about it (any more), and its path is removed."""
        raise NotImplementedError

    @property
    def descriptor(self) -> int:
        """Readable when ``completed`` has something."""
        raise NotImplementedError

    def completed(self) -> list[Fetched | FetchFailed]:
        raise NotImplementedError

    def close(self) -> None:
        """Stop everything; unfinished fetches are not reported."""
        raise NotImplementedError
