"""Under which addresses this machine may be reached, best first."""

from __future__ import annotations

import socket


def reachable_hosts() -> tuple[str, ...]:
    """Addresses of the network interfaces that are up, then the host's name, then loopback."""
    import psutil  # 20 ms, which only a manager that is open to other machines need wait

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found: list[str] = []
    for interface, addresses in psutil.net_if_addrs().items():
        if interface in up:
            found += [a.address for a in addresses if a.family == socket.AF_INET]
    outside = [address for address in found if not address.startswith("127.")]
    return (*dict.fromkeys(outside), socket.gethostname(), "127.0.0.1")
