"""Pieces of files that go through the manager.

From one worker to another, because no direct link can be made; from a worker to the manager itself; or from
the manager, because they are its own (blobs, files of its machine) and too large to go with the orders. Each
piece is asked for by whoever needs it. Rules:

- Of workers' files the manager holds nothing but the questions that were not answered. When the worker that
  was asked is gone, another holder is asked, or the one who waits is told that there is none.
- A holder is asked for as many pieces at once as its way here carries without delay (see ``protocol.pace``):
  what else it has to say must not wait behind them. Other questions wait in its line.
- At most ``most`` pieces are on their way to workers, all together: asked for, or sent and not said to be
  there (``Taken``). So the manager's memory is bounded however slowly they take them in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from graphvine.protocol.messages import Piece, Pull, ToWorker
from graphvine.protocol.pace import Pace
from graphvine.protocol.pieces import MOST_AHEAD, make_piece, not_held

#: Who waits, for which file, from which byte.
_Question = tuple[int, int, int]
#: The number under which the manager asks for pieces, and under which it answers.
MANAGER = 0


class _Way(msgspec.Struct):
    """The way from one holder."""

    pace: Pace
    line: deque[Pull] = msgspec.field(default_factory=deque)
    """What was not asked yet."""
    asked: dict[_Question, tuple[Pull, float]] = msgspec.field(default_factory=dict)
    """Questions without an answer, and when each was asked."""
    stalled: bool = False
    """It waits until fewer pieces are under way to workers."""


class Relay:
    """``holders``: the workers that hold a file; ``present``: whether a worker is there. ``own``: the bytes
    of a file that the manager itself has. ``give``: whether a file of its machine is being read for whoever
    asks, who is answered later. ``collect``: takes what the manager asked for."""

    def __init__(
        self,
        holders: Callable[[int], list[int]],
        present: Callable[[int], bool],
        say: Callable[[int, list[ToWorker]], None],
        own: Callable[[int], bytes | None],
        give: Callable[[Pull], bool],
        collect: Callable[[int, Piece], None],
        clock: Callable[[], float],
        most: int = 256,
    ) -> None:
        self._holders = holders
        self._present = present
        self._say = say
        self._own = own
        self._give = give
        self._collect = collect
        self._clock = clock
        self._most = most
        self._ways: dict[int, _Way] = {}
        self._stalled: deque[int] = deque()
        """Holders that could be asked, but for ``most``."""
        self._under_way: dict[int, int] = {}
        """Pieces on their way to each worker."""
        self._total = 0

    def on_pull(self, worker: int, pull: Pull) -> None:
        """A worker asks for a piece."""
        question = Pull(pull.file, pull.offset, pull.length, worker)
        if self._own(pull.file) is not None:
            self._line_up(MANAGER, question)
            return
        holders = sorted(holder for holder in self._holders(pull.file) if holder != worker)
        # The same holder for all pieces of a file, as long as it is there; others for others.
        self._line_up(holders[(pull.file + worker) % len(holders)] if holders else MANAGER, question)

    def ask(self, holder: int, pull: Pull) -> None:
        """The manager itself needs a piece from a worker."""
        self._line_up(holder, pull)

    def on_piece(self, worker: int, piece: Piece) -> None:
        """A holder answers. What nobody asked it for goes nowhere."""
        way = self._ways.get(worker)
        if way is None:
            return
        asked = way.asked.pop((piece.requester, piece.file, piece.offset), None)
        if asked is None:
            return
        way.pace.note(self._clock() - asked[1])
        if piece.requester == MANAGER:
            self._collect(worker, piece)
        elif self._present(piece.requester):
            self._say(piece.requester, [piece])
        self._serve(worker, way)

    def on_taken(self, worker: int, pieces: int) -> None:
        """A worker has taken pieces in."""
        self._land(worker, pieces)
        self._go_on()

    def _go_on(self) -> None:
        """Fewer pieces are under way: ask those who had to wait for that."""
        while self._stalled and self._total < self._most:
            holder = self._stalled.popleft()
            way = self._ways.get(holder)
            if way is not None:
                way.stalled = False
                self._serve(holder, way)

    def on_given(self, worker: int, piece: Piece) -> None:
        """A piece of a file of the manager's machine was read."""
        if self._present(worker):
            self._say(worker, [piece])

    def on_worker_parted(self, worker: int) -> None:
        """A worker is gone, and the core knows: what it was asked for is asked of others."""
        self._land(worker, self._under_way.get(worker, 0))
        way = self._ways.pop(worker, None)
        if way is not None:
            self._ask_others(way)
        # What was on its way to this worker will never be said to be there.
        self._go_on()

    def _ask_others(self, way: _Way) -> None:
        asked = [question for question, _ in way.asked.values()]
        for question in asked:
            self._land(question.requester, 1)
        for question in [*asked, *way.line]:
            if question.requester != MANAGER and self._present(question.requester):
                self.on_pull(question.requester, question)

    # -- lines -----------------------------------------------------------------------------------------

    def _line_up(self, holder: int, question: Pull) -> None:
        way = self._ways.get(holder)
        if way is None:
            way = self._ways[holder] = _Way(Pace(MOST_AHEAD))
        way.line.append(question)
        self._serve(holder, way)

    def _serve(self, holder: int, way: _Way) -> None:
        """Ask what may be asked by now."""
        # Whom nothing can be said to is gone, and its questions are asked of others meanwhile.
        while way.line and self._ways.get(holder) is way:
            if holder != MANAGER and len(way.asked) >= way.pace.limit:
                return
            requester = way.line[0].requester
            if requester != MANAGER and self._total >= self._most:
                if not way.stalled:
                    way.stalled = True
                    self._stalled.append(holder)
                return
            self._put(holder, way, way.line.popleft())

    def _put(self, holder: int, way: _Way, question: Pull) -> None:
        key = question.requester, question.file, question.offset
        if question.requester != MANAGER:
            if key in way.asked or not self._present(question.requester):
                return
            self._under_way[question.requester] = self._under_way.get(question.requester, 0) + 1
            self._total += 1
        if holder == MANAGER:
            self._answer(question)
        else:
            way.asked[key] = question, self._clock()
            self._say(holder, [question])

    def _answer(self, question: Pull) -> None:
        """From here, if that can be."""
        content = self._own(question.file)
        if content is not None:
            self._say(question.requester, [make_piece(question, memoryview(content))])
        elif not self._give(question):
            self._say(question.requester, [not_held(question)])

    def _land(self, worker: int, pieces: int) -> None:
        under_way = self._under_way.get(worker, 0)
        landed = min(pieces, under_way)
        self._total -= landed
        if landed < under_way:
            self._under_way[worker] = under_way - landed
        else:
            self._under_way.pop(worker, None)
