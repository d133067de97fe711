"""Every error of ours that a user can meet. Each message says what to do.

A user's own exception is raised as itself; ``RemoteTraceback`` is its cause.
"""

from __future__ import annotations

import os
from typing import Any


class GraphvineError(Exception):
    """Any error that comes from graphvine itself."""


class RemoteTraceback(GraphvineError):
    """The traceback of an exception that was raised on a worker; the cause of the exception raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text}"


def parts_of_exception(error: BaseException) -> tuple[Any, ...]:
    """What ``rebuild_exception`` makes an exception of."""
    kind, args, *attributes = _builtin_of(type(error)).__reduce__(error)
    return kind, args, *(attributes or [{}])


def rebuild_exception(kind: Any, args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    """A user's exception put together of its parts; its constructor is not called, only Python's own."""
    builtin = _builtin_of(kind)
    error: BaseException = builtin.__new__(kind, *args)
    builtin.__init__(error, *args)
    error.__setstate__(attributes)
    return error


def _builtin_of(kind: type[BaseException]) -> Any:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


class TaskError(GraphvineError):
    """A task failed for a reason other than an exception of its own."""


class TaskKilledError(TaskError):
    """A task's executor died every time the task was tried; the message lists each cause of death."""


class NotPicklableError(TaskError):
    """A function, argument or result that neither pickle nor cloudpickle can carry."""


class ResultNotPicklableError(NotPicklableError):
    """A task ran, and what it returned cannot be sent."""


class UndecodableError(TaskError):
    """A payload or an input that could not be unpickled on the worker (a missing module, say)."""


class StorageError(TaskError):
    """No worker had room for a result."""


class GivenFileError(TaskError):
    """A file of the manager's machine that tasks need changed since it was declared, or vanished."""


class TaskTimeoutError(TaskError, TimeoutError):
    """A task ran for longer than it was allowed to."""


class LibraryError(TaskError):
    """A library could not be started on a worker: its set-up raised, took too long, or ended its process."""


class EnvironmentUnusableError(TaskError):
    """An environment cannot be used on a worker: damaged, of another platform or Python, or without
    Python."""


class GraphError(GraphvineError, ValueError):
    """The graph itself is wrong: a cycle, or a task that names a key which is not there."""


class MissingKeyError(GraphError, KeyError):
    """A key that was asked for, or that a task names, is not in the graph."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ManagerClosedError(GraphvineError, RuntimeError):
    """The manager was closed; make a new one."""


class NestedManagerError(GraphvineError, RuntimeError):
    """A module that a worker imports for its tasks makes a manager when it is imported."""


#: This process, without asking the kernel each time.
_here = os.getpid()


def _be_here() -> None:
    global _here
    _here = os.getpid()


os.register_at_fork(after_in_child=_be_here)


def check_process(pid: int) -> None:
    """Raises ManagerClosedError in a process that was forked from ``pid``, which made a manager: the threads
    that would answer are not there, and waiting for them would never end."""
    if _here != pid:
        raise ManagerClosedError(
            f"this manager belongs to process {pid}, which made it, and this process ({_here}) was "
            "forked from that one; make a manager of its own here"
        )


class PortInUseError(GraphvineError, OSError):
    """No port of those allowed is free."""


class NoWorkerError(GraphvineError, RuntimeError):
    """A task asks for what no worker has, or the embedded worker can't be started."""
