"""How tasks end that stand alone, and the result of one that failed.

A task of a *separate* plan that fails for good has a result all the same: a ``Failed``, made by the manager.
So what builds on it runs with that as its input, and decides for itself what that means.
"""

from __future__ import annotations

from typing import Literal

import msgspec

#: Beside what a worker can say of a task (``messages.FailureKind``): unrunnable: no worker can ever run it,
#: or it was lost with its workers more often than it allows. cancelled: the user did. timeout: it ran for
#: longer than its ``max_s``. missing: it stood for a file of the manager's that changed, or vanished, before
#: anybody had it. "" is success.
OutcomeKind = Literal[
    "",
    "raised",
    "killed",
    "unpicklable",
    "undecodable",
    "storage",
    "unrunnable",
    "cancelled",
    "timeout",
    "missing",
    "environment",
    "library",
]


class Failed(msgspec.Struct, frozen=True):
    """The result of a task that failed for good. ``text``: a traceback or a reason, with every try where
    there were several. ``error``: the pickled exception of one that raised (b"": it cannot be carried)."""

    kind: OutcomeKind
    text: str
    error: bytes = b""
