"""Under which addresses this machine may be reached."""

from __future__ import annotations

import socket

#: Interfaces of bridges and containers: seldom what another machine can reach.
_UNLIKELY = ("docker", "br-", "virbr", "veth", "lxc")


def host_addresses() -> list[str]:
    """This host's addresses at which others may reach it, the likeliest first, IPv4 before IPv6; else
    loopback."""
    import psutil  # 20 ms, which nobody needs who is not open to other machines

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = [
        (name.startswith(_UNLIKELY), entry.family == socket.AF_INET6, entry.address)
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and _reachable(entry.family, entry.address)
    ]
    likeliest_first = [address for *_, address in sorted(found, key=lambda one: one[:2])]
    return list(dict.fromkeys(likeliest_first)) or ["127.0.0.1"]


def _reachable(family: int, address: str) -> bool:
    if family == socket.AF_INET:
        return not address.startswith("127.")
    # Those of one link only (fe80::...%eth0) mean nothing on another machine.
    return family == socket.AF_INET6 and address != "::1" and not address.lower().startswith("fe80:")
