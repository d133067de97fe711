"""Under which addresses this machine may be reached."""

from __future__ import annotations

import socket

#: Interfaces of bridges and containers: seldom what another machine can reach.
_UNLIKELY = ("docker", "br-", "virbr", "veth", "lxc")


def host_addresses() -> list[str]:
    """This host's IPv4 addresses at which others may reach it, the likeliest first; else loopback."""
    import psutil  # 20 ms, which nobody needs who is not open to other machines

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = [
        (name.startswith(_UNLIKELY), entry.address)
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]
    likeliest_first = [address for _, address in sorted(found, key=lambda pair: pair[0])]
    return list(dict.fromkeys(likeliest_first)) or ["127.0.0.1"]
