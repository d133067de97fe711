"""TaskVine's Factory, as its users' scripts have it; and the FuturesExecutor that starts one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import graphvine as vine
from graphvine.deploy.errors import DeployError
from graphvine.manager.manager import Manager

TIMEOUT_S = 60.0


def double(number: int) -> int:
    return 2 * number


def parent(_: int) -> int:
    time.sleep(1.0)
    return os.getppid()


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def public(name: str | None = None) -> Manager:
    """On this machine alone."""
    return Manager(port=0, name=name, host="127.0.0.1", local_workers=0)


def test_a_script_of_taskvines():
    manager = public()
    workers = vine.Factory("local", manager=manager)
    workers.cores = 1
    workers.disk = 2000
    workers.max_workers = 3
    workers.min_workers = 1
    assert (workers.max_workers, workers.cores, workers.tasks_per_worker) == (3, 1, 0)
    with manager, workers:
        for number in range(10):
            manager.submit(vine.PythonTask(double, number))
        results = []
        while not manager.empty():
            task = manager.wait(5)
            if task:
                results.append(task.output)
        assert sorted(results) == [2 * number for number in range(10)]
    workers.stop()  # it is over


def test_what_is_changed_while_it_runs_counts():
    with public("barney") as manager:
        workers = vine.Factory("local", "barn.*")
        assert workers.manager_name == "barn.*"
        workers.min_workers = 1
        with workers:
            wait_until(lambda: manager.counts().workers == 1)
            workers.min_workers = 2
            wait_until(lambda: manager.counts().workers == 2)
            assert workers.start() is workers, "it runs"


def test_what_it_says_goes_into_its_log(tmp_path: Path):
    with (
        public() as manager,
        vine.Factory(manager_host_port=f"localhost:{manager.port}", log_file=tmp_path / "log") as workers,
    ):
        workers.min_workers = 1
        wait_until(lambda: manager.counts().workers == 1)
    assert "the manager" not in (tmp_path / "log").read_text().splitlines()[0]
    assert "it was told to end" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [("max_worker", 3, AttributeError), ("memory", "much", DeployError), ("min_workers", 500, DeployError)],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(name, value, error):
    workers = vine.Factory(manager_name="barney")
    with pytest.raises(error):
        setattr(workers, name, value)
    assert workers.max_workers == 100
    assert workers.memory is None


@pytest.mark.parametrize("named", [{}, {"manager_name": "a", "manager_host_port": "b:1"}])
def test_it_is_for_one_manager(named):
    with pytest.raises(ValueError, match="give one of"):
        vine.Factory(**named)


def test_one_that_packs_its_environment_can_be_stopped(tmp_path: Path):
    python, begun = tmp_path / "env" / "bin" / "python", tmp_path / "begun"
    python.parent.mkdir(parents=True)
    # Says nothing for as long as somebody waits for it.
    python.write_text(f"#!/bin/sh\necho > {begun}\nwhile kill -0 $PPID; do sleep 0.05; done\n")
    python.chmod(0o755)
    os.mkfifo(begun)
    workers = vine.Factory("local", "barney", log_file=tmp_path / "log")
    workers.environment = str(tmp_path / "env")
    workers.start()
    assert begun.read_text() == "\n"
    process = workers._process
    workers.stop()
    assert process.returncode == -signal.SIGTERM, "it was waited for, and killed"


def test_what_is_no_manager_is_refused():
    with pytest.raises(TypeError, match="give a manager, or its name"):
        vine.Factory("local", 9123)


def test_no_manager_on_that_port():
    with pytest.raises(ValueError, match="no manager of yours"):
        vine.Factory(manager_host_port="localhost:1")


#: A batch system whose jobs are processes, and whose tools are the shell's.
PROCESSES = r"""
name = "processes"
naming = '(?P<number>\d+)'
job_id = "$$"
job = '''
#!/bin/sh
{{body}}
'''

[submit]
command = ["sh", "-c", "for i in $(seq {{count}}); do setsid sh {{file}} >/dev/null 2>&1 & echo $!; done"]
id = '(?P<jobs>[\d\s]+)'

[cancel]
command = ["kill", "{{jobs}}"]
harmless = "No such process"

[[status]]
# ps that finds none of them fails, and does not say of what.
command = ["sh", "-c", 'ps -o pid= -p "$@" || true', "sh", "{{jobs}}"]
job = "{{number}}"
state = "running"

[status.fields]
number = '(\d+)'

[states]
"""


def test_futures_from_workers_of_a_factory(tmp_path: Path):
    template = tmp_path / "processes.toml"
    template.write_text(PROCESSES)
    opts = {"min-workers": 0, "max-workers": 2, "cores": 1, "python": sys.executable}
    with public() as manager:
        with vine.FuturesExecutor(batch_type=str(template), manager=manager, opts=opts) as executor:
            executor.set("max_workers", 3)
            assert 1 <= len(set(executor.map(parent, range(6)))) <= 3
        wait_until(lambda: manager.counts().workers == 0)


def test_a_batch_system_that_is_not_there_is_said_at_once():
    with pytest.raises(DeployError, match="no batch system 'nowhere'"):
        vine.FuturesExecutor(batch_type="nowhere")
