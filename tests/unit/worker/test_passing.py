from __future__ import annotations

import os
from pathlib import Path

from graphvine.worker.packets import MAX_MESSAGE_BYTES, REFERENCE
from graphvine.worker.passing import forget, refer, resolve


def test_short_messages_stay_as_they_are(tmp_path: Path) -> None:
    message = b"\x93" + bytes(MAX_MESSAGE_BYTES - 1)
    assert refer(message, str(tmp_path)) is message
    assert resolve(memoryview(message)) == message
    assert list(tmp_path.iterdir()) == []


def test_long_messages_go_through_a_file_that_is_removed_when_read(tmp_path: Path) -> None:
    message = os.urandom(MAX_MESSAGE_BYTES + 1)
    reference = refer(message, str(tmp_path))
    assert reference.startswith(REFERENCE)
    assert len(reference) < 1000
    assert resolve(memoryview(reference)) == message
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_sent_leaves_no_file(tmp_path: Path) -> None:
    forget(refer(bytes(MAX_MESSAGE_BYTES + 1), str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_message_for_which_the_disk_has_no_room_lies_in_memory(tmp_path: Path) -> None:
    message = b"\x00" * (MAX_MESSAGE_BYTES + 1)
    reference = refer(message, str(tmp_path / "absent"))
    assert reference[:1] == REFERENCE
    path = Path(os.fsdecode(reference[1:]))
    assert path.stat().st_size == len(message)
    assert bytes(resolve(memoryview(reference))) == message
    assert not path.exists()
