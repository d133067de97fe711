"""ROOT files of a real xrootd server: inputs of commands, and opened by tasks; http with ranges."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask import delayed
from tests.xrootd import XrootdServer, serving, why_not

import graphvine as vine
from graphvine.manager.manager import Manager

uproot = pytest.importorskip("uproot", reason="needs uproot: pip install 'graphvine[hep]'")
np = pytest.importorskip("numpy")

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "all there")

needs_client = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("XRootD", "fsspec_xrootd")),
    reason="needs a client of xrootd: pip install 'graphvine[xrootd]'",
)
needs_aiohttp = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="uproot reads http with aiohttp"
)

EVENTS = 20_000
ENERGY = np.arange(EVENTS, dtype=np.float64)

READ = f"{shlex.quote(sys.executable)} -c " + shlex.quote(
    "import uproot; events = uproot.open('in.root')['Events'];"
    "print(events.num_entries, events['energy'].array().to_numpy().sum())"
)
WHOLE = f"{EVENTS} {ENERGY.sum()}\n"


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ROOT file of four clusters, one branch of which is ENERGY."""
    path = tmp_path_factory.mktemp("events") / "events.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"energy": np.float64, "noise": np.float64})
        noise = np.random.default_rng(1).random(EVENTS)
        for begin in range(0, EVENTS, 5000):
            part = slice(begin, begin + 5000)
            file["Events"].extend({"energy": ENERGY[part], "noise": noise[part]})
    return path


@pytest.fixture
def server(events: Path) -> Iterator[XrootdServer]:
    with serving() as server:
        shutil.copy(events, server.directory)
        yield server


@pytest.fixture
def m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "cache"))
    with vine.Manager(local_workers=2) as manager:
        yield manager


def use(m: Manager, file: vine.File, line: str = READ) -> vine.Task:
    """A task that uses a file, over."""
    task = vine.Task(line, cores=1)
    task.add_input(file, "in.root")
    m.submit(task)
    assert m.wait(120) is task
    return task


def energy(url: str, begin: int, end: int) -> float:
    """A task's work: open the file where it lies, read a part of one branch."""
    import uproot

    with uproot.open(url) as file:
        return float(file["Events"]["energy"].array(entry_start=begin, entry_stop=end).to_numpy().sum())


def sums(m: Manager, url: str) -> list[float]:
    parts = [delayed(energy, pure=False)(url, begin, begin + 2500) for begin in range(0, EVENTS, 2500)]
    return list(delayed(list)(parts).compute(scheduler=m.get))


PARTS = [float(ENERGY[begin : begin + 2500].sum()) for begin in range(0, EVENTS, 2500)]


@needs_client
def test_inputs_of_commands(m, server):
    declared = m.declare_xrootd(server.root_url("events.root"), cache=True)
    for file in (declared, m.declare_url(server.root_url("events.root")), declared):
        task = use(m, file)
        assert task.output == WHOLE, task.reason


@needs_client
def test_versions_are_told_apart(m, server):
    """The date and size that the server tells are the file's validator: what changed is fetched again."""
    path = server.directory / "changing"
    for text in ("one", "two, longer"):
        path.write_text(text)
        file = m.declare_xrootd(server.root_url("changing"), cache="forever")
        assert use(m, file, "cat in.root").output == text


@needs_client
def test_tasks_of_a_graph_open_files_themselves(m, server):
    assert sums(m, server.root_url("events.root")) == PARTS


@needs_client
def test_a_directory(m, server):
    (server.directory / "some" / "deep").mkdir(parents=True)
    (server.directory / "some" / "empty").mkdir()
    (server.directory / "some" / "a b").write_text("A")
    (server.directory / "some" / "deep" / "b").write_text("B")
    task = use(m, m.declare_url(server.root_url("some")), "cat in.root/*/b in.root/a*; ls in.root")
    assert (task.result, task.output) == ("success", "BAa b\ndeep\nempty\n")


def test_a_missing_file(m, server):
    url = server.root_url("absent.root")
    for file in (m.declare_xrootd(url), m.declare_url(url, cache="forever")):
        task = use(m, file, "cat in.root")
        assert (task.result, task.output) == ("input missing", "")
        assert f"{url}: there is no such file" in task.reason
    with pytest.raises(OSError, match=r"absent\.root"):
        delayed(energy)(url, 0, 1).compute(scheduler=m.get)


@needs_client
def test_a_server_that_is_not_there(m, server):
    url = server.root_url("events.root").replace(":1094/", ":1095/")
    once = {"XRD_CONNECTIONRETRY": "1", "XRD_CONNECTIONWINDOW": "1", "XRD_STREAMERRORWINDOW": "1"}
    task = use(m, m.declare_xrootd(url, env=once), "cat in.root")
    assert task.result == "input missing"
    assert url in task.reason


@needs_client
def test_a_file_that_may_be_seen_but_not_read(m, server):
    """One is refused at once; its content is asked for from nobody else."""
    path = server.directory / "secret"
    path.write_text("of root alone")
    path.chmod(0o600)
    (server.directory / "some").mkdir()
    path.rename(server.directory / "some" / "secret")
    for url in (server.root_url("some/secret"), server.root_url("some")):
        task = use(m, m.declare_url(url), "cat in.root")
        assert task.result == "input missing"
        assert f"{url}: OSError: " in task.reason
        assert "permission denied" in task.reason


@needs_client
def test_a_server_that_says_nothing(m, server):
    soon = {"XRD_REQUESTTIMEOUT": "1", "XRD_TIMEOUTRESOLUTION": "1"}
    url = server.root_url("events.root")
    with server.silent():
        task = use(m, m.declare_xrootd(url, env=soon), "cat in.root")
    assert task.result == "input missing"
    assert f"{url}: the server said nothing for too long" in task.reason


def test_http_as_an_input(m, server):
    assert use(m, m.declare_url(server.http_url("events.root"))).output == WHOLE
    task = use(m, m.declare_url(server.http_url("absent.root")))
    assert task.result == "input missing"
    assert "answered 404" in task.reason


@needs_aiohttp
def test_tasks_of_a_graph_read_ranges_over_http(m, server):
    assert sums(m, server.http_url("events.root")) == PARTS
