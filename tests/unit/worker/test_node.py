"""What a worker offers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphvine.worker import node


def test_an_offer_is_what_may_be_used(tmp_path: Path) -> None:
    offer = node.capacity(str(tmp_path))
    assert 1 <= offer.cores <= len(os.sched_getaffinity(0))
    assert 0 < offer.memory_mb <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    assert offer.disk_mb > 0


def test_what_is_stated_is_taken_as_it_is(tmp_path: Path) -> None:
    offer = node.capacity(str(tmp_path), 64, 1000, 10, 2)
    assert (offer.cores, offer.memory_mb, offer.disk_mb, offer.gpus) == (64, 1000, 10, 2)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_control_groups_quota(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert node._quota(tmp_path) == cores


@pytest.mark.parametrize(
    ("files", "membership", "limits"),
    [
        ({"memory.max": "max\n", "job/memory.max": "4000\n"}, "0::/job/step", [4000]),
        (
            {"memory.max": "9000\n", "a/memory.max": "5000\n", "a/b/memory.max": "max\n"},
            "0::/a/b",
            [9000, 5000],
        ),
        ({"memory/memory.limit_in_bytes": "7000\n"}, "4:memory:/of/the/host\n1:cpu:/", [7000]),
        ({"memory/slurm/job_7/memory.limit_in_bytes": "3000"}, "4:cpu,memory:/slurm/job_7\n0::/", [3000]),
        ({}, "0::/", []),
    ],
)
def test_the_control_groups_around_a_job_limit_its_memory(
    tmp_path: Path, files: dict[str, str], membership: str, limits: list[int]
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert list(node._memory_limits(tmp_path, membership)) == limits


def test_this_process_has_memory() -> None:
    assert node.resident_mb() > 1
