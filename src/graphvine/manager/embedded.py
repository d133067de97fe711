"""When the embedded worker is started, and started again."""

from __future__ import annotations

import logging

import msgspec

from graphvine.manager.local import LocalWish, LocalWorker
from graphvine.manager.loop import Loop
from graphvine.protocol.connection import Connection
from graphvine.protocol.errors import NoWorkerError
from graphvine.protocol.messages import Hello

log = logging.getLogger("graphvine.manager")

_LEAVE_GRACE_S = 5.0


class Embedded:
    """Has the embedded worker join, starts it when there is work for it, and again when it was lost. Used in
    the loop's thread, but for ``on_exit``."""

    def __init__(self, loop: Loop, connection: Connection, wish: LocalWish, worker: LocalWorker) -> None:
        """``worker`` may be launched already: then it is told of this manager at once."""
        self._loop = loop
        self._wish = wish
        self._worker = worker
        self._connection = msgspec.json.encode(connection)
        self._closing = False
        loop.on_worker_joined = self._on_joined
        if worker.pid is not None:
            worker.join(self._connection, self._on_exit)

    def on_work(self) -> None:
        """There is work; start the worker if one is wanted and none is there."""
        if self._closing or self._worker.joining or self._wish.when == "never":
            return
        if self._wish.when == "if alone" and self._loop.workers():
            return
        try:
            self._worker.join(self._connection, self._on_exit)
        except OSError as error:
            self._loop.fail_all(NoWorkerError(f"the local worker can't be started: {error}"))

    @property
    def is_told(self) -> bool:
        """Whether a process has the connection by now."""
        return self._worker.pid is not None

    def change_connection(self, connection: Connection) -> None:
        """No process was told of the connection: it is another."""
        self._connection = msgspec.json.encode(connection)

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
            self._despair(f"the local worker ends as soon as it starts ({how}):\n{self._worker.log_tail()}")
            return
        said = self._worker.log_tail()
        log.warning("the local worker ended (%s); starting it again. It said:\n%s", how, said)
        self.on_work()

    def _despair(self, why: str) -> None:
        """It is not started again for the work there is."""
        if self._loop.workers():
            log.error("%s", why)
        else:
            self._loop.fail_all(NoWorkerError(why))
