"""Real managers and real workers, and a check that nothing of them stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import cloudpickle
import psutil
import pytest

from graphvine.manager.manager import Manager

#: How much of a worker's log a failure shows.
LOG_LINES = 100

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure comes what the workers of the test logged."""
    report = yield
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and directory is not None:
        for log in sorted(directory.rglob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            report.sections.append((f"{log.relative_to(directory)}, its last lines", "\n".join(lines)))
    return report


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Connection files of this test are its own."""
    directory = tmp_path / "state"
    monkeypatch.setenv("GRAPHVINE_STATE", str(directory))
    return directory


@pytest.fixture(autouse=True)
def stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the workers of this test, and no others, keep results in memory."""
    with tempfile.TemporaryDirectory(prefix="graphvine-test-", dir="/dev/shm") as directory:
        monkeypatch.setenv("GRAPHVINE_MEMORY_DIR", directory)
        yield Path(directory)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The node's cache, of this test alone."""
    monkeypatch.setenv("GRAPHVINE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def nothing_left(state: Path, stores: Path) -> Iterator[None]:
    """After the test no process of it and no store of it is left."""
    yield
    left = family(os.getpid())
    _, alive = psutil.wait_procs(left, timeout=20)
    commands = [describe(process) for process in alive]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert commands == []
    # Where the user's process went without a word, its worker finds out and cleans up on its own.
    end = time.monotonic() + 20
    while (left_behind := list(stores.iterdir())) and time.monotonic() < end:
        time.sleep(0.01)
    assert left_behind == []
    assert list(state.glob("*")) == []


def family(pid: int) -> list[psutil.Process]:
    """All processes below ``pid``."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return "gone"


@pytest.fixture(scope="module")
def by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """For a module whose functions go to executors, which can't import it."""
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture
def manager() -> Iterator[Manager]:
    """A manager with an embedded worker of two cores."""
    with Manager(local_workers=2) as made:
        yield made


@pytest.fixture
def bare_manager() -> Iterator[Manager]:
    """A manager without an embedded worker."""
    with Manager(local_workers=0) as made:
        yield made


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Starts stand-alone workers; kills what is left of them at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        manager: Manager, cores: int = 1, name: str | None = None, *more: str
    ) -> subprocess.Popen[bytes]:
        name = name or f"worker-{len(started) + 1}"
        command = [sys.executable, "-m", "graphvine.worker", "127.0.0.1", str(manager.port)]
        command += ["--cores", str(cores), "--name", name, *more]
        with open(tmp_path / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
    for process in started:
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
