"""How many workers the process may be connected to: each takes one of its descriptors."""

from __future__ import annotations

from graphvine.protocol.descriptors import raise_limit

#: Left for everything else: files of the user, links over which results come, what libzmq and threads need.
RESERVE = 128


def no_room(workers: int) -> str | None:
    """Why no other worker can be let in beside so many, and what to do; None when there is room.

    The process's own limit is raised as far as it may be, when it is needed."""
    wanted = workers + RESERVE + 1
    limit = raise_limit(wanted)
    if wanted <= limit:
        return None
    if not workers:
        return (
            f"a manager needs {RESERVE} open files and one for each worker, and this process may have "
            f"{limit:g} (ulimit -n); raise the limit"
        )
    return (
        f"the manager has no room for more than {workers} workers: its process may have {limit:g} files open "
        "(ulimit -n), one for each worker; raise the limit, or start fewer workers of more cores each"
    )
