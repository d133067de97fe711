"""Files on their way to a worker: peers one after the other, then the relay."""

from __future__ import annotations

import pickle

import pytest
import xxhash
from tests.unit.worker.bench import BLOB, Bench, order

from graphvine.protocol import values
from graphvine.protocol.messages import Address, BlobData, Missing, OnNode, Piece, Pull, Source, Sources
from graphvine.worker.files import HERE
from graphvine.worker.instructions import ReadHere
from graphvine.worker.settings import Settings

PEERS = {1: [Address("a", 1)], 2: [Address("b", 2)]}
SMALL_PIECES = Settings(warm_executors=0, piece_bytes=100, pieces_ahead=2)


@pytest.fixture
def bench() -> Bench:
    return Bench(settings=SMALL_PIECES)


def missing(bench: Bench) -> list[Missing]:
    return [missing for report in bench.reports for missing in report.missing]


def arrive(bench: Bench, file: int, size: int = 10) -> None:
    bench.stored.add(file)
    bench.core.on_fetched(file, size)
    bench.turn()


def answer(bench: Bench, file: int, content: bytes, pull: Pull, damage: int = 0) -> None:
    part = content[pull.offset : pull.offset + pull.length]
    checksum = xxhash.xxh3_64_intdigest(part) ^ damage
    bench.core.on_piece(Piece(file, pull.offset, len(content), part, checksum, pull.requester))
    bench.turn()


def next_pulls(bench: Bench) -> list[Pull]:
    pulls = [message for message in bench.messages if isinstance(message, Pull)]
    bench.messages.clear()
    return pulls


def test_one_fetch_serves_all_tasks_that_need_a_file(bench: Bench) -> None:
    bench.assign(order(1, 50), order(2, 50), sources=[Source(50, 10, [1, 2])], peers=PEERS)
    assert [fetch.file for fetch in bench.fetches] == [50]
    arrive(bench, 50)
    bench.run_all()
    assert set(bench.done) == {1, 2}
    assert [report.fetched for report in bench.reports if report.fetched] == [[50]]


def test_holders_are_tried_one_after_the_other_and_then_reported(bench: Bench) -> None:
    bench.assign(order(1, 50), sources=[Source(50, 10, [1, 2])], peers=PEERS)
    for number in (1, 2):
        holder = bench.fetches[-1].holder
        bench.core.on_fetch_failed(50, holder, "no answer")
        bench.turn()
        assert len(bench.fetches) == min(number + 1, 2)
    assert {fetch.holder for fetch in bench.fetches} == {1, 2}
    (report,) = missing(bench)
    assert sorted(report.holders) == [1, 2]
    assert "worker 1: no answer" in report.reason
    bench.core.on_sources(Sources([Source(50, 10, [2])]))
    bench.turn()
    assert len(bench.fetches) == 3


def test_a_holder_without_an_address_is_not_asked(bench: Bench) -> None:
    bench.assign(order(1, 50), sources=[Source(50, 10, [3])])
    assert not bench.fetches
    assert [m.holders for m in missing(bench)] == [[3]]


LYING = OnNode("/data/file", 10, True, 1)


def test_a_file_of_this_node_is_read_here(bench: Bench) -> None:
    bench.assign(order(1, 50), sources=[Source(50, 10, [1], on_node=LYING)], peers=PEERS)
    assert bench.read_here == [ReadHere(50, LYING)]
    assert not bench.fetches
    assert not next_pulls(bench)
    arrive(bench, 50, 110)
    bench.run_all()
    assert set(bench.done) == {1}
    assert [report.sizes for report in bench.reports if report.fetched] == [{50: 110}]
    assert bench.core.holds() == [(50, 110)]


def test_what_cannot_be_read_here_is_fetched(bench: Bench) -> None:
    bench.assign(order(1, 50), sources=[Source(50, 10, [1, 2], on_node=LYING)], peers=PEERS)
    bench.core.on_fetch_failed(50, HERE, "no such file")
    bench.turn()
    assert [fetch.holder for fetch in bench.fetches] == [1]
    assert not missing(bench)
    assert ["no such file" in note.text for note in bench.notes] == [True]


def test_what_cannot_be_read_here_comes_through_the_manager_where_nobody_has_it(bench: Bench) -> None:
    content = values.MAGIC + bytes(82)
    bench.assign(order(1, 50), sources=[Source(50, 10, [], on_node=LYING)])
    bench.core.on_fetch_failed(50, HERE, "no such file")
    bench.turn()
    (pull,) = next_pulls(bench)
    answer(bench, 50, content, pull)
    bench.run_all()
    assert set(bench.done) == {1}


def test_a_file_that_is_read_here_and_not_wanted_any_more_is_stopped(bench: Bench) -> None:
    bench.assign(order(1, 50), sources=[Source(50, 10, [], on_node=LYING)])
    bench.core.on_cancel([1], bench.now)
    bench.core.on_drop([50])
    bench.turn()
    bench.core.on_fetch_failed(50, HERE, "cancelled")
    bench.turn()
    assert not next_pulls(bench)
    assert not missing(bench)


