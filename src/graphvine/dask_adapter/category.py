"""Which tasks should behave alike, told from their keys.

For a task of a dask graph that is the prefix of its key (``('sum-partial-1f3a...', 0, 2)`` is a
``sum-partial``), as in dask's own tools. A key without a prefix (``'x12'``, ``7``) says nothing; then it is
the name of the function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dask.utils import funcname, key_split

#: A chain's category names its parts, up to this many characters.
_MAX_NAME = 60


class Categories:
    """Numbers categories; ``names[number]`` is a category's name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._number: dict[str, int] = {}
        self._of_name: dict[str, int] = {}
        self._of_head: dict[str, int] = {}
        self._of_function: dict[int, int] = {}
        self._functions: list[Any] = []
        self._of_chain: dict[tuple[int, ...], int] = {}

    def of(self, key: Any, function: Callable[..., Any]) -> int:
        """The category of the task ``key`` that calls ``function``."""
        if type(key) is tuple and key and type(key[0]) is str:
            # Thousands of keys begin with the same name.
            number = self._of_name.get(key[0])
            if number is None:
                number = self._of_name[key[0]] = self._judge(key, key[0], function)
            return number
        return self._judge(key, key[0] if type(key) is tuple and key else key, function)

    def _judge(self, key: Any, name: Any, function: Callable[..., Any]) -> int:
        if type(name) is str:
            head, dash, tail = name.rpartition("-")
            if dash and not tail.isalpha():
                number = self._of_head.get(head)
                return self._learn_head(head) if number is None else number
            if name is not key or dash:
                number = self._of_head.get(name)
                return self._learn_name(name) if number is None else number
        number = self._of_function.get(id(function))
        return self._learn_function(function) if number is None else number

    def of_chain(self, categories: Sequence[int]) -> int:
        """The category of tasks fused into one."""
        parts = tuple(dict.fromkeys(categories))
        if len(parts) == 1:
            return parts[0]
        number = self._of_chain.get(parts)
        if number is None:
            name = "+".join(self.names[part] for part in parts)
            if len(name) > _MAX_NAME:
                name = f"{self.names[parts[0]]}+...+{self.names[parts[-1]]}"
            number = self._of_chain[parts] = self._add(name)
        return number

    def _learn_head(self, head: str) -> int:
        number = self._of_head[head] = self._add(key_split(f"{head}-1"))
        return number

    def _learn_name(self, name: str) -> int:
        number = self._of_head[name] = self._add(key_split(name))
        return number

    def _learn_function(self, function: Callable[..., Any]) -> int:
        self._functions.append(function)  # so that its id stays its own
        number = self._of_function[id(function)] = self._add(funcname(function))
        return number

    def _add(self, name: str) -> int:
        number = self._number.get(name)
        if number is None:
            number = self._number[name] = len(self.names)
            self.names.append(name)
        return number
