"""How fast a large value goes from worker to worker, as a share of what a plain socket does on the same path.

Two network namespaces joined by a veth pair (root needed), or loopback with --loopback. The sender holds the
value in /dev/shm. Compared: a plain socket (sendfile, received into one reused buffer and thrown away), the
same written to a new file in /dev/shm, and ours (handshake, checksums, written to a file in /dev/shm): into
new memory, and over a spare, as in a worker that has dropped a file of that size before; and that over an
encrypted link, too (``Manager(encrypt_transfers=True)``).

Run: python benchmarks/peer_rate.py [--mb 1024] [--rounds 5] [--loopback]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from harness import Row, emit

from graphvine.protocol.messages import Address
from graphvine.worker.server import TransferServer
from graphvine.worker.transfer import Fetched, Fetcher

SECRET = "s" * 64
#: Names of their own, so that two runs do not meet.
NEAR, FAR = f"gvrate-a{os.getpid()}", f"gvrate-b{os.getpid()}"
NEAR_HOST, FAR_HOST = "10.213.7.1", "10.213.7.2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loopback", action="store_true")
    parser.add_argument("--side", choices=["serve", "fetch"], help=argparse.SUPPRESS)
    parser.add_argument("--host", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "serve":
        serve(given.host, given.path)
    elif given.side == "fetch":
        fetch(given.host, given.path, given.rounds)
    else:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
            path = os.path.join(directory, "value")
            block = os.urandom(2**20)
            with open(path, "wb") as file:
                for _ in range(given.mb):
                    file.write(block)
            with contextlib.nullcontext() if given.loopback else namespaces():
                run(path, given)


def run(path: str, given: argparse.Namespace) -> None:
    host = "127.0.0.1" if given.loopback else FAR_HOST
    sides = []
    for name, side in ((FAR, "serve"), (NEAR, "fetch")):
        enter = [] if given.loopback else ["ip", "netns", "exec", name]
        arguments = ["--side", side, "--host", host, "--path", path, "--rounds", str(given.rounds)]
        sides.append([*enter, sys.executable, __file__, *arguments])
    with subprocess.Popen(sides[0], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdout.readline()
        subprocess.run(sides[1], check=True)
        server.stdin.close()


@contextlib.contextmanager
def namespaces() -> Iterator[None]:
    up = [
        f"ip netns add {NEAR}",
        f"ip netns add {FAR}",
        f"ip link add gvra netns {NEAR} type veth peer name gvrb netns {FAR}",
        f"ip -n {NEAR} addr add {NEAR_HOST}/24 dev gvra",
        f"ip -n {FAR} addr add {FAR_HOST}/24 dev gvrb",
        *(
            f"ip -n {name} link set {device} up"
            for name, device in ((NEAR, "gvra"), (FAR, "gvrb"), (NEAR, "lo"), (FAR, "lo"))
        ),
    ]
    try:
        for line in up:
            subprocess.run(line.split(), check=True)
        yield
    finally:
        for name in (NEAR, FAR):
            subprocess.run(["ip", "netns", "del", name], check=False)


PLAIN_PORT = 7411
OURS_PORT_FILE = "port"


def serve(host: str, path: str) -> None:
    servers = [
        TransferServer(lambda file, timeout_s: path, SECRET, host, encrypted=encrypted)
        for encrypted in (False, True)
    ]
    with open(os.path.join(os.path.dirname(path), OURS_PORT_FILE), "w") as file:
        file.write(" ".join(str(server.addresses[0].port) for server in servers))
    listener = socket.create_server((host, PLAIN_PORT))
    print("up", flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            break
        link, _ = listener.accept()
        with link, open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            offset = 0
            while offset < size:
                offset += os.sendfile(link.fileno(), file.fileno(), offset, size - offset)
    listener.close()
    for server in servers:
        server.close()


def fetch(host: str, path: str, rounds: int) -> None:
    directory = os.path.dirname(path)
    size = os.path.getsize(path)
    target = os.path.join(directory, "copy")
    with open(os.path.join(directory, OURS_PORT_FILE)) as file:
        address, encrypted_address = (Address(host, int(port)) for port in file.read().split())
    fetcher = Fetcher(SECRET)
    encrypting = Fetcher(SECRET, encrypted=True)
    kept = os.path.join(directory, "kept")
    names = ("plain", "plain, to a file", "ours, new memory", "ours", "ours, encrypted")
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name, act in (
            ("plain", lambda: plain(host, size, None)),
            ("plain, to a file", lambda: plain(host, size, target)),
            ("ours, new memory", lambda n=number: ours(fetcher, 2 * n, size, address, target)),
            # As in a worker that has dropped a file of this size before (see worker/spare.py).
            ("ours", lambda n=number: ours(fetcher, 2 * n + 1, size, address, kept)),
            ("ours, encrypted", lambda n=number: ours(encrypting, n, size, encrypted_address, kept)),
        ):
            began = time.perf_counter()
            act()
            # The first round makes links and warms up.
            if number:
                rates[name].append(size / (time.perf_counter() - began) / 1e9)
            if os.path.exists(target):
                os.unlink(target)
    fetcher.close()
    encrypting.close()
    best = statistics.median(rates["plain"])
    for name, values in rates.items():
        median = statistics.median(values)
        print(
            f"{name:18} {median:6.2f} GB/s   {median / best:.2f} of plain   {[round(v, 2) for v in values]}",
            file=sys.stderr,
        )
    gigabytes = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    what = f"a {size / 1e9:.1f} GB result between two hosts, share of a plain socket's rate"
    emit(
        Row("peer_rate", what, statistics.median(rates["ours"]) / best, "0.7", "0.9", {"GB/s": gigabytes}, "")
    )


def plain(host: str, size: int, target: str | None) -> None:
    buffer = bytearray(2**20)
    view = memoryview(buffer)
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(socket.create_connection((host, PLAIN_PORT)))
        file = stack.enter_context(open(target, "wb", buffering=0)) if target else None
        while count := link.recv_into(buffer):
            size -= count
            if file is not None:
                file.write(view[:count])
    assert size == 0


def ours(fetcher: Fetcher, number: int, size: int, address: Address, target: str) -> None:
    fetcher.start(number, size, 1, [address], target)
    select.select([fetcher.descriptor], [], [])
    (event,) = fetcher.completed()
    assert isinstance(event, Fetched), event


if __name__ == "__main__":
    main()
