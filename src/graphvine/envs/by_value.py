"""Modules of the user's that are not found elsewhere: their functions and classes are pickled by value."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

import cloudpickle

#: Modules that are carried by value now, and for how many.
_by_value_users: Counter[str] = Counter()


@contextmanager
def pickled_by_value(names: Iterable[str]) -> Iterator[None]:
    """While it lasts, cloudpickle carries these modules' functions and classes by value.

    That is a setting of the whole process; several threads may pickle at once."""
    held: list[tuple[str, ModuleType]] = []
    for name in names:
        if name not in _by_value_users and name in cloudpickle.list_registry_pickle_by_value():
            continue  # the user's own wish
        _by_value_users[name] += 1
        cloudpickle.register_pickle_by_value(sys.modules[name])
        held.append((name, sys.modules[name]))
    try:
        yield
    finally:
        for name, module in held:
            _by_value_users[name] -= 1
            if not _by_value_users[name]:
                del _by_value_users[name]
                cloudpickle.unregister_pickle_by_value(module)
