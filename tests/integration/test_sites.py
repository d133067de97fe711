"""Workers behind NATs that let nobody in, hosts that swallow packets, firewalls that forget: real packets."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.integration.hosts import Internet, needs_hosts

pytestmark = needs_hosts

BEGIN = """
import hashlib, json, os, sys, time
import dask
from dask import delayed
from graphvine import Manager
from graphvine.manager.settings import Settings

MB = 2**20

def make(size, seed):
    import random
    return random.Random(seed).randbytes(size)

def digest(*data):
    import hashlib
    found = hashlib.sha256()
    for one in data:
        found.update(one)
    return found.hexdigest()

def make_tree(size):
    import os
    from graphvine.protocol.trees import NewTree
    from graphvine.worker import scratch
    root = scratch.directory()
    for number in range(20):
        with open(os.path.join(root, str(number)), "wb") as file:
            file.write(make(size // 20, number))
    return NewTree(root)

def digest_tree(tree):
    import os
    names = sorted(os.listdir(tree.path), key=int)
    return digest(*[open(os.path.join(tree.path, name), "rb").read() for name in names])

def on(worker, function, *arguments):
    with dask.annotate(workers=[worker]):
        return delayed(function, pure=False)(*arguments)

def get(*values):
    return manager.get(delayed(list(values)).__dask_graph__(), [value.key for value in values])

def wait_for(*names):
    while not set(names) <= set(manager.worker_names()):
        time.sleep(0.01)

def step(**what):
    # Tells the test, and waits for its word.
    print(json.dumps(what), flush=True)
    return sys.stdin.readline().strip()

with dask.config.set({"optimization.fuse.active": False}):
    manager = Manager(port=0, host="*", local_workers=0, settings=Settings(SETTINGS))
    print(manager.port, flush=True)
"""


class Play:
    """A script in the middle, and its steps."""

    def __init__(self, net: Internet, directory: Path, body: str, settings: str = "") -> None:
        script = directory / "script.py"
        script.write_text(
            BEGIN.replace("Settings(SETTINGS)", f"Settings({settings})") + textwrap.dedent(body)
        )
        self.process, self.port = net.start_manager(script)

    def hear(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the script ended"
        return json.loads(line)  # type: ignore[no-any-return]

    def say(self, word: str = "go on") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0


@pytest.fixture
def net() -> Iterator[Internet]:
    with Internet() as made:
        yield made


def test_two_sites_that_let_nobody_in_and_a_public_host(net: Internet, tmp_path: Path) -> None:
    """Everything gets everywhere; neighbours help each other, and a large file comes to a site about once."""
    net.site("a", hosts=1)
    net.site("b", hosts=3)
    net.public("c")
    play = Play(
        net,
        tmp_path,
        """
    names = ["a0", "b0", "b1", "b2", "c"]
    wait_for(*names)
    small = [on(one, make, 3 * MB, n) for n, one in enumerate(names)]
    # Each to each: what can be reached is found out.
    first = get(*[on(one, digest, value) for value in small for one in names])
    tree = on("a0", make_tree, 10 * MB)
    trees = get(*[on(one, digest_tree, tree) for one in names])
    step(first=first, trees=trees)
    large = on("a0", make, 60 * MB, "large")
    later = get(*[on(one, digest, large) for one in names])
    step(later=later)
    back = get(on("b1", make, 20 * MB, "back"))[0]
    step(back=digest(back), expected=digest(make(20 * MB, "back")))
    manager.close()
    """,
    )
    for host in ("a0", "b0", "b1", "b2", "c"):
        net.start_worker(host, play.port, tmp_path)
    heard = play.hear()
    first = heard["first"]
    assert isinstance(first, list)
    assert [len(set(first[n : n + 5])) for n in range(0, 25, 5)] == [1] * 5
    assert len(set(heard["trees"])) == 1  # type: ignore[call-overload]
    before = net.received_mb("b-nat")
    play.say()
    assert len(set(play.hear()["later"])) == 1  # type: ignore[call-overload]
    came = (net.received_mb("b-nat") - before) / 62.9
    assert came < 2.0, f"it came to the site {came:.1f} times"
    play.say()
    heard = play.hear()
    assert heard["back"] == heard["expected"]
    play.say()
    play.end()
    logs = "".join((tmp_path / f"{host}.log").read_text() for host in ("a0", "b0", "b1", "b2", "c"))
    assert "Traceback" not in logs


def test_a_host_that_swallows_packets_is_asked_once(net: Internet, tmp_path: Path) -> None:
    net.public("open")
    net.public("closed")
    net.nft(
        "closed",
        """
        table ip walls {
            counter knocks { }
            chain come { type filter hook input priority filter; ct state new counter name knocks drop; }
        }
        """,
    )
    play = Play(
        net,
        tmp_path,
        """
    wait_for("open", "closed")
    for turn in range(3):
        values = [on("closed", make, 2 * MB, n) for n in range(5)]
        found = get(*[on(one, digest, value) for one in ("open", "closed") for value in values])
        step(right=found[:5] == found[5:])
    manager.close()
    """,
    )
    for host in ("open", "closed"):
        net.start_worker(host, play.port, tmp_path)
    knocks = []
    for _ in range(3):
        assert play.hear()["right"]
        listed = json.loads(net.run("closed", ["nft", "-j", "list", "counter", "ip", "walls", "knocks"]))
        knocks.append(listed["nftables"][1]["counter"]["packets"])
        play.say()
    play.end()
    assert knocks[0] > 0, "it was tried"
    assert knocks[2] == knocks[1] == knocks[0], "and then no more"


def test_files_through_a_thin_line_do_not_keep_heartbeats_waiting(net: Internet, tmp_path: Path) -> None:
    """6 MB over 8 Mbit/s, asked for all at once by several, from one that is lost after 2 s of silence."""
    net.site("a", hosts=1)
    net.site("b", hosts=2)
    play = Play(
        net,
        tmp_path,
        """
    wait_for("a0", "b0", "b1")
    values = [on("a0", make, MB, n) for n in range(6)]
    found = get(*[on(one, digest, value) for value in values for one in ("a0", "b0", "b1")])
    step(found=found)
    manager.close()
    """,
        "silent_s=2.0",
    )
    for host in ("a0", "b0", "b1"):
        net.start_worker(host, play.port, tmp_path)
    net.slow_down("a-nat", "8mbit")
    found = play.hear()["found"]
    assert isinstance(found, list)
    assert [len(set(found[n : n + 3])) for n in range(0, 18, 3)] == [1] * 6
    play.say()
    play.end()
    assert (tmp_path / "a0.log").read_text().count("joined manager") == 1, "it was never taken for lost"


# -- silence ----------------------------------------------------------------------------------------------


WORK = """
    wait_for("a", "b")

    def work(n, *others):
        import time
        with open("BEGUN", "ab", buffering=0) as file:
            file.write(b"%d\\n" % n)
        time.sleep(0.05)
        return make(20_000, n)

    leaves = [delayed(work)(n) for n in range(200)]
    whole = [delayed(work)(200 + n, *leaves[n : n + 4]) for n in range(0, 200, 4)]
    future = manager.compute(delayed(digest)(*whole))
    step()
    step(right=future.result() == digest(*[make(20_000, 200 + n) for n in range(0, 200, 4)]))
"""


def drop(net: Internet, directory: Path, seconds: int | None, settings: str = "", *options: str) -> None:
    """Packets are dropped between one worker and everybody else, for so long (None: for good)."""
    directory.mkdir()
    begun = directory / "begun"
    for host in ("a", "b"):
        net.public(host)
    back = ['wait_for("a", "b")', "step()"] if seconds else []
    body = WORK.replace("BEGUN", str(begun)) + "".join(f"    {line}\n" for line in [*back, "manager.close()"])
    play = Play(net, directory, body, settings)
    workers = [net.start_worker(host, play.port, directory, *options) for host in ("a", "b")]
    play.hear()
    play.say()
    while not begun.exists() or begun.read_text().count("\n") < 40:
        assert play.process.poll() is None
        time.sleep(0.01)
    net.drop_all("b")
    if seconds is not None:
        net.run("mid", ["sleep", str(seconds)])
        net.restore("b")
    assert play.hear()["right"]
    play.say()
    counted = [int(line) for line in begun.read_text().split()]
    assert set(counted) == {*range(200), *range(200, 400, 4)}
    joined = (directory / "b.log").read_text().count("joined manager")
    if seconds == 3 or settings:
        assert joined == 1, "nobody noticed"
        assert len(counted) == 250, "nothing was done twice"
    if seconds is not None:
        play.hear()
        play.say()
        if seconds == 30 and not settings:
            assert (directory / "b.log").read_text().count("joined manager") == 2, "it came back"
    play.end()
    if seconds is None:
        assert workers[1].wait(100) == 1
        assert "no manager answered" in (directory / "b.log").read_text()


def forget(net: Internet, directory: Path) -> None:
    """A firewall forgets what is idle for 30 s and says nothing; a kept link and the manager's are used again
    after 40."""
    directory.mkdir()
    net.site("a", hosts=1)
    net.public("c")
    net.write("a-nat", "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "30")
    net.write("a-nat", "/proc/sys/net/netfilter/nf_conntrack_tcp_loose", "0")
    play = Play(
        net,
        directory,
        """
    wait_for("a0", "c")
    def turn(n):
        value = on("c", make, 2 * MB, n)
        return get(on("a0", digest, value))
    turn(1)
    step()
    step(right=turn(2)[0] == digest(make(2 * MB, 2)))
    manager.close()
    """,
    )
    net.nft(
        "c",
        """
        table ip count {
            counter calls { }
            chain come {
                type filter hook input priority filter;
                tcp flags & (syn|ack) == syn counter name calls
            }
        }
        """,
    )
    for host in ("a0", "c"):
        net.start_worker(host, play.port, directory)
    play.hear()
    net.run("a-nat", ["sleep", "40"])
    play.say()
    assert play.hear()["right"]
    listed = json.loads(net.run("c", ["nft", "-j", "list", "counter", "ip", "count", "calls"]))
    assert listed["nftables"][1]["counter"]["packets"] == 1, "over one link"
    play.say()
    play.end()
    assert (directory / "a0.log").read_text().count("joined manager") == 1


def test_packets_are_dropped_for_3_s(net: Internet, tmp_path: Path) -> None:
    drop(net, tmp_path / "3 s", 3)


@pytest.mark.slow
def test_long_silences(tmp_path: Path) -> None:
    """Side by side, each with hosts of its own, as they mostly wait."""
    plays: dict[str, Callable[[Internet, Path], None]] = {
        "30 s": lambda net, directory: drop(net, directory, 30),
        "30 s of 60": lambda net, directory: drop(net, directory, 30, "silent_s=60.0"),
        "for good": lambda net, directory: drop(net, directory, None, "", "--timeout", "25"),
        "firewall": forget,
    }
    with ExitStack() as nets, ThreadPoolExecutor(len(plays)) as side_by_side:
        made = {name: nets.enter_context(Internet()) for name in plays}
        ended = [side_by_side.submit(play, made[name], tmp_path / name) for name, play in plays.items()]
        for play in ended:
            play.result()
