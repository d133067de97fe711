"""What threads have to tell a loop that polls descriptors."""

from __future__ import annotations

import os
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """``put`` from any thread; ``descriptor`` is readable until ``take_all``."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, item: T) -> None:
        self._items.append(item)
        os.eventfd_write(self.descriptor, 1)

    def take_all(self) -> list[T]:
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return []
        # The count was cleared first: what is put from now on makes it readable again.
        taken = []
        while self._items:
            taken.append(self._items.popleft())
        return taken

    def close(self) -> None:
        os.close(self.descriptor)
