"""Workers on hosts of their own (network namespaces): side by side, and where they can't see each other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and the ip command"
)

SCRIPT = """
import json, sys
import dask
from dask import delayed
from graphvine import Manager

SIZE = 20_000_000

def make():
    import os
    return os.urandom(SIZE)

def digest(data):
    import hashlib
    return hashlib.sha256(data).hexdigest()

def make_tree():
    import os
    from graphvine.protocol.trees import NewTree
    from graphvine.worker import scratch
    root = scratch.directory()
    for number in range(200):
        with open(os.path.join(root, str(number)), "wb") as file:
            file.write(os.urandom(SIZE // 4 if number in (50, 60) else number))
    return NewTree(root)

def digest_tree(tree):
    import hashlib, os
    found = hashlib.sha256()
    for name in sorted(os.listdir(tree.path)):
        with open(os.path.join(tree.path, name), "rb") as file:
            found.update(name.encode() + file.read())
    return found.hexdigest()

manager = Manager(port=0, host="*", local_workers=0, encrypt_transfers=sys.argv[1] == "encrypted")
print(manager.port, flush=True)
with dask.annotate(workers=["near"]):
    data = delayed(make)(dask_key_name="data")
with dask.annotate(workers=["far"]):
    there = delayed(digest)(data, dask_key_name="there")
with dask.annotate(workers=["near"]):
    here = delayed(digest)(data, dask_key_name="here")
    tree = delayed(make_tree)(dask_key_name="tree")
    tree_here = delayed(digest_tree)(tree, dask_key_name="tree here")
with dask.annotate(workers=["far"]):
    tree_there = delayed(digest_tree)(tree, dask_key_name="tree there")
wanted = ["there", "here", "data", "tree there", "tree here", "tree"]
graph = delayed([there, here, data, tree_there, tree_here, tree]).__dask_graph__()
first, second, whole, third, fourth, brought = manager.get(graph, wanted)
print(json.dumps([first, second, digest(whole), len(whole), third, fourth, digest_tree(brought)]))
manager.close()
"""


class Hosts:
    """A host in the middle and two others, each on a link of its own to the middle."""

    names = ("gvt-mid", "gvt-near", "gvt-far")

    def build(self) -> None:
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for number, name in enumerate(self.names[1:], 1):
            link = f"to{number}"
            ip(
                "link",
                "add",
                link,
                "netns",
                self.names[0],
                "type",
                "veth",
                "peer",
                "name",
                "uplink",
                "netns",
                name,
            )
            ip("-n", self.names[0], "addr", "add", f"10.214.{number}.1/24", "dev", link)
            ip("-n", self.names[0], "link", "set", link, "up")
            ip("-n", name, "addr", "add", f"10.214.{number}.2/24", "dev", "uplink")
            ip("-n", name, "link", "set", "uplink", "up")
            ip("-n", name, "route", "add", "default", "via", f"10.214.{number}.1")

    def join(self, together: bool) -> None:
        """Whether near and far can reach each other."""
        switch = "1" if together else "0"
        command = ["sh", "-c", f"echo {switch} > /proc/sys/net/ipv4/ip_forward"]
        subprocess.run(["ip", "netns", "exec", self.names[0], *command], check=True)

    def start(self, host: str, *command: str, **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(["ip", "netns", "exec", host, *command], text=True, **options)  # type: ignore[call-overload,no-any-return]

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        made.build()
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize("links", ["plain", "encrypted"])
@pytest.mark.parametrize("together", [True, False], ids=["peers", "only the manager is reachable"])
def test_a_large_result_and_a_directory_reach_the_other_worker_and_the_user(
    hosts: Hosts, together: bool, links: str, tmp_path: Path
) -> None:
    hosts.join(together)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    manager = hosts.start("gvt-mid", sys.executable, str(script), links, stdout=subprocess.PIPE)
    assert manager.stdout is not None
    port = manager.stdout.readline().strip()
    workers = []
    for number, name in enumerate(("near", "far"), 1):
        command = [sys.executable, "-m", "graphvine.worker", f"10.214.{number}.1", port, "--cores", "1"]
        with open(tmp_path / f"{name}.log", "w") as log:
            workers.append(hosts.start(f"gvt-{name}", *command, "--name", name, stdout=log, stderr=log))
    try:
        out, _ = manager.communicate(timeout=90)
    finally:
        for process in (manager, *workers):
            process.terminate()
            process.wait(20)
    there, here, whole, size, tree_there, tree_here, tree = json.loads(out)
    assert size == 20_000_000
    assert there == here == whole
    assert tree_there == tree_here == tree
