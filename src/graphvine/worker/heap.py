"""What executors free and keep, as the next task wants as much.

To give arrays of some megabytes back to the kernel, and to get new pages for the next ones, costs several
times what is done with them. So an executor's malloc keeps up to ``KEPT_BYTES`` that are free, until the
executor has had nothing to do for ``IDLE_S`` seconds. With glibc only (mallopt(3), malloc_trim(3)), and not
where the user says how malloc is to work.
"""

from __future__ import annotations

import ctypes
import os

KEPT_BYTES = 128 * 2**20
IDLE_S = 1.0

#: What is at least so large is mapped by itself, and unmapped when it is freed: glibc takes no more.
_MAPPED_FROM_BYTES = 32 * 2**20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_VARIABLES = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")

_libc = ctypes.CDLL(None)
_mallopt = getattr(_libc, "mallopt", None)
_malloc_trim = getattr(_libc, "malloc_trim", None)


def keep_freed() -> None:
    """This process, and what it forks, keeps what it frees."""
    if _mallopt is not None and not any(name in os.environ for name in _VARIABLES):
        _mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
        _mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """The kernel gets what is free."""
    if _malloc_trim is not None:
        _malloc_trim(0)
