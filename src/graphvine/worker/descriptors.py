"""How many executors a worker's process may have: each takes some of its descriptors."""

from __future__ import annotations

import math

from graphvine.protocol.descriptors import raise_limit

#: Of an executor: its link, inbox and page, its output and log, and what it is given while it is started.
PER_EXECUTOR = 10
#: Left for everything else: the manager, zygotes, files on their way and those who come for them, tasks' own.
RESERVE = 128


def too_few(cores: float) -> str | None:
    """Why a worker of so many cores can't be, and what to do; None when it can.

    The process's own limit is raised as far as it may be, when it is needed."""
    wanted = RESERVE + PER_EXECUTOR * math.ceil(cores)
    limit = raise_limit(wanted)
    if wanted <= limit:
        return None
    advice = "raise the limit"
    if limit >= RESERVE + PER_EXECUTOR:
        advice += f", or give the worker fewer cores (at most {(limit - RESERVE) // PER_EXECUTOR:g})"
    return (
        f"a worker of {cores:g} cores needs {wanted} open files, and this process may have {limit:g} "
        f"(ulimit -n); {advice}"
    )
