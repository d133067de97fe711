"""Pieces of files that go through the manager.

From one worker to another, because no direct link can be made; or from the manager itself, because they are
its own (blobs) and too large to go with the orders.

Of workers' files it holds nothing but the questions that were not answered: when the worker that was asked is
gone, another holder is asked, or the one who waits is told that there is none.
"""

from __future__ import annotations

from collections.abc import Callable

from graphvine.protocol.messages import Piece, Pull, ToWorker
from graphvine.protocol.pieces import make_piece, not_held

#: Who waits, for which file, from which byte.
_Question = tuple[int, int, int]


class Relay:
    """``holders``: the workers that hold a file; ``present``: whether a worker is there. ``own``: the bytes
    of a file that the manager itself has. ``give``: whether a file of its machine is being read for whoever
    asks, who is answered later."""

    def __init__(
        self,
        holders: Callable[[int], list[int]],
        present: Callable[[int], bool],
        say: Callable[[int, list[ToWorker]], None],
        own: Callable[[int], bytes | None],
        give: Callable[[Pull], bool],
    ) -> None:
        self._holders = holders
        self._present = present
        self._say = say
        self._own = own
        self._give = give
        self._asked: dict[int, dict[_Question, Pull]] = {}

    def on_pull(self, worker: int, pull: Pull) -> None:
        """A worker asks for a piece."""
        question = Pull(pull.file, pull.offset, pull.length, worker)
        content = self._own(pull.file)
        if content is not None:
            self._say(worker, [make_piece(question, memoryview(content))])
            return
        holders = [holder for holder in self._holders(pull.file) if holder != worker]
        if not holders and self._give(question):
            return
        if not holders:
            self._say(worker, [not_held(question)])
            return
        # The same holder for all pieces of a file.
        holder = min(holders)
        self._asked.setdefault(holder, {})[worker, pull.file, pull.offset] = question
        self._say(holder, [question])

    def on_piece(self, worker: int, piece: Piece) -> None:
        """A holder answers. What nobody asked it for goes nowhere."""
        asked = self._asked.get(worker, {})
        question = asked.pop((piece.requester, piece.file, piece.offset), None)
        if question is not None and self._present(piece.requester):
            self._say(piece.requester, [piece])

    def on_worker_parted(self, worker: int) -> None:
        """A worker is gone, and the core knows: what it was asked for is asked of others."""
        for question in self._asked.pop(worker, {}).values():
            if self._present(question.requester):
                self.on_pull(question.requester, question)
