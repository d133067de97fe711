"""What another user of the same machine gets: nothing. (Not even of a user whose umask is careless.)"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dask import delayed
from tests.integration.conftest import StartWorker

import graphvine
from graphvine.manager.manager import Manager
from graphvine.protocol.connection import read_connection
from graphvine.protocol.trees import NewTree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")

#: As user 1000: which files can be read, which directories entered or written to; and whether a port answers.
LOOK = """
import json, os, socket, sys
"localhost".encode("idna")  # whatever is imported later may be out of reach
places, ports = json.loads(sys.argv[1])
os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
found = []
def look(path):
    try:
        names = os.listdir(path)
    except NotADirectoryError:
        try:
            open(path, "rb").close()
        except OSError:
            return
        found.append(path)
        return
    except OSError:
        return
    if os.access(path, os.W_OK):
        found.append("writable: " + path)
    for name in names:
        look(os.path.join(path, name))
for place in places:
    look(place)
for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
    for what in ("environ", "fd", "maps"):
        try:
            mine = os.stat(f"/proc/{pid}").st_uid == 1000
            read = os.listdir if what == "fd" else lambda path: open(path, "rb").read()
            if int(pid) in json.loads(sys.argv[2]) and not mine and read(f"/proc/{pid}/{what}"):
                found.append(f"/proc/{pid}/{what}")
        except OSError:
            pass
answers = []
for port in ports:
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.settimeout(20)
        heard = b""
        try:
            link.sendall(b"x" * 500)
            while data := link.recv(1000):
                heard += data
        except OSError:
            pass
        answers.append(len(heard))
print(json.dumps([found, answers]))
"""


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Everything a run keeps lies where every user can get to; and the umask takes nothing away."""
    path = Path(tempfile.mkdtemp(prefix="graphvine-test-", dir="/tmp"))
    path.chmod(0o755)
    for name in ("cache", "tmp", "work"):
        (path / name).mkdir(mode=0o755)
    monkeypatch.setenv("GRAPHVINE_STATE", str(path / "state"))
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(path / "cache" / "graphvine"))
    monkeypatch.setenv("TMPDIR", str(path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = os.umask(0o022)
    yield path
    os.umask(before)
    monkeypatch.setattr(tempfile, "tempdir", None)
    shutil.rmtree(path)


def make_tree() -> NewTree:
    from graphvine.worker import scratch

    root = scratch.directory()
    Path(root, "file").write_text("secret")
    return NewTree(root)


def test_nothing_can_be_read_or_changed(
    public: Path, stores: Path, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.chmod(0o755)
    with Manager(port=0, local_workers=0) as manager:
        worker = start_worker(manager, 2, None, "--workdir", str(public / "work"))
        # Results in memory and on disk, trees, kept files, staged buffers, and what a command leaves open.
        kept = manager.persist(delayed(os.urandom)(1_000_000)), manager.persist(delayed(make_tree)())
        task = graphvine.Task("cat in > out")
        task.add_input(manager.declare_buffer(b"hello" * 100_000, cache="forever"), "in")
        out = manager.declare_temp()
        task.add_output(out, "out")
        manager.submit(task)
        assert manager.wait(60).successful()
        connection = read_connection(manager.connection_file)
        family = [psutil.Process(), psutil.Process(worker.pid)]
        family += family[1].children(recursive=True)
        places = [str(public), str(stores)]
        assert sum(len(names) for place in places for _, _, names in os.walk(place)) > 5
        found, answers = look(places, [manager.port], [one.pid for one in family])
        assert found == []
        assert len(answers) == 1
        assert_no_secrets(family, [connection.secret, connection.worker_secret])
        del kept


def look(places: list[str], ports: list[int], pids: list[int]) -> tuple[list[str], list[int]]:
    command = [sys.executable, "-c", LOOK, json.dumps([places, ports]), json.dumps(pids)]
    looked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert looked.returncode == 0, looked.stderr
    found, answers = json.loads(looked.stdout)
    return found, answers


def assert_no_secrets(family: list[psutil.Process], secrets: list[str]) -> None:
    """Command lines are for all to read; environments are handed down to whatever a task starts."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            told = " ".join(process.cmdline()) + " ".join(process.environ().values())
            assert not [secret for secret in secrets if secret in told]
