"""What users see of ``maps``: a base of the manager's class, which imports nothing before it is used."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any


class MapClient:
    """Functions over sequences. Raise TypeError, ValueError, NotPicklableError, ManagerClosedError."""

    @property
    def _whole(self) -> Any:
        """The manager that this is a part of."""
        return self

    def map(
        self,
        fn: Callable[[Any], Any],
        seq: Iterable[Any],
        chunk_size: int = 1,
        *,
        chunksize: int | None = None,
    ) -> list[Any]:
        """``[fn(x) for x in seq]``, so many items a task. What a call raised takes the place of its
        result. ``chunksize``: an older name of ``chunk_size``, here and below."""
        from graphvine.taskvine import maps

        return maps.map_chunks(self._whole.executor, fn, seq, _size(chunk_size, chunksize))

    def pair(
        self,
        fn: Callable[..., Any],
        seq1: Iterable[Any],
        seq2: Iterable[Any],
        chunk_size: int = 1,
        env: Any = None,
        *,
        chunksize: int | None = None,
    ) -> list[Any]:
        """``[fn((x, y)) for x in seq1 for y in seq2]``; ``fn(x, y)`` where it takes two arguments. ``env``:
        the environment that it runs in."""
        from graphvine.taskvine import maps

        executor = functools.partial(self._whole.executor, environment=env)
        return maps.pair_chunks(executor, fn, seq1, seq2, _size(chunk_size, chunksize))

    def tree_reduce(
        self,
        fn: Callable[..., Any],
        seq: Iterable[Any],
        chunk_size: int = 2,
        *,
        chunksize: int | None = None,
    ) -> Any:
        """One value: ``fn`` of chunks of ``seq`` (of the chunk as a list, or of two items where it takes
        two), then of what came of those, and so on; associative, or the chunks matter. What comes between
        stays on the workers. What a call raised is the value."""
        from graphvine.taskvine import maps

        return maps.reduce_chunks(self._whole.executor, fn, seq, _size(chunk_size, chunksize))

    treeReduce = tree_reduce

    def remote_map(
        self,
        fn: str,
        seq: Iterable[Any],
        library: str,
        name: str | None = None,
        chunk_size: int = 1,
        *,
        chunksize: int | None = None,
    ) -> list[Any]:
        """``map`` of a function of an installed library, by its name. With ``name``, the function is called
        with each chunk, as the argument of that name, and returns a list; without, with each item."""
        from graphvine.taskvine import maps

        return maps.remote_chunks(self._whole, library, fn, list(seq), name, _size(chunk_size, chunksize))

    def remote_pair(
        self,
        fn: str,
        seq1: Iterable[Any],
        seq2: Iterable[Any],
        library: str,
        name: str | None = None,
        chunk_size: int = 1,
        *,
        chunksize: int | None = None,
    ) -> list[Any]:
        """``pair``, as ``remote_map``: the items are pairs."""
        from graphvine.taskvine import maps

        return maps.remote_chunks(
            self._whole, library, fn, list(itertools.product(seq1, seq2)), name, _size(chunk_size, chunksize)
        )

    def remote_tree_reduce(
        self,
        fn: str,
        seq: Iterable[Any],
        library: str,
        name: str | None = None,
        chunk_size: int = 2,
        *,
        chunksize: int | None = None,
    ) -> Any:
        """``tree_reduce`` with a function of an installed library, which takes a list (as the argument of
        that name, if there is one)."""
        from graphvine.taskvine import maps

        return maps.remote_reduce(self._whole, library, fn, list(seq), name, _size(chunk_size, chunksize))


def _size(chunk_size: int, chunksize: int | None) -> int:
    return chunk_size if chunksize is None else chunksize