def test_a_value_that_comes_while_a_file_is_fetched_is_used(bench: Bench) -> None:
    bench.assign(order(1, 50), sources=[Source(50, 10, [1])], peers=PEERS)
    bench.core.on_sources(Sources([], values={50: b"value"}))
    bench.turn()
    bench.run_all()
    assert set(bench.done) == {1}
    arrive(bench, 50)
    assert 50 not in bench.stored, "a second copy is of no use"


def test_a_file_that_was_dropped_on_its_way_is_not_kept(bench: Bench) -> None:
    bench.assign(order(1, 50), sources=[Source(50, 10, [1])], peers=PEERS)
    bench.core.on_cancel([1], bench.now)
    bench.core.on_drop([50])
    bench.turn()
    arrive(bench, 50)
    assert 50 not in bench.stored


def test_a_blob_can_come_from_a_peer(bench: Bench) -> None:
    blobs = [BlobData(BLOB, 0, None)]
    bench.assign(order(1), blobs=blobs, sources=[Source(BLOB, 10, [1])], peers=PEERS)
    arrive(bench, BLOB)
    bench.run_all()
    assert set(bench.done) == {1}
    assert bench.core.holds() == [], "a blob is no result"


def test_a_relayed_file_is_pulled_a_few_pieces_at_a_time(bench: Bench) -> None:
    content = values.MAGIC + bytes(442)
    bench.assign(order(1, 50), sources=[Source(50, 450, [])])
    pulls = next_pulls(bench)
    assert [pull.offset for pull in pulls] == [0, 100]
    seen = []
    while pulls:
        pull = pulls.pop()
        seen.append(pull.offset)
        answer(bench, 50, content, pull)
        pulls += next_pulls(bench)
        assert len(pulls) <= 2
    assert sorted(seen) == [0, 100, 200, 300, 400]
    assert bench.core.holds() == [(50, 450)]
    bench.run_all()
    assert set(bench.done) == {1}


def test_a_damaged_piece_is_asked_for_again_a_few_times(bench: Bench) -> None:
    bench.assign(order(1, 50), sources=[Source(50, 50, [])])
    for _ in range(SMALL_PIECES.piece_tries):
        (pull,) = next_pulls(bench)
        answer(bench, 50, bytes(50), pull, damage=1)
    assert not next_pulls(bench)
    assert "damaged" in missing(bench)[0].reason


def test_the_next_relay_goes_on_when_one_fails(bench: Bench) -> None:
    bench.assign(order(1, 50, 51), sources=[Source(50, 450, []), Source(51, 30, [])])
    first, second = next_pulls(bench)
    bench.core.on_piece(Piece(50, 0, -1, b"", 0, 7))
    bench.turn()
    assert [m.file for m in missing(bench)] == [50]
    assert [pull.file for pull in next_pulls(bench)] == [51]
    assert (first.file, second.file) == (50, 50)


def test_the_next_relay_goes_on_when_one_is_dropped_or_comes_by_another_way(bench: Bench) -> None:
    wanted = (50, 51, 52)
    bench.assign(*(order(file - 49, file) for file in wanted), sources=[Source(f, 300, []) for f in wanted])
    assert [(pull.file, pull.offset) for pull in next_pulls(bench)] == [(50, 0), (50, 100)]
    bench.core.on_drop([50])
    bench.turn()
    assert [(pull.file, pull.offset) for pull in next_pulls(bench)] == [(51, 0), (51, 100)]
    arrive(bench, 51, 300)
    assert [(pull.file, pull.offset) for pull in next_pulls(bench)] == [(52, 0), (52, 100)]


def test_a_relayed_value_that_was_inline_at_its_maker_is_inline_here(bench: Bench) -> None:
    content = pickle.dumps([1, 2, 3], protocol=5)
    bench.assign(order(1, 50), sources=[Source(50, len(content), [])])
    (pull,) = next_pulls(bench)
    answer(bench, 50, content, pull)
    assert 50 not in bench.stored
    bench.run_all()
    assert set(bench.done) == {1}


def test_pulls_are_answered_from_memory_and_from_the_store(bench: Bench) -> None:
    bench.assign(order(1), order(2))
    bench.bring_up()
    first, second = bench.executors
    bench.finish_one(first, size=10)
    bench.finish_one(second, size=5000)
    for file in (1, 2, 3):
        bench.core.on_pull(Pull(file, 4, 100, 9))
    bench.turn()
    pieces = [message for message in bench.messages if isinstance(message, Piece)]
    assert [(piece.file, piece.total, piece.data) for piece in pieces] == [(1, 10, b"v" * 6), (3, -1, b"")]
    assert [(asked.file, asked.offset, asked.requester) for asked in bench.served] == [(2, 4, 9)]
