"""How many workers the process may be connected to: each takes one of its descriptors."""

from __future__ import annotations

import resource

#: Left for everything else: files of the user, links over which results come, what libzmq and threads need.
RESERVE = 128


def no_room(workers: int) -> str | None:
    """Why no other worker can be let in beside so many, and what to do; None when there is room.

    The process's own limit is raised as far as it may be, when it is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if workers + RESERVE >= soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY or workers + RESERVE < soft:
        return None
    return (
        f"the manager has no room for more than {workers} workers: its process may have {soft} files open "
        "(ulimit -n), one for each worker; raise the limit, or start fewer workers of more cores each"
    )
