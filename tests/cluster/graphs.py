"""What tests compute on nodes that have graphvine and what it needs, and nothing else (no pytest, say)."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from dask import delayed


def work(number: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return number * number


def mark(path: str, seconds: float) -> int:
    """Tell by a file that it has begun."""
    with open(path, "w"):
        time.sleep(seconds)
    return 49


def where(_: int) -> tuple[str, str, str, str]:
    import graphvine

    return sys.prefix, graphvine.__file__, os.environ.get("PYTHONPATH", ""), os.environ.get("WORD", "")


def look(mark: str) -> dict[str, Any]:
    """What there is to be seen from inside a container whose image has that file."""
    import graphvine

    with open(f"/{mark}") as file:
        text = file.read()
    return {
        "mark": text,
        "host": os.path.exists("/etc/debian_version") or os.path.exists("/usr/bin"),
        "module": graphvine.__file__,
        "scratch": os.environ["TMPDIR"],
        "word": os.environ["WORD"],
    }


def credentials(_: bytes) -> list[list[Any]]:
    """What a task can identify itself with: mode, owner and content of the files that variables name."""
    told = []
    for name in ("X509_USER_PROXY", "BEARER_TOKEN_FILE"):
        with open(os.environ[name]) as file:
            status = os.fstat(file.fileno())
            told.append([oct(status.st_mode & 0o777), status.st_uid, file.read()])
    return told


def hold(begun: str, told: str) -> int:
    """A task that goes on until somebody writes to a pipe with a name."""
    with open(begun, "w"):
        pass
    with open(told) as file:
        file.read()
    return 7


def graph(count: int, seconds: float = 0.0) -> tuple[Any, int]:
    """Sums of squares, and what comes out of it."""
    parts = [delayed(work)(number, seconds) for number in range(count)]
    sums = [delayed(sum)(parts[i : i + 20]) for i in range(0, count, 20)]
    return delayed(sum)(sums), sum(number * number for number in range(count))
