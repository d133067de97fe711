"""Processes, found by number."""

from __future__ import annotations

import os
import subprocess
import sys

from graphvine.protocol.node import process_exists


def test_processes_exist_until_they_are_waited_for() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process_exists(process.pid)
    process.communicate()
    assert not process_exists(process.pid)


def test_somebody_elses_process_exists() -> None:
    assert process_exists(1)
    assert process_exists(os.getpid())


def test_what_is_no_process() -> None:
    for pid in (0, -1, -os.getpid(), 2**22 + 1, 2**70):
        assert not process_exists(pid)
