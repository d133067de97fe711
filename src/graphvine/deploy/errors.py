"""What can go wrong with workers from a batch system: each message says what was found and what to do."""

from __future__ import annotations

from graphvine.protocol.errors import GraphvineError


class DeployError(GraphvineError, RuntimeError):
    """A batch system could not be asked, refused what it was asked for, or was asked for nonsense."""


class BatchCommandError(DeployError):
    """A command of the batch system failed, is not there, or took too long. ``output``: what it said."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output
