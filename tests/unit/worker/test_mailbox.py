from __future__ import annotations

import select
import threading

from graphvine.worker.mailbox import Mailbox


def readable(descriptor: int, timeout_s: float = 0.0) -> bool:
    return bool(select.select([descriptor], [], [], timeout_s)[0])


def test_readable_until_taken() -> None:
    box: Mailbox[int] = Mailbox()
    assert not readable(box.descriptor)
    assert box.take_all() == []
    box.put(1)
    box.put(2)
    assert readable(box.descriptor)
    assert box.take_all() == [1, 2]
    assert not readable(box.descriptor)
    box.close()


def test_nothing_is_lost_between_threads() -> None:
    box: Mailbox[int] = Mailbox()
    threads = [
        threading.Thread(target=lambda begin=begin: [box.put(begin + i) for i in range(1000)])
        for begin in (0, 1000, 2000)
    ]
    for thread in threads:
        thread.start()
    got: list[int] = []
    while len(got) < 3000:
        assert readable(box.descriptor, 10)
        got += box.take_all()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(3000))
    # A last wake-up may be for what was taken before it was seen.
    assert box.take_all() == []
    assert not readable(box.descriptor)
    box.close()
