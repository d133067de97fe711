"""When the embedded worker is started, and started again."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Literal

import msgspec

from graphvine.manager.local import LocalWorker
from graphvine.manager.loop import Loop
from graphvine.protocol.connection import Connection
from graphvine.protocol.errors import NoWorkerError
from graphvine.protocol.messages import Hello

log = logging.getLogger("graphvine.manager")

_LEAVE_GRACE_S = 5.0


class LocalWish(msgspec.Struct, frozen=True):
    """When an embedded worker is wanted, and with how many cores (None: all)."""

    when: Literal["never", "always", "if alone"]
    cores: float | None = None

    @classmethod
    def stated(cls, local_workers: float | bool | None, public: bool) -> LocalWish:
        """What the user's ``local_workers`` means; ``public``: other machines may join. Raises ValueError."""
        if local_workers is None:
            return cls("if alone" if public else "always")
        if local_workers is True:
            return cls("always")
        if local_workers is False or local_workers == 0:
            return cls("never")
        if not isinstance(local_workers, int | float) or not 0 < local_workers < math.inf:
            raise ValueError(
                f"local_workers={local_workers!r}: give a number of cores, 0 for no local worker"
            )
        if local_workers < 1:
            raise ValueError(
                f"local_workers={local_workers!r}: a task asks for one core unless it is told otherwise, and "
                "would never run; give at least 1"
            )
        return cls("always", float(local_workers))


class Embedded:
    """Starts the embedded worker when there is work for it, and again when it was lost. Used in the loop's
    thread, but for ``on_exit``."""

    def __init__(self, loop: Loop, connection: Connection, wish: LocalWish, log_directory: Path) -> None:
        self._loop = loop
        self._wish = wish
        self._worker = LocalWorker(connection, wish.cores, log_directory, self._on_exit)
        self._closing = False
        loop.on_worker_joined = self._on_joined

    def on_work(self) -> None:
        """There is work; start the worker if one is wanted and none is there."""
        if self._closing or self._worker.pid is not None or self._wish.when == "never":
            return
        if self._wish.when == "if alone" and self._loop.workers():
            return
        try:
            self._worker.start()
        except OSError as error:
            self._loop.fail_all(NoWorkerError(f"the local worker can't be started: {error}"))

    def stop(self) -> None:
        """From the closing thread, once the loop has ended."""
        self._closing = True
        self._worker.stop(_LEAVE_GRACE_S)

    def _on_joined(self, worker: int, hello: Hello) -> None:
        self._worker.on_joined(hello.pid)

    def _on_exit(self, pid: int, how: str) -> None:
        self._loop.call(lambda: self._on_ended(pid, how))

    def _on_ended(self, pid: int, how: str) -> None:
        if self._closing:
            return
        self._worker.on_ended()
        self._loop.lose_process(pid, f"the local worker ended ({how})")
        if not self._loop.has_work():
            return
        if self._worker.hopeless:
            self._loop.fail_all(
                NoWorkerError(
                    f"the local worker ends as soon as it starts ({how}):\n{self._worker.log_tail()}"
                )
            )
            return
        said = self._worker.log_tail()
        log.warning("the local worker ended (%s); starting it again. It said:\n%s", how, said)
        self.on_work()
