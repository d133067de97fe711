"""Hosts of their own on this machine: network namespaces, a public network, and sites behind NATs.

    with Internet() as net:
        net.public("near")                        # a host with an address of its own, as the manager's
        site = net.site("lab", hosts=2)           # a NAT that lets nobody in; behind it "lab0" and "lab1"
        net.start("lab0", [sys.executable, ...])

Every site has the same private addresses, as sites do. Needs root, and the commands ip and nft.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest


def why_not() -> str:
    """What is missing for hosts here; "" if nothing is."""
    missing = [name for name in ("ip", "nft", "tc", "nsenter", "unshare") if shutil.which(name) is None]
    if missing:
        return f"hosts of their own need the commands {', '.join(missing)}"
    if os.geteuid() != 0:
        return "hosts of their own need root"
    # Root of a container may do less.
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "nft", "list", "ruleset"], capture_output=True, check=False
    )
    return (
        "" if tried.returncode == 0 else "hosts of their own may not be made here: " + tried.stderr.decode()
    )


_numbers = itertools.count()
_missing = why_not()
needs_hosts = pytest.mark.skipif(bool(_missing), reason=_missing)

#: A NAT that lets nobody in, and forgets a connection that is idle for ``seconds``, without a word.
_NAT = """
table ip nat {{
    chain out {{ type nat hook postrouting priority srcnat; oifname "uplink" masquerade; }}
}}
table ip walls {{
    chain through {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "inside" tcp flags & (syn|ack) == syn ct state new accept
        iifname "inside" ip protocol != tcp accept
    }}
    chain come {{ type filter hook input priority filter; iifname "uplink" ct state new drop; }}
}}
"""
_GONE = """
table inet gone {
    chain come { type filter hook input priority -10; iifname != "lo" drop; }
    chain go { type filter hook output priority -10; oifname != "lo" drop; }
}
"""


class Internet:
    """The host in the middle is where the manager is: "mid", 10.214.0.1."""

    manager = "10.214.0.1"

    def __init__(self) -> None:
        self._prefix = f"gv{os.getpid() % 100_000}-{next(_numbers)}-"
        self._names: list[str] = []
        self._links = 0
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Internet:
        try:
            self._add("mid")
            ip("-n", self._ns("mid"), "addr", "add", f"{self.manager}/32", "dev", "lo")
            self.write("mid", "/proc/sys/net/ipv4/ip_forward", "1")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)

    # -- building --------------------------------------------------------------------------------------

    def public(self, name: str) -> str:
        """A host of the public network; its address."""
        self._links += 1
        number = self._links
        self._add(name)
        self._link("mid", f"to{number}", f"10.214.{number}.1/24", name, "uplink", f"10.214.{number}.2/24")
        ip("-n", self._ns(name), "route", "add", "default", "via", f"10.214.{number}.1")
        return f"10.214.{number}.2"

    def site(self, name: str, hosts: int) -> str:
        """A NAT with so many hosts behind it, ``name`` and a number; its public address."""
        gate = f"{name}-nat"
        address = self.public(gate)
        ip("-n", self._ns(gate), "link", "add", "inside", "type", "bridge")
        ip("-n", self._ns(gate), "addr", "add", "192.168.0.1/24", "dev", "inside")
        ip("-n", self._ns(gate), "link", "set", "inside", "up")
        self.write(gate, "/proc/sys/net/ipv4/ip_forward", "1")
        self.nft(gate, _NAT.format())
        for number in range(hosts):
            host = f"{name}{number}"
            self._add(host)
            self._link(gate, f"in{number}", "", host, "uplink", f"192.168.0.{10 + number}/24")
            ip("-n", self._ns(gate), "link", "set", f"in{number}", "master", "inside")
            ip("-n", self._ns(host), "route", "add", "default", "via", "192.168.0.1")
        return address

    def _add(self, name: str) -> None:
        ip("netns", "add", self._ns(name))
        self._names.append(self._ns(name))
        ip("-n", self._ns(name), "link", "set", "lo", "up")

    def _link(self, a: str, device_a: str, address_a: str, b: str, device_b: str, address_b: str) -> None:
        command = ["link", "add", device_a, "netns", self._ns(a), "type", "veth"]
        ip(*command, "peer", "name", device_b, "netns", self._ns(b))
        for name, device, address in ((a, device_a, address_a), (b, device_b, address_b)):
            if address:
                ip("-n", self._ns(name), "addr", "add", address, "dev", device)
            ip("-n", self._ns(name), "link", "set", device, "up")

    # -- changing --------------------------------------------------------------------------------------

    def nft(self, host: str, rules: str) -> None:
        self.run(host, ["nft", "-f", "-"], input=rules)

    def drop_all(self, host: str) -> None:
        """From now on no packet comes to a host, and none leaves it."""
        self.nft(host, _GONE)

    def slow_down(self, host: str, rate: str) -> None:
        """What leaves a host does so at this rate ("8mbit"), and waits for up to half a second."""
        shape = ["root", "tbf", "rate", rate, "burst", "32kbit", "latency", "500ms"]
        self.run(host, ["tc", "qdisc", "add", "dev", "uplink", *shape])

    def restore(self, host: str) -> None:
        self.nft(host, "delete table inet gone\n")

    def write(self, host: str, path: str, text: str) -> None:
        self.run(host, ["sh", "-c", f"echo {text} > {path}"])

    # -- running ---------------------------------------------------------------------------------------

    def _ns(self, name: str) -> str:
        return self._prefix + name

    def run(self, host: str, command: list[str], **options: Any) -> str:
        """Run a command on a host to its end; its output."""
        whole = ["ip", "netns", "exec", self._ns(host), *command]
        return subprocess.run(whole, check=True, text=True, stdout=subprocess.PIPE, **options).stdout

    def start(self, host: str, command: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host, which ends with this."""
        # Not ip netns exec: without the control groups below /sys no batch system would start.
        whole = ["nsenter", f"--net=/run/netns/{self._ns(host)}", "unshare", "--mount", *command]
        process = subprocess.Popen(whole, text=True, **options)
        self._processes.append(process)
        return process

    def start_manager(self, script: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """Run a script in the middle that prints its manager's port first; the process and the port."""
        command = [sys.executable, str(script), *arguments]
        process = self.start("mid", command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    def start_worker(self, host: str, port: str, directory: Path, *options: str) -> subprocess.Popen[str]:
        """A worker on a host, of that name, with its log in ``directory``."""
        command = [
            sys.executable,
            "-m",
            "graphvine.worker",
            self.manager,
            port,
            "--cores",
            "1",
            "--name",
            host,
        ]
        with open(directory / f"{host}.log", "w") as log:
            return self.start(host, [*command, *options], stdout=log, stderr=log)

    def received_mb(self, host: str, device: str = "uplink") -> float:
        """What came to a host over a device until now."""
        path = f"/sys/class/net/{device}/statistics/rx_bytes"
        return int(self.run(host, ["cat", path])) / 1e6


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
