"""What executors free and keep."""

from __future__ import annotations

import os
import platform
import resource
import time

import psutil
import pytest

import graphvine as gv

MB = 2**20

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")


def use() -> int:
    """How many new pages the kernel gives for 48 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [bytearray(8 * MB) for _ in range(6)]
    del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def use_again() -> tuple[int, int, int]:
    """This process, what it needed for memory that was used and freed before, and what it holds now."""
    use()
    use()
    again = use()
    return os.getpid(), again, psutil.Process().memory_info().rss


def test_what_was_freed_is_used_again_until_there_is_nothing_to_do() -> None:
    with gv.Manager(local_workers=1) as manager:
        pid, pages, held = manager.get({"used": (use_again,)}, "used")
        assert pages < 1000
        executor, deadline = psutil.Process(pid), time.monotonic() + 30
        while executor.memory_info().rss > held - 40 * MB:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_malloc_works_as_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    with gv.Manager(local_workers=1) as manager:
        _, pages, _ = manager.get({"used": (use_again,)}, "used")
    assert pages > 1000
