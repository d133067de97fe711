"""What can go wrong with workers from a batch system: each message says what was found and what to do."""

from __future__ import annotations

from graphvine.protocol.errors import GraphvineError


class DeployError(GraphvineError, RuntimeError):
    """A batch system could not be asked, refused what it was asked for, or was asked for nonsense."""


class BatchCommandError(DeployError):
    """A command of the batch system failed, is not there, or took too long. ``output``: what it complained
    of; ``printed``: its standard output, as some fail for one unknown job of several, and tell of the
    others."""

    def __init__(self, message: str, output: str = "", printed: str = "") -> None:
        super().__init__(message)
        self.output = output
        self.printed = printed
