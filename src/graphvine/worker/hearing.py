"""What the manager says, told to the agent's core: by the real loop and by the simulated one."""

from __future__ import annotations

from graphvine.protocol.messages import (
    Assign,
    Cancel,
    Drop,
    Leave,
    Piece,
    Probe,
    Pull,
    Recall,
    Refused,
    Rejoin,
    Sources,
    ToWorker,
    TurnGiven,
    Welcome,
)
from graphvine.worker.core import Core


def hear(core: Core, message: ToWorker, now: float) -> Welcome | Rejoin | Refused | TurnGiven | Leave | None:
    """Tell the core. What is about the worker's joining and leaving comes back, and what is for a running
    task: it is for whoever stands around the core."""
    core.on_clock(now)
    match message:
        case Assign():
            core.on_assign(message)
        case Drop():
            core.on_drop(message.files)
        case Recall():
            core.on_recall(message.tasks)
        case Cancel():
            core.on_cancel(message.tasks, now)
        case Sources():
            core.on_sources(message)
        case Probe():
            core.on_probe(message)
        case Pull():
            core.on_pull(message)
        case Piece():
            core.on_piece(message)
        case Welcome() | Rejoin() | Refused() | TurnGiven() | Leave():
            return message
    return None
