"""Pipes by whose end other processes know that this one is gone.

A child that this process forks (a pool of the user's, say) would hold them open for as long as it lives, and
that may be longer: so it lets go of them at once.
"""

from __future__ import annotations

import os
import subprocess
import weakref
from typing import IO

_held: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def hold(process: subprocess.Popen[bytes]) -> None:
    """The standard input of ``process`` is a pipe, which is to end with this process."""
    assert process.stdin is not None
    _held.add(process.stdin)


def _let_go() -> None:
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for pipe in _held:
        if not pipe.closed:
            # Its number stays taken: whoever closes the file object closes nobody else's.
            os.dup2(nothing, pipe.fileno(), inheritable=False)
    os.close(nothing)


os.register_at_fork(after_in_child=_let_go)
