"""The names of GPUs: what batch systems say, what is found, what processes are shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphvine.worker import gpus
from graphvine.worker.forking import opened_gpu
from graphvine.worker.gpus import Gpus, found, named, offered, parse_listed

CUDA, ROCR, HIP = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-22222222-bbbb)
  MIG 3g.20gb     Device  1: (UUID: MIG-33333333-cccc)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-44444444-dddd)
"""


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in gpus.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0,1", ("0", "1")),
        ("3", ("3",)),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("10000", ()),
        ("NoDevFiles", ()),
        ("GPU-1234, MIG-GPU-5/1/0", ("GPU-1234", "MIG-GPU-5/1/0")),
    ],
)
def test_devices_are_those_that_the_batch_system_names(text: str, names: tuple[str, ...]) -> None:
    told = named({CUDA: text})
    assert told is not None
    assert told.names == {CUDA: names}


def test_nothing_is_said_where_no_variable_is_set() -> None:
    assert named({"PATH": "/bin"}) is None


def test_a_process_is_shown_its_devices_under_the_names_that_the_worker_has() -> None:
    told = named({CUDA: "GPU-a,GPU-b,GPU-c"})
    assert told is not None
    assert told.variables([2, 0]) == {CUDA: "GPU-c,GPU-a"}
    assert told.variables([]) == {CUDA: "-1"}


def test_every_variable_that_is_set_is_kept_to() -> None:
    told = named({CUDA: "4,7", "GPU_DEVICE_ORDINAL": "0,1", ROCR: "4,7", "ZE_AFFINITY_MASK": "0"})
    assert told is not None
    assert told.variables([1]) == {CUDA: "7", "GPU_DEVICE_ORDINAL": "1", ROCR: "7"}


def test_hip_counts_within_what_rocr_leaves() -> None:
    told = named({ROCR: "4,5,6", HIP: "0,1,2"})
    assert told is not None
    assert told.variables([1, 2]) == {ROCR: "5,6", HIP: "0,1"}
    assert told.variables([]) == {ROCR: "-1", HIP: "-1"}


def test_who_asks_for_none_sees_all_unless_devices_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUDA, "5,6")
    assert offered(None).variables([]) == {}
    assert offered(None).variables([1]) == {CUDA: "6"}
    assert offered(None, in_job=True).variables([]) == {CUDA: "-1"}
    assert offered(2).variables([]) == {CUDA: "-1"}


def test_without_devices_no_variable_is_touched() -> None:
    assert Gpus().variables([]) == {}


def test_partitions_stand_for_the_device_that_is_partitioned() -> None:
    assert parse_listed(LISTED) == ("MIG-22222222-bbbb", "MIG-33333333-cccc", "GPU-44444444-dddd")
    assert parse_listed("No devices found.\n") == ()


def make(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_partitions_are_found_by_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "dev/nvidia0")
    tool = tmp_path / "bin/nvidia-smi"
    make(tool, f"#!/bin/sh\ncat <<EOF\n{LISTED}EOF\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    assert found(tmp_path).names == {CUDA: ("0",)}  # without them nobody is asked
    make(tmp_path / "proc/driver/nvidia/capabilities/gpu0/mig/gi1/access")
    assert len(found(tmp_path)) == 3


def test_without_the_tool_device_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        make(tmp_path / "dev" / name)
    make(tmp_path / "proc/driver/nvidia/capabilities/gpu0/mig/gi1/access")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(tmp_path).names == {CUDA: ("0", "1")}


def test_amds_devices_are_found(tmp_path: Path) -> None:
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    for node, gpu in enumerate((0, 51234, 51235)):
        make(nodes / str(node) / "gpu_id", f"{gpu}\n")
    assert found(tmp_path).names == {ROCR: ("0", "1")}
    assert len(found(tmp_path / "nowhere")) == 0


def test_so_many_are_offered_as_were_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "found", Gpus)
    assert offered(2).names == {CUDA: ("0", "1")}  # nobody knows which: they are counted
    monkeypatch.setenv(CUDA, "5,6,7")
    assert offered(2).names == {CUDA: ("5", "6")}
    assert len(offered(None)) == 3
    assert len(offered(0)) == 0
    assert len(offered(9)) == 3  # the batch system knows better
    monkeypatch.setenv(CUDA, "")
    assert len(offered(2)) == 0


def test_several_workers_share_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUDA, "a,b,c,d,e")
    assert [offered(None, place, 2).names[CUDA] for place in (0, 1)] == [("a", "c", "e"), ("b", "d")]
    assert [offered(2, place, 2).names[CUDA] for place in (0, 1)] == [("a", "b"), ("c", "d")]
    monkeypatch.delenv(CUDA)
    monkeypatch.setattr(gpus, "found", Gpus)
    assert [offered(1, place, 2).names[CUDA] for place in (0, 1)] == [("0",), ("1",)]


def test_jobs_that_nobody_counts_take_what_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "found", Gpus)
    assert [offered(2, place).names[CUDA] for place in (0, 1)] == [("0", "1"), ("2", "3")]
    monkeypatch.setenv(CUDA, "a,b,c")
    assert [offered(2, place).names[CUDA] for place in (0, 1, 2)] == [("a", "b"), ("c",), ()]


def test_open_device_files_are_seen(tmp_path: Path) -> None:
    assert opened_gpu() == ""
    for number, target in enumerate(("/dev/null", "/dev/nvidiactl")):
        (tmp_path / str(number)).symlink_to(target)
    assert opened_gpu(str(tmp_path)) == "/dev/nvidiactl"
