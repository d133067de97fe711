"""Every decoder of what comes from elsewhere, with seeded rubbish: refused by its own error, or taken."""

from __future__ import annotations

import os
import random
import tracemalloc
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.rubbish import batch, damaged, value

from graphvine.protocol import messages, values
from graphvine.protocol.codec import (
    MAX_TO_MANAGER_BYTES,
    ProtocolError,
    decode_to_factory,
    decode_to_manager,
    decode_to_worker,
    encode,
)
from graphvine.protocol.connection import (
    ConnectionFileError,
    make_connection,
    parse_connection,
    write_connection,
)
from graphvine.protocol.messages import PROTOCOL_VERSION, Piece, Pull
from graphvine.protocol.pieces import Assembler, Damaged
from graphvine.protocol.tree_files import Reader, Writer, take_in
from graphvine.protocol.trees import BadTreeError, NewTree

Decode = Callable[[bytes], object]
DECODERS = {
    "manager": (decode_to_manager, typing.get_args(messages.ToManager)),
    "worker": (decode_to_worker, typing.get_args(messages.ToWorker)),
    "factory": (decode_to_factory, typing.get_args(messages.ToFactory)),
}
SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("side", DECODERS)
def test_what_is_no_batch_is_refused(side: str, seed: int) -> None:
    decode, kinds = DECODERS[side]
    chance = random.Random(seed)
    refused = 0
    for _ in range(300):
        frame = encode(batch(chance, kinds))
        decode(frame)
        try:
            decode(damaged(chance, frame))
        except ProtocolError:
            refused += 1
    assert refused > 20


VERSION = bytes([PROTOCOL_VERSION])


@pytest.mark.parametrize("side", DECODERS)
@pytest.mark.parametrize(
    "bomb",
    [
        b"\x91" * 1_000_000,
        b"\x91\x81\xa1z" + b"\x91" * 1_000_000,
        b"\x91\x82\xa4type\xa5hello\xa1z" + b"\x91" * 1_000_000,
        b"\x91\x82\xa4type\xa6report\xa4done" + b"\x91" * 1_000_000,
        b"\x81\xa1a" * 300_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x91\xdf\xff\xff\xff\xff",
        b"\x91\x82\xa4type\xa6report\xa4lost\xdd\xff\xff\xff\xff",
        b"\x91\x82\xa4type\xa6output\xa4data\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ],
    ids=lambda bomb: bomb[:12].hex(),
)
def test_what_says_to_be_deep_or_endless_costs_nothing(side: str, bomb: bytes) -> None:
    decode, _ = DECODERS[side]
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(VERSION + bomb)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(bomb) + 2**20
    finally:
        tracemalloc.stop()


def test_what_is_longer_than_any_batch_is_not_looked_at() -> None:
    with pytest.raises(ProtocolError, match="the limit is"):
        decode_to_manager(VERSION + bytes(MAX_TO_MANAGER_BYTES))


@pytest.mark.parametrize("seed", SEEDS)
def test_pieces_that_make_no_file(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        size = chance.choice((1, 100, 3 * 2**20))
        assembler = Assembler(1, size, 0)
        pulls = assembler.first_pulls()
        for _ in range(5):
            piece = value(chance, Piece)
            if chance.random() < 0.5:
                piece = Piece(1, pulls[0].offset, size, b"x" * 10, value(chance, int) % 2**64, 0)
            outcome = assembler.on_piece(piece)
            assert isinstance(outcome, Damaged | Pull | None)
            if isinstance(outcome, Damaged):
                break


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tree as it travels."""
    source = tmp_path_factory.mktemp("source")
    for number in range(5):
        (source / f"d{number}").mkdir()
        (source / f"d{number}" / "file").write_bytes(os.urandom(100))
    (source / "link").symlink_to("d1/file")
    taken = str(tmp_path_factory.mktemp("taken") / "tree")
    take_in(NewTree(str(source)), taken, lambda _: "copy")
    with Reader(taken) as reader:
        return reader.read(0, reader.size)


@pytest.mark.parametrize("seed", SEEDS)
def test_trees_that_are_none_are_refused_and_nothing_is_written_elsewhere(
    seed: int, flat: bytes, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    (tmp_path / "here").mkdir()
    for number in range(50):
        writer = Writer(str(tmp_path / "here" / str(number)))
        words = damaged(chance, flat)
        try:
            for at in range(0, len(words), 50):
                writer.feed(words[at : at + 50])
            writer.finish()
        except BadTreeError:
            pass
        finally:
            writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("seed", SEEDS)
def test_value_files_that_are_none_are_refused(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    data, buffers = values.dumps([bytearray(100), "text"])
    path = tmp_path / "value"
    whole = b"".join(bytes(piece) for piece in values.layout(data, buffers))
    for _ in range(50):
        # The head alone: what is in the pickle is for who may say what is to run.
        path.write_bytes(damaged(chance, whole[:32]) + whole[32:])
        try:
            values.map_file(str(path))
        except values.DamagedValueError:
            continue


@pytest.mark.parametrize("seed", SEEDS)
def test_connection_files_that_are_none_are_refused(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    write_connection(make_connection("n", ("h",), 1, "k" * 40), tmp_path / "c")
    whole = (tmp_path / "c").read_bytes()
    for words in [*(damaged(chance, whole) for _ in range(200)), b"[" * 100_000]:
        try:
            parse_connection(words, "it")
        except ConnectionFileError:
            continue
