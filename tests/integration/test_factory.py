"""The factory as a process of its own: for the manager of its name, and for the next one."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.integration.conftest import family

from graphvine.deploy.factory import Factory
from graphvine.manager.manager import Manager

TIMEOUT_S = 60.0
#: For which a worker is kept that nobody needs.
HOLD = ("--hold", "0.1")

StartFactory = Callable[..., "subprocess.Popen[bytes]"]


def double(number: int) -> int:
    return 2 * number


def take(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@pytest.fixture
def start_factory(tmp_path: Path) -> Iterator[StartFactory]:
    """Starts factories of local workers; asks those that are left at the end to end, which they must."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "graphvine.cli", "factory", "-T", "local", *options]
        with open(tmp_path / f"factory-{len(started)}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # As from a terminal, also where the tests themselves run under nohup.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
    for process in started:
        process.wait(TIMEOUT_S)


def log_of(tmp_path: Path, number: int = 0) -> str:
    return (tmp_path / f"factory-{number}.log").read_text()


def public(name: str = "barney") -> Manager:
    """A manager that factories find, on this machine alone."""
    return Manager(name=name, host="127.0.0.1", local_workers=0)


def wait_until(holds: Callable[[], object], what: object = "") -> None:
    end = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_it_waits_for_its_manager_and_serves_the_next_one_too(start_factory: StartFactory):
    factory = start_factory("-M", "barn.*", "--max", "2")
    for name in ("barney", "barnes"):
        with public(name) as manager, manager.executor() as executor:
            assert executor.submit(double, 4).result(TIMEOUT_S) == 8
            jobs = family(factory.pid)
            assert jobs
        _, alive = psutil.wait_procs(jobs, TIMEOUT_S)
        assert alive == []
    factory.terminate()
    assert factory.wait(TIMEOUT_S) == 0


def test_workers_come_with_the_work_and_go_after_it(start_factory: StartFactory):
    start_factory("--manager", "barney", "--max", "3", *HOLD)
    with public() as manager:
        with manager.executor() as executor:
            workers = set(executor.map(take, [1.0] * 12))
        assert 2 <= len(workers) <= 3
        wait_until(lambda: manager.counts().workers == 0)


def test_a_minimum_is_there_without_work_and_is_there_again(start_factory: StartFactory):
    factory = start_factory("--manager", "barney", "-w", "2", "-W", "2")
    with public() as manager:
        wait_until(lambda: manager.counts().workers == 2)
        family(factory.pid)[0].kill()
        wait_until(lambda: manager.counts().workers < 2)
        wait_until(lambda: manager.counts().workers == 2)


def test_a_configuration_that_changes_is_followed(start_factory: StartFactory, tmp_path: Path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"manager-name": "barney", "min-workers": 1, "max-workers": 1}))
    start_factory("--config", str(config), *HOLD)
    with public() as manager:
        wait_until(lambda: manager.counts().workers == 1)
        config.write_text("{")
        wait_until(lambda: "the configuration stays as it was" in log_of(tmp_path))
        config.write_text(json.dumps({"manager-name": "barney", "min-workers": 3, "max-workers": 3}))
        wait_until(lambda: manager.counts().workers == 3)
        config.write_text(json.dumps({"manager-name": "fred", "min-workers": 1, "max-workers": 1}))
        wait_until(lambda: manager.counts().workers == 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_its_jobs_end_with_it(start_factory: StartFactory, number: signal.Signals):
    factory = start_factory("--manager", "barney", "-w", "2", "-W", "2")
    with public() as manager:
        wait_until(lambda: manager.counts().workers == 2)
        jobs = family(factory.pid)
        factory.send_signal(number)
        assert factory.wait(TIMEOUT_S) == 0
        assert [job for job in jobs if job.is_running()] == []
        wait_until(lambda: manager.counts().workers == 0)


def test_it_ends_when_no_manager_comes(start_factory: StartFactory, tmp_path: Path):
    factory = start_factory("--manager", "nobody", "--factory-timeout", "0.5")
    assert factory.wait(TIMEOUT_S) == 0
    assert "no manager was there for 0.5 s" in log_of(tmp_path)
    assert log_of(tmp_path).count("waiting for a manager named nobody") == 1


def test_it_says_which_connection_file_it_waits_for(start_factory: StartFactory, tmp_path: Path):
    missing = tmp_path / "theirs.json"
    factory = start_factory("--connection-file", str(missing), "--factory-timeout", "0.5")
    assert factory.wait(TIMEOUT_S) == 0
    assert f"waiting for the manager of {missing}\n" in log_of(tmp_path)


def test_what_makes_no_sense_is_one_line(start_factory: StartFactory, tmp_path: Path):
    factory = start_factory("--manager", "barney", "--memory", "much")
    assert factory.wait(TIMEOUT_S) == 1
    assert log_of(tmp_path).splitlines() == [
        "graphvine: memory: 'much' is no size: write 8000 (in MB), '500MB' or '8GB'"
    ]


def test_what_keeps_it_from_a_manager_is_said_once(start_factory: StartFactory, tmp_path: Path):
    (tmp_path / "jobs").write_text("no directory")
    start_factory("--manager", "ba.*", "--scratch-dir", str(tmp_path / "jobs"))
    with public("barney"), public("barbara"):
        wait_until(lambda: log_of(tmp_path).count("can't be served yet: there is no directory for jobs") == 2)
        (tmp_path / "jobs").unlink()
    with public("bart") as manager, manager.executor() as executor:
        assert executor.submit(double, 2).result(TIMEOUT_S) == 4


def test_a_connection_file_that_cannot_be_used_is_said_once(start_factory: StartFactory, tmp_path: Path):
    with public("barney") as manager:
        manager.connection_file.chmod(0o644)
        start_factory("--manager", "bar.*")
        wait_until(lambda: str(manager.connection_file) in log_of(tmp_path))
        with public("barbara") as other, other.executor() as executor:
            assert executor.submit(double, 2).result(TIMEOUT_S) == 4
        wait_until(lambda: "the manager is closed" in log_of(tmp_path))
        assert log_of(tmp_path).count("can be read by others") == 1


def test_a_batch_system_that_is_none_is_said_before_anything_is_packed(tmp_path: Path):
    command = [sys.executable, "-m", "graphvine.cli", "factory", "-M", "barney", "-T", "nosuch"]
    variables = os.environ | {"GRAPHVINE_CACHE_DIR": str(tmp_path / "cache")}
    told = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (told.returncode, "no batch system 'nosuch'" in told.stderr) == (1, True)
    assert not (tmp_path / "cache").exists()


def test_a_manager_that_was_killed_is_not_waited_for(start_factory: StartFactory, tmp_path: Path):
    start_factory("--manager", "bar.*", "-w", "1")
    killed = """
    import sys, time
    from graphvine.manager.manager import Manager
    with Manager(name="barney", host="127.0.0.1", local_workers=0) as manager, manager.executor() as executor:
        print(executor.submit(abs, -2).result(), flush=True)
        time.sleep(1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(killed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "2\n"
        process.kill()
    with public("barbara") as manager, manager.executor() as executor:
        assert executor.submit(double, 2).result(TIMEOUT_S) == 4
    assert "manager barney: its process has ended without a word" in log_of(tmp_path)


def test_it_looks_for_its_manager_before_it_waits(caplog: pytest.LogCaptureFixture):
    told, end = os.pipe()
    os.close(end)
    with caplog.at_level(logging.INFO), os.fdopen(told):
        assert Factory({"manager_name": "nobody"}, ends=[told]).run() == "it was told to end"
    assert "waiting for a manager named nobody" in caplog.text
