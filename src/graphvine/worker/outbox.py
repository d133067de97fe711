"""What the core will tell its loop at the end of a turn; all news for the manager goes in one report.

(In several, where it would be too long for one: see ``protocol.codec``.)
"""

from __future__ import annotations

from collections.abc import Callable

from graphvine.protocol.codec import Row, portions
from graphvine.protocol.messages import (
    ContextNews,
    LinkNews,
    Missing,
    Report,
    TaskDone,
    TaskFailed,
    ToManager,
)
from graphvine.worker.instructions import Instruction, SayToManager

#: So few inline results are not worth weighing.
_FEW_DONE = 256
#: More than what a row costs in a frame beside value, error and text.
_HEAD_BYTES = 128


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
        self.sizes: dict[int, int] = {}
        self.links: list[LinkNews] = []
        self.contexts: list[ContextNews] = []
        self.due: float | None = None
        """When the results that wait for others are to be told."""

    def take(self, now: float = 0.0, gather_s: float = 0.0) -> list[Instruction]:
        """Everything since the last call, the report last.

        When there is no more to report than results, they wait for others for up to ``gather_s``: what a
        report costs both sides is many times what one more result in it does."""
        urgent = (
            self.failed
            or self.fetched
            or self.missing
            or self.lost
            or self.returned
            or self.links
            or self.contexts
        )
        if self.done and gather_s and not urgent and not self.messages:
            self.due = min(self.due, now + gather_s) if self.due is not None else now + gather_s
            if now < self.due:
                instructions, self.instructions = self.instructions, []
                return instructions
        if self.done or urgent:
            self._write_reports()
        instructions = self.instructions
        if self.messages:
            instructions.append(SayToManager(self.messages))
        if instructions:
            self._clear()
        return instructions

    def _write_reports(self) -> None:
        """One report; with more to say than fits into a frame, several, in the order in which it happened."""
        few = len(self.done) <= _FEW_DONE
        *earlier, done = [self.done] if few else _portions(self.done, _weight_of_done)
        self.messages.extend(Report(part) for part in earlier)
        *earlier_failed, failed = _portions(self.failed, _weight_of_failed)
        self.messages.extend(Report(failed=part) for part in earlier_failed)
        rest = (
            self.fetched,
            self.missing,
            self.lost,
            self.returned,
            self.sizes,
            self.links,
            self.contexts,
        )
        self.messages.append(Report(done, failed, *rest))

    def forget_news(self) -> None:
        """Nobody is there to hear of what happened until now."""
        kept = self.instructions
        self._clear()
        self.instructions = kept


def _portions(rows: list[Row], weigh: Callable[[Row], int]) -> list[list[Row]]:
    """At least one, perhaps empty."""
    return list(portions(rows, weigh)) or [[]]


def _weight_of_done(done: TaskDone) -> int:
    return _HEAD_BYTES + (len(done.value) if done.value is not None else 0) + len(done.note)


def _weight_of_failed(failed: TaskFailed) -> int:
    # Text: at most four bytes a character.
    return _HEAD_BYTES + len(failed.error) + 4 * len(failed.text) + len(failed.note)
