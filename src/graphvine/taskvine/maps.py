"""``map``, ``pair`` and ``tree_reduce``: a function over sequences, in chunks that run in parallel.

The ``remote_`` forms call functions of an installed library.

What a call raises takes the place of its result, as TaskVine's manual has it: that exception itself, its
cause the traceback of the worker. What ends a worker's process, and a result that cannot be pickled, takes
the place of all results of its chunk. What keeps the work from being done at all (a function or an item that
cannot be pickled, a closed manager) is raised.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager
from typing import Any

from graphvine.manager.failure import raised_exception
from graphvine.protocol.errors import (
    LibraryError,
    ManagerClosedError,
    NotPicklableError,
    ResultNotPicklableError,
)
from graphvine.taskvine.remote import chunks

_FATAL = (ManagerClosedError, NotPicklableError, LibraryError, CancelledError)


def map_chunks(
    make_executor: Callable[[], Executor], fn: Callable[[Any], Any], seq: Iterable[Any], chunk_size: int
) -> list[Any]:
    """``[fn(x) for x in seq]``."""
    _check(fn, chunk_size)
    return _flat(make_executor, chunks.each, fn, list(seq), chunk_size)


def pair_chunks(
    make_executor: Callable[[], Executor],
    fn: Callable[..., Any],
    seq1: Iterable[Any],
    seq2: Iterable[Any],
    chunk_size: int,
) -> list[Any]:
    """``[fn((x, y)) for x in seq1 for y in seq2]``."""
    _check(fn, chunk_size)
    return _flat(make_executor, chunks.each_pair, fn, list(itertools.product(seq1, seq2)), chunk_size)


def reduce_chunks(
    make_executor: Callable[[], Executor], fn: Callable[..., Any], seq: Iterable[Any], chunk_size: int
) -> Any:
    """One value: what ``fn`` makes of chunks, and of what came of those."""
    _check(fn, chunk_size, 2)
    with _running(make_executor) as executor:
        future = submit_tree(lambda items: executor.submit(chunks.reduced, fn, items), list(seq), chunk_size)
        return result_or_error(future)


def submit_tree(submit: Callable[[list[Any]], Any], items: list[Any], chunk_size: int) -> Any:
    """The future of a tree of calls over chunks. Raises TypeError for no items at all."""
    if not items:
        raise TypeError("there is nothing to reduce: the sequence is empty")
    level = [submit(chunk) for chunk in in_chunks(items, chunk_size)]
    while len(level) > 1:
        level = [
            chunk[0] if len(chunk) == 1 else submit(list(chunk)) for chunk in in_chunks(level, chunk_size)
        ]
    return level[0]


def in_chunks(items: list[Any], chunk_size: int) -> list[list[Any]]:
    """Neighbours together, so many at a time."""
    return [items[begin : begin + chunk_size] for begin in range(0, len(items), chunk_size)]


def check_chunk_size(name: str, value: Any, least: int = 1) -> None:
    """Raises TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} should be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name}={value}: give {least} or more")


def result_or_error(future: Future[Any]) -> Any:
    """Its result, or what it raised. Raises what kept it from being run at all."""
    try:
        return future.result()
    except ResultNotPicklableError as error:
        return error
    except _FATAL:
        raise
    except Exception as error:  # noqa: BLE001 -- it stands for the result
        return error


def _flat(
    make_executor: Callable[[], Executor],
    over: Callable[..., list[Any]],
    fn: Callable[..., Any],
    items: list[Any],
    chunk_size: int,
) -> list[Any]:
    results: list[Any] = []
    with _running(make_executor) as executor:
        parts = in_chunks(items, chunk_size)
        futures = [executor.submit(over, fn, part) for part in parts]
        for part, future in zip(parts, futures, strict=True):
            made = result_or_error(future)
            results += [made] * len(part) if isinstance(made, Exception) else map(_told, made)
    return results


def remote_chunks(
    manager: Any, library: str, fn: str, items: list[Any], name: str | None, chunk_size: int
) -> list[Any]:
    """See ``MapClient.remote_map``."""
    from graphvine.taskvine.futures import FutureFunctionCall, begin

    check_chunk_size("chunk_size", chunk_size)
    if not name:
        futures = [begin(manager, FutureFunctionCall(library, fn, item)) for item in items]
        return [result_or_error(future) for future in futures]
    parts = in_chunks(items, chunk_size)
    futures = [begin(manager, FutureFunctionCall(library, fn, **{name: part})) for part in parts]
    results: list[Any] = []
    for part, future in zip(parts, futures, strict=True):
        made = result_or_error(future)
        results += [made] * len(part) if isinstance(made, Exception) else made
    return results


def remote_reduce(
    manager: Any, library: str, fn: str, items: list[Any], name: str | None, chunk_size: int
) -> Any:
    """See ``MapClient.remote_tree_reduce``."""
    from graphvine.taskvine.futures import FutureFunctionCall, begin

    check_chunk_size("chunk_size", chunk_size, 2)

    def submit(part: list[Any]) -> Any:
        stated = {name: part} if name else {}
        return begin(manager, FutureFunctionCall(library, fn, *(() if name else (part,)), **stated))

    return result_or_error(submit_tree(submit, items, chunk_size))


def _told(value: Any) -> Any:
    if isinstance(value, chunks.Problem):
        return raised_exception(value.error, value.text, "map", f"the call failed on {value.host}")
    return value


@contextmanager
def _running(make_executor: Callable[[], Executor]) -> Iterator[Executor]:
    """An executor; whatever interrupts the block cancels what it runs."""
    executor = make_executor()
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown(wait=True)


def _check(fn: Any, chunk_size: Any, least: int = 1) -> None:
    if not callable(fn):
        raise TypeError(f"{fn!r} cannot be called")
    check_chunk_size("chunk_size", chunk_size, least)
