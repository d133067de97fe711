"""The exception that a user meets, made from what the core says of a failed plan. Pure.

A task that raised gives the user's own exception, of its own type, with the traceback of the worker as its
cause and a note that names the task, the worker and the attempt. Everything else is one of
``protocol.errors``, with a message that says what happened and what can be done.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import CancelledError

from graphvine.manager.instructions import Death, PlanFailed
from graphvine.protocol.errors import (
    EnvironmentUnusableError,
    GivenFileError,
    LibraryError,
    NestedManagerError,
    NoWorkerError,
    RemoteTraceback,
    ResultNotPicklableError,
    StorageError,
    TaskError,
    TaskKilledError,
    TaskTimeoutError,
    UndecodableError,
)
from graphvine.protocol.outcomes import Failed
from graphvine.protocol.payload import add_note

_MAX_SHOWN_TRIES = 10


def exception_from(failure: PlanFailed, key: object) -> BaseException:
    """The exception for ``failure`` of the task that the user knows as ``key``."""
    if failure.kind == "raised":
        return raised_exception(failure.error, failure.text, key, f"{_task(key)} failed{_where(failure)}")
    if failure.kind == "unrunnable":
        return NoWorkerError(f"{_task(key)} cannot be run: {failure.text}")
    if failure.kind == "killed":
        return TaskKilledError(_killed_text(failure, key))
    if failure.kind == "storage":
        return StorageError(
            f"{_task(key)}{_where(failure)}: no room for its result ({_last_line(failure.text)}). "
            "Free disk on the worker, start more workers, or make the pieces of the data smaller."
        )
    if failure.kind == "timeout":
        return TaskTimeoutError(f"{_task(key)}{_where(failure)} was stopped: {failure.text}")
    if failure.kind == "missing":
        return GivenFileError(f"{_task(key)} stands for a file that cannot be had: {failure.text}")
    if failure.kind == "unpicklable":
        return ResultNotPicklableError(
            f"{_task(key)} ran{_where(failure)}, but its result cannot be sent: {_last_line(failure.text)}. "
            "Return something that pickle or cloudpickle can carry (no open files, locks, connections)."
        )
    if failure.kind == "library" or failure.kind == "environment":
        return _of_context(failure, key)
    return _of_undecodable(failure, key)


def failed_exception(failed: Failed, key: object) -> BaseException:
    """The exception for a task of a separate plan, whose result this is."""
    if failed.kind == "cancelled":
        return CancelledError(f"{_task(key)}, or what it builds on, was cancelled")
    return exception_from(PlanFailed(0, 0, failed.kind, failed.text, failed.error, []), key)


def raised_exception(data: bytes, text: str, key: object, where: str) -> BaseException:
    """The user's own exception: ``data`` is its pickle, ``text`` its traceback, ``where`` the note."""
    error = _unpickled(data)
    if error is None:
        error = TaskError(
            f"{_task(key)} raised {_last_line(text)} "
            "(the exception itself cannot be sent: what it holds cannot be pickled, or is too large; "
            "its traceback is above)"
        )
    # An exception may forbid that its attributes are set (a frozen attrs class does).
    object.__setattr__(error, "__cause__", RemoteTraceback(f"{where}\n{text}"))
    add_note(error, where)
    return error


def _of_undecodable(failure: PlanFailed, key: object) -> BaseException:
    reason = _last_line(failure.text)
    advice = "the worker's Python environment must have what the payload needs, in the same version"
    cause = _unpickled(failure.error)
    if isinstance(cause, NestedManagerError):
        error = UndecodableError(f"{_task(key)}{_where(failure)}: {cause}")
        error.__cause__ = RemoteTraceback(failure.text)
        return error
    if isinstance(cause, ImportError):
        advice = "install it in the worker's environment (modules beside your script travel by themselves)"
    error = UndecodableError(
        f"{_task(key)}{_where(failure)}: its function or an input cannot be unpickled there: {reason}; "
        f"{advice}"
    )
    error.__cause__ = RemoteTraceback(failure.text)
    return error


def _of_context(failure: PlanFailed, key: object) -> BaseException:
    kind = LibraryError if failure.kind == "library" else EnvironmentUnusableError
    title, _, rest = failure.text.partition("\n")
    if rest.strip():
        title += f" {_last_line(rest)}"
    error = kind(f"{title} (needed by {_task(key)}{_where(failure)})")
    error.__cause__ = RemoteTraceback(failure.text)
    return error


def _killed_text(failure: PlanFailed, key: object) -> str:
    deaths = [one for one in failure.tries if one.kind == "killed"]
    times = {0: "", 1: " once"}.get(len(deaths), f" {len(deaths)} times")
    lines = [f"{_task(key)} killed the process that ran it{times}:"]
    shown = deaths[-_MAX_SHOWN_TRIES:]
    if len(shown) < len(deaths):
        lines.append(f"  ({len(deaths) - len(shown)} earlier ones are left out)")
    lines += [f"  attempt {one.attempt + 1} on worker {one.worker}: {indented(one.text, 4)}" for one in shown]
    if not deaths:
        lines.append(f"  {indented(failure.text, 2)}")
    return "\n".join(lines)


def _unpickled(data: bytes) -> BaseException | None:
    """The user's exception, or None where it cannot be had."""
    if not data:
        return None
    try:
        error = pickle.loads(data)
    except Exception:  # noqa: BLE001 -- an exception may do anything when it is unpickled; the text remains
        return None
    return error if isinstance(error, BaseException) else None


def _task(key: object) -> str:
    return "a task" if key is None else f"task {key!r}"


def _where(failure: PlanFailed) -> str:
    last: Sequence[Death] = failure.tries[-1:]
    return "".join(f" on worker {one.worker}, attempt {one.attempt + 1}" for one in last)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"


def indented(text: str, by: int) -> str:
    """``text``, all its lines but the first one so far to the right."""
    return text.strip().replace("\n", "\n" + " " * by)
