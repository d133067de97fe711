"""A library's set-up: what is run once in the zygote of a context, as bytes.

``plan.Code.setup`` is the pickle of a ``Setup``. It is made where the user is and read in a zygote
(``worker.library``), so whatever is in it is either importable there or carried by value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec


class Setup(msgspec.Struct):
    """``function(*args, **kwargs)`` returns the library's variables (a dict, or None for no variables).

    ``hoisted``: names that are globals of every function of the library: modules, functions, classes,
    anything.
    ``functions``: functions that calls name (a call then carries their arguments only).
    ``takes_inputs``: before its ``args`` the function is given a list, the values of ``plan.Code.inputs``.
    ``number``: tells libraries from each other that are the same in all else, as what one's calls change in
    its variables is not the other's."""

    function: Callable[..., Any] | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    hoisted: Mapping[str, Any] = {}
    functions: Mapping[str, Callable[..., Any]] = {}
    takes_inputs: bool = False
    number: int = 0


def dump_setup(setup: Setup) -> bytes:
    """Its pickle. Raises what pickling raises (see ``errors.NotPicklableError`` for what users are told)."""
    import cloudpickle

    return cloudpickle.dumps(setup, protocol=5)  # type: ignore[no-any-return]
