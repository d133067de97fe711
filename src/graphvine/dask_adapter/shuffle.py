"""While a manager lives, dask's shuffles are made of tasks.

Without a distributed client dask shuffles through a directory of the local disk, which other nodes do not
see, and it decides so while the graph is built, before any scheduler is asked. A choice that the user has
made is left alone, whether it came before or after.
"""

from __future__ import annotations

import threading

import dask.config

_KEY = "dataframe.shuffle.method"
#: Reentrant: the garbage collector may end one manager while another one begins.
_lock = threading.RLock()
_holders = 0
_chosen = False


def hold_task_shuffle() -> None:
    """From now on, until as many ``release_task_shuffle``: task-based, unless the user chose."""
    global _holders, _chosen
    with _lock:
        _holders += 1
        if _holders == 1 and dask.config.get(_KEY, None) is None:
            dask.config.set({_KEY: "tasks"})
            _chosen = True


def release_task_shuffle() -> None:
    """One holder less; after the last one, what was before."""
    global _holders, _chosen
    with _lock:
        _holders -= 1
        if _holders == 0 and _chosen:
            _chosen = False
            if dask.config.get(_KEY, None) == "tasks":
                dask.config.set({_KEY: None})
