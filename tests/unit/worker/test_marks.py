from __future__ import annotations

import os

from graphvine.worker.marks import LAYOUT, NOTHING, make_page, map_page, read_mark


def test_a_mark_is_seen_through_another_map_of_the_page() -> None:
    descriptor = make_page()
    with map_page(descriptor) as writer, map_page(descriptor) as reader:
        os.close(descriptor)
        assert read_mark(reader) == (None, None)
        LAYOUT.pack_into(writer, 0, 3, 2**40)
        assert read_mark(reader) == (3, 2**40)
        LAYOUT.pack_into(writer, 0, NOTHING, NOTHING)
        assert read_mark(reader) == (None, None)


def test_task_and_packet_may_be_number_zero() -> None:
    descriptor = make_page()
    with map_page(descriptor) as page:
        os.close(descriptor)
        LAYOUT.pack_into(page, 0, 0, 0)
        assert read_mark(page) == (0, 0)
