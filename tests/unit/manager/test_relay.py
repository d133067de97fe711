"""Pieces through the manager: who is asked, who is answered, what happens when who was asked is gone."""

from __future__ import annotations

from graphvine.manager.relay import Relay
from graphvine.protocol.messages import Piece, Pull, ToWorker
from graphvine.protocol.pieces import make_piece, not_held

CONTENT = memoryview(b"0123456789")


class Scene:
    def __init__(self) -> None:
        self.holding = {7: [2, 3]}
        self.there = {1, 2, 3, 4}
        self.own = {9: bytes(CONTENT)}
        self.said: list[tuple[int, ToWorker]] = []
        self.given: list[Pull] = []
        self.collected: list[tuple[int, Piece]] = []
        self.now = 0.0
        self.relay = Relay(
            lambda file: self.holding.get(file, []),
            self.there.__contains__,
            self._say,
            self.own.get,
            self._give,
            lambda worker, piece: self.collected.append((worker, piece)),
            lambda: self.now,
            most=6,
        )

    def _give(self, question: Pull) -> bool:
        if question.file != 6:
            return False
        self.given.append(question)
        return True

    def _say(self, worker: int, messages: list[ToWorker]) -> None:
        self.said += [(worker, message) for message in messages]

    def lose(self, worker: int) -> None:
        self.there.discard(worker)
        self.holding = {file: [w for w in held if w != worker] for file, held in self.holding.items()}
        self.relay.on_worker_parted(worker)


def test_a_holder_is_asked_and_its_answer_passed_on() -> None:
    scene = Scene()
    scene.relay.on_pull(1, Pull(7, 4, 4, 0))
    question = Pull(7, 4, 4, 1)
    assert scene.said == [(2, question)]
    piece = make_piece(question, CONTENT)
    scene.relay.on_piece(2, piece)
    assert scene.said[1:] == [(1, piece)]


def test_a_worker_is_not_asked_for_its_own_question() -> None:
    scene = Scene()
    scene.relay.on_pull(2, Pull(7, 0, 4, 0))
    assert scene.said == [(3, Pull(7, 0, 4, 2))]


def test_nobody_holds_it() -> None:
    scene = Scene()
    scene.relay.on_pull(1, Pull(8, 0, 4, 0))
    assert scene.said == [(1, not_held(Pull(8, 0, 4, 1)))]


def test_questions_to_a_lost_worker_go_to_another_and_at_last_are_answered() -> None:
    scene = Scene()
    for offset in (0, 4):
        scene.relay.on_pull(1, Pull(7, offset, 4, 0))
    scene.relay.on_piece(2, make_piece(Pull(7, 0, 4, 1), CONTENT))
    scene.said.clear()
    scene.lose(2)
    assert scene.said == [(3, Pull(7, 4, 4, 1))], "only what was not answered"
    scene.lose(3)
    assert scene.said[1:] == [(1, not_held(Pull(7, 4, 4, 1)))]
    scene.lose(4)
    assert len(scene.said) == 2


def test_nobody_is_told_what_a_lost_worker_asked_for() -> None:
    scene = Scene()
    scene.relay.on_pull(1, Pull(7, 0, 4, 0))
    scene.lose(1)
    scene.relay.on_piece(2, make_piece(Pull(7, 0, 4, 1), CONTENT))
    scene.relay.on_pull(4, Pull(7, 0, 4, 0))
    scene.lose(3)
    assert scene.said == [(2, Pull(7, 0, 4, 1)), (3, Pull(7, 0, 4, 4)), (2, Pull(7, 0, 4, 4))]


def test_a_piece_nobody_asked_for_goes_nowhere() -> None:
    scene = Scene()
    scene.relay.on_piece(2, Piece(7, 0, 10, b"01", 0, 1))
    assert scene.said == []


def test_what_the_manager_has_comes_from_there() -> None:
    scene = Scene()
    scene.holding[9] = [2]
    scene.relay.on_pull(1, Pull(9, 4, 4, 0))
    assert scene.said == [(1, make_piece(Pull(9, 4, 4, 1), CONTENT))]


def test_a_file_of_the_managers_machine_is_read_for_whoever_asks_unless_a_worker_has_it() -> None:
    scene = Scene()
    scene.relay.on_pull(1, Pull(6, 0, 10, 99))
    assert scene.given == [Pull(6, 0, 10, 1)]
    assert scene.said == []
    scene.holding[6] = [2]
    scene.relay.on_pull(1, Pull(6, 10, 10, 99))
    assert scene.said == [(2, Pull(6, 10, 10, 1))]


def test_the_manager_asks_in_the_same_line_and_takes_the_answer_in() -> None:
    scene = Scene()
    scene.relay.ask(2, Pull(7, 0, 4, 0))
    assert scene.said == [(2, Pull(7, 0, 4, 0))]
    piece = make_piece(Pull(7, 0, 4, 0), CONTENT)
    scene.relay.on_piece(2, piece)
    scene.relay.on_piece(2, piece)
    assert scene.collected == [(2, piece)], "once"


def test_a_holder_is_asked_for_a_few_pieces_at_a_time_and_for_fewer_where_they_wait_for_each_other() -> None:
    scene = Scene()
    for offset in range(40):
        scene.relay.ask(2, Pull(7, offset, 1, 0))
    asked = [question for _, question in scene.said if isinstance(question, Pull)]
    assert len(asked) == 4
    for number in range(30):
        # Each takes longer than the one before: the way is full.
        scene.now += 0.2 + number
        scene.relay.on_piece(2, make_piece(asked[number], CONTENT))
        asked = [question for _, question in scene.said if isinstance(question, Pull)]
    assert len(asked) - 30 == 1, "one is always under way"


def test_no_more_is_under_way_than_the_managers_memory_is_to_hold() -> None:
    scene = Scene()
    for offset in range(10):
        scene.relay.on_pull(1, Pull(9, offset, 1, 0))
    for offset in range(10):
        scene.relay.on_pull(4, Pull(9, offset, 1, 0))
    assert len(scene.said) == 6
    scene.relay.on_taken(1, 2)
    assert len(scene.said) == 8
    # Who is gone takes nothing in any more, and waits for nothing: others go on without a word of anybody.
    scene.lose(1)
    assert [worker for worker, _ in scene.said[8:]] == [4] * 6
    scene.relay.on_taken(4, 10**9)
    assert len(scene.said) == 8 + 10


def test_a_question_that_is_asked_already_is_not_asked_again() -> None:
    scene = Scene()
    for _ in range(3):
        scene.relay.on_pull(1, Pull(7, 0, 4, 0))
    assert len(scene.said) == 1
    scene.relay.on_piece(2, make_piece(Pull(7, 0, 4, 1), CONTENT))
    scene.relay.on_taken(1, 1)
    for offset in range(6):
        scene.relay.on_pull(1, Pull(9, offset, 1, 0))
    assert len(scene.said) == 2 + 6, "nothing is thought to be under way"
