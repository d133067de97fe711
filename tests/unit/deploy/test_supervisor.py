"""The thread around a fleet, and a batch system that does as a test tells it."""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from graphvine.deploy import supervisor as supervisor_module
from graphvine.deploy.batch import JobState, JobStatus, Submission
from graphvine.deploy.errors import DeployError
from graphvine.deploy.fleet import Limits
from graphvine.deploy.spec import WorkerSpec, make_spec
from graphvine.deploy.supervisor import Supervisor
from graphvine.protocol.messages import Demand, Resources, Wanted, WorkerNews


class Site:
    """``refuses``: so many attempts to cancel fail."""

    name = "slurm"

    def __init__(self) -> None:
        self.refuses = 0
        self.full = False
        self.answers = threading.Event()
        self.answers.set()
        self.cancelled: set[str] = set()
        self.submitted: queue.SimpleQueue[WorkerSpec] = queue.SimpleQueue()

    def submit(self, spec: WorkerSpec, count: int, directory: Path) -> Submission:
        self.submitted.put(spec)
        if self.full:
            raise DeployError("no space left on device")
        return Submission(tuple(f"17_{index}" for index in range(count)), str(directory))

    def status(self, jobs: Sequence[str]) -> list[JobStatus]:
        return [JobStatus(j, JobState.REMOVED if j in self.cancelled else JobState.PENDING) for j in jobs]

    def cancel(self, jobs: Sequence[str]) -> None:
        self.answers.wait()
        if self.refuses:
            self.refuses -= 1
            raise DeployError("nobody answers")
        self.cancelled.update(jobs)

    def output(self, job: str) -> str:
        return ""


class Nobody:
    def retire(self, *workers: str, reason: str) -> object:
        raise AssertionError(workers)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def make(site: Site, tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def start(close_s: float, **more: Any) -> Supervisor:
        spec = make_spec(python="/p", connection_file=str(tmp_path / "m.json"), **more)
        made.append(Supervisor(site, spec, tmp_path, Nobody(), limits=Limits(), close_s=close_s))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.close()
    assert not [thread for thread in threading.enumerate() if "supervisor" in thread.name]


def test_what_could_not_be_cancelled_at_the_end_is_tried_again(
    site: Site, make: Callable[[float], Supervisor], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = make(60.0)
    supervisor.scale(2)
    site.submitted.get(timeout=60)
    site.refuses = 2
    supervisor.close()
    assert site.cancelled == {"17_0", "17_1"}
    assert supervisor.status.jobs == []
    assert [record.getMessage() for record in caplog.records] == [
        "slurm: jobs can't be cancelled: nobody answers"
    ]


def test_what_is_left_is_said_with_what_to_do(
    site: Site, make: Callable[[float], Supervisor], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = make(0.0)
    supervisor.scale(2)
    site.submitted.get(timeout=60)
    site.refuses = 1000
    supervisor.close()
    last = caplog.records[-1].getMessage()
    assert last == "slurm: 2 jobs could not be cancelled: remove what is left with: scancel 17"


def test_status_tells_what_is_wanted_while_a_command_takes_its_time_and_why_there_is_nothing(
    site: Site, make: Callable[[float], Supervisor]
) -> None:
    supervisor = make(60.0)
    seen = queue.SimpleQueue[str]()
    submit = site.submit

    def slow(spec: WorkerSpec, count: int, directory: Path) -> Submission:
        seen.put(str(supervisor.status))
        return submit(spec, count, directory)

    site.submit = slow  # type: ignore[method-assign]
    site.full = True
    supervisor.scale(2)
    assert seen.get(timeout=60) == "2 workers wanted; jobs: none"
    heard = threading.Event()
    supervisor.call(lambda: supervisor.call(heard.set))
    assert heard.wait(60)
    head, trouble = str(supervisor.status).splitlines()
    assert head == "2 workers wanted; jobs: none"
    pattern = r"  workers can't be submitted: no space left on device \(next try at \d\d:\d\d:\d\d\)"
    assert re.fullmatch(pattern, trouble)


def test_status_tells_of_workers_that_left_as_there_was_nothing_to_do(
    site: Site, make: Callable[..., Supervisor]
) -> None:
    supervisor = make(60.0, idle=10.0)
    supervisor.scale(1)
    site.submitted.get(timeout=60)
    came = WorkerNews(1, f"{supervisor.token}:17_0", "w", "node", 1.0, 10.0)
    wanted = Wanted(Resources(1.0), (), (), able=5, left=5, seconds=5.0, unmeasured=0)
    supervisor.on_demand(Demand([], [came]))
    supervisor.on_demand(Demand([], [msgspec.structs.replace(came, gone=True)]))
    heard = threading.Event()
    supervisor.call(lambda: supervisor.call(heard.set))
    assert heard.wait(60)
    text = "1 had nothing to do and left; others come when there is work"
    assert str(supervisor.status).splitlines()[1].strip() == text
    supervisor.on_demand(Demand([wanted], []))
    heard.clear()
    supervisor.call(lambda: supervisor.call(heard.set))
    assert heard.wait(60)
    assert supervisor.status.trouble == ""


@pytest.mark.parametrize("closes", [True, False])
def test_a_submission_that_fails_as_the_manager_closes_is_not_worth_a_word(
    site: Site,
    make: Callable[[float], Supervisor],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    closes: bool,
) -> None:
    if not closes:
        (tmp_path / "m.json").touch()
    site.full = True
    supervisor = make(60.0)
    supervisor.scale(2)
    site.submitted.get(timeout=60)
    supervisor.close()
    told = [record.getMessage() for record in caplog.records]
    assert told == ([] if closes else ["slurm: workers can't be submitted: no space left on device"])


def test_a_batch_system_that_takes_its_time_at_the_end_is_told_of(
    site: Site,
    make: Callable[[float], Supervisor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(supervisor_module, "_CLOSE_TELL_S", 0.01)
    supervisor = make(60.0)
    supervisor.scale(2)
    site.submitted.get(timeout=60)
    site.answers.clear()

    class Answer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            site.answers.set()

    handler = Answer()
    supervisor_module.log.addHandler(handler)
    try:
        supervisor.close()
    finally:
        supervisor_module.log.removeHandler(handler)
    assert [record.getMessage() for record in caplog.records] == [
        "slurm: waiting for the end of the jobs; if that is interrupted, some may stay"
    ]
