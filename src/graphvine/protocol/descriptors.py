"""The limit of files that this process may have open, which sockets and pipes count against, too."""

from __future__ import annotations

import math
import resource


def raise_limit(wanted: int) -> float:
    """The limit, raised as far as it may be where it is less than ``wanted``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return math.inf if soft == resource.RLIM_INFINITY else soft
