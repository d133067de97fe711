"""GPUs are handed out: what tasks of real workers find in their environment.

No device is needed for that: a worker takes the names that its batch system told it, whatever they name."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

import graphvine as vine
from graphvine.deploy.cluster import LocalCluster
from graphvine.manager.manager import Manager

NAMES = ("GPU-aaaa", "MIG-bbbb")


pytestmark = pytest.mark.usefixtures("by_value")


@pytest.fixture
def m(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(NAMES))
    with vine.Manager(local_workers=4) as manager:
        yield manager


def seen() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


def seen_with(directory: str, meet: bool = False) -> str:
    """What this task is shown, while nobody else is shown the same. ``meet``: not before two tasks are at
    it."""
    device = seen()
    with open(os.path.join(directory, device), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if meet:
            # Each end of a pipe with a name opens when the other one does.
            mode = os.O_RDONLY if device == NAMES[0] else os.O_WRONLY
            os.close(os.open(os.path.join(directory, "meeting"), mode))
    return device


def test_tasks_of_a_graph_have_devices_of_their_own(m: Manager, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "meeting")
    with dask.annotate(resources={"gpus": 1}):
        both = [dask.delayed(seen_with)(str(tmp_path), meet=True, dask_key_name=f"m{i}") for i in range(2)]
        many = [dask.delayed(seen_with)(str(tmp_path), dask_key_name=f"s{i}") for i in range(40)]
    with dask.annotate(resources={"gpus": 2}):
        wide = dask.delayed(seen)(dask_key_name="wide")
    plain = dask.delayed(seen)(dask_key_name="plain")

    def compute(*what: Any) -> tuple[Any, ...]:
        done: tuple[Any, ...] = dask.compute(*what, scheduler=m.get, optimize_graph=False)
        return done

    assert sorted(compute(*both)) == sorted(NAMES)
    assert set(compute(*many)) <= set(NAMES)
    assert compute(wide, plain) == (",".join(NAMES), ",".join(NAMES))


def of_command(m: Manager) -> vine.Task:
    return vine.Task("echo $CUDA_VISIBLE_DEVICES $GPUS")


def of_function(m: Manager) -> vine.Task:
    return vine.PythonTask(seen)


def of_call(m: Manager) -> vine.Task:
    library = m.create_library_from_functions("devices", seen, add_env=False)
    m.install_library(library)
    return vine.FunctionCall("devices", "seen")


@pytest.mark.parametrize("make", [of_command, of_function, of_call])
def test_tasks_of_taskvines_kinds_have_them_too(m: Manager, make: Callable[[Manager], vine.Task]) -> None:
    told = {}
    for count in (0, 1, 2):
        task = make(m)
        if count:
            task.set_gpus(count)
        m.submit(task)
        assert m.wait(60) is task
        assert task.successful(), task.output
        told[count] = str(task.output).split()[0]
    assert told[1] in NAMES
    assert told[0] == told[2] == ",".join(NAMES)


def test_a_variable_that_a_task_states_is_left_alone(m: Manager) -> None:
    task = of_command(m)
    task.set_env_var("CUDA_VISIBLE_DEVICES", "7")
    m.submit(task)
    assert m.wait(60) is task
    assert str(task.output).split() == ["7"]


@pytest.mark.parametrize(("stated", "shown"), [("0", "3,4"), ("1", "-1"), ("2", "-1")])
def test_what_is_stated_of_a_worker_decides_what_others_see(
    start_worker: Callable[..., subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    stated: str,
    shown: str,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    with vine.Manager(local_workers=0) as m:
        start_worker(m, 1, None, "--gpus", stated)
        m.submit(of_command(m))
        task = m.wait(60)
        assert task is not None
        assert str(task.output).split() == [shown]


def test_workers_of_a_local_cluster_have_devices_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(NAMES))
    os.mkfifo(tmp_path / "meeting")
    with LocalCluster(cores=1, gpus=1) as cluster, vine.Manager(cluster=cluster) as m:
        cluster.scale(2)
        with dask.annotate(resources={"gpus": 1}):
            both = [
                dask.delayed(seen_with)(str(tmp_path), meet=True, dask_key_name=f"m{i}") for i in range(2)
            ]
        assert sorted(dask.compute(*both, scheduler=m.get, optimize_graph=False)) == sorted(NAMES)
        assert dask.delayed(os.getenv)("GRAPHVINE_PLACE").compute(scheduler=m.get) is None
