"""What the core will tell its loop at the end of a turn; all news for the manager goes in one report."""

from __future__ import annotations

from graphvine.protocol.messages import Missing, Report, TaskDone, TaskFailed, ToManager
from graphvine.worker.instructions import Instruction, SayToManager


class Outbox:
    """Filled by the parts of the core during a turn."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.instructions: list[Instruction] = []
        self.messages: list[ToManager] = []
        self.done: list[TaskDone] = []
        self.failed: list[TaskFailed] = []
        self.fetched: list[int] = []
        self.missing: list[Missing] = []
        self.lost: list[int] = []
        self.returned: list[int] = []

    def take(self) -> list[Instruction]:
        """Everything since the last call, the report last."""
        if self.done or self.failed or self.fetched or self.missing or self.lost or self.returned:
            report = Report(self.done, self.failed, self.fetched, self.missing, self.lost, self.returned)
            self.messages.append(report)
        instructions = self.instructions
        if self.messages:
            instructions.append(SayToManager(self.messages))
        if instructions:
            self._clear()
        return instructions

    def forget_news(self) -> None:
        """Nobody is there to hear of what happened until now."""
        kept = self.instructions
        self._clear()
        self.instructions = kept
