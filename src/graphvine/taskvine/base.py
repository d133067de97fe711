"""What all parts of the client share: the desk where submitted tasks lie, made when it is first needed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from graphvine.protocol.errors import check_process

if TYPE_CHECKING:
    from graphvine.manager.engine import TaskEngine
    from graphvine.taskvine.desk import Desk


class DeskClient:
    """A part of a manager: the methods of ``engine.TaskEngine`` are on the same object."""

    def __init__(self) -> None:
        super().__init__()
        self._desk_made: Desk | None = None
        self._process = os.getpid()
        self._staging = ""
        self._encrypted = False

    @property
    def _engine(self) -> TaskEngine:
        return cast("TaskEngine", self)

    @property
    def _desk(self) -> Desk:
        """Raises ManagerClosedError in a forked child: the desk's threads are its parent's, and one of them
        may hold its lock for ever."""
        check_process(self._process)
        if self._desk_made is None:
            from graphvine.taskvine.desk import Desk

            os.makedirs(self.staging_directory, exist_ok=True)
            self._desk_made = Desk(self._engine, self.staging_directory)
        return self._desk_made

    @property
    def staging_directory(self) -> str:
        """Where the manager keeps what it needs while it lives."""
        return self._staging

    @property
    def logging_directory(self) -> str:
        """A directory for logs of the application's; it goes with the manager."""
        return self._directory("logs")

    @property
    def library_logging_directory(self) -> str:
        """As ``logging_directory``, for logs of libraries."""
        return self._directory("logs", "libraries")

    @property
    def cache_directory(self) -> str:
        """A directory for what the application keeps for itself; it goes with the manager."""
        return self._directory("cache")

    def _directory(self, *names: str) -> str:
        path = os.path.join(self.staging_directory, *names)
        os.makedirs(path, exist_ok=True)
        return path
