"""The functions and arguments of Python tasks as bytes, and the code that executors need before them.

Both are made when a task is submitted, so what changes afterwards does not matter. Arguments are pickled
each time; a function that is carried by value only when something it is made of is not what it was: its code,
its defaults, or what its names refer to. A function that refers to something that can change in place (a
list, say) is pickled each time.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from graphvine.envs import modules
from graphvine.envs.by_value import pickled_by_value
from graphvine.manager.plan import Code, code_of
from graphvine.protocol.errors import NotPicklableError
from graphvine.protocol.values import MAIN

#: Values of these types are what they are.
_FIXED = (str, bytes, int, float, complex, bool, type(None), ModuleType, type, BuiltinFunctionType)
_DEPTH = 4
_MAX_IMPORTS = 64

#: Tells a function from what it was before; what it is made of is held, so that identities stay theirs.
Signature = tuple[Any, ...]


class Functions:
    """Pickled functions of one manager. Locked by nobody: used by the threads that submit, one value at a
    time."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, tuple[Signature, bytes]] = weakref.WeakKeyDictionary()
        self._imports: set[str] = set()

    def dumps(self, function: Callable[..., Any]) -> bytes:
        """The pickle of a function; the same object as long as it is the same function. Raises
        NotPicklableError."""
        signature = _signature(function, _DEPTH)
        try:
            known = self._known.get(function)
        except TypeError:  # not hashable, or without weak references
            return self._dumps(function)
        if known is not None and signature is not None and known[0] == signature:
            return known[1]
        data = self._dumps(function)
        if known is not None and known[1] == data:
            data = known[1]
        if signature is not None:
            self._known[function] = signature, data
        return data

    def forget(self, function: Callable[..., Any]) -> None:
        """It is pickled anew the next time."""
        with contextlib.suppress(TypeError):
            self._known.pop(function, None)

    def _dumps(self, function: Callable[..., Any]) -> bytes:
        self._imports.update(_modules_of(function))
        try:
            module = getattr(function, "__module__", None)
            with pickled_by_value([module] if module in modules.find().by_value else ()):
                return cloudpickle.dumps(function, protocol=5)  # type: ignore[no-any-return]
        except Exception as error:
            raise NotPicklableError(
                f"the function {name_of(function)} cannot be sent to a worker: "
                f"{type(error).__name__}: {error}"
            ) from error

    def code(self) -> Code:
        """The user's own modules, and what was seen to be imported by functions so far."""
        found = modules.find()
        imports = tuple(sorted(self._imports)[:_MAX_IMPORTS])
        return code_of(found.name, found.modules, imports)


def dump_arguments(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Arguments as bytes. Raises NotPicklableError."""
    both = tuple(args), dict(kwargs)
    try:
        data = pickle.dumps(both, protocol=5)
        if MAIN not in data:
            return data
    except Exception:  # noqa: BLE001 -- whatever a __reduce__ raises; cloudpickle decides
        pass
    try:
        return cloudpickle.dumps(both, protocol=5)  # type: ignore[no-any-return]
    except Exception as error:
        raise NotPicklableError(
            f"the arguments of {name} cannot be sent to a worker: {type(error).__name__}: {error}"
        ) from error


def name_of(function: Any) -> str:
    return str(getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or function)


def _signature(function: object, depth: int) -> Signature | None:
    """Equal for a function that is what it was; None where that cannot be told."""
    if not isinstance(function, FunctionType):
        return (function,) if isinstance(function, _FIXED) else None
    if _is_importable(function):
        return (function.__code__,)
    if not depth or function.__dict__:
        return None
    parts: list[Any] = [function.__code__]
    for value in _made_of(function):
        if isinstance(value, FunctionType):
            inner = (value.__code__,) if value is function else _signature(value, depth - 1)
            if inner is None:
                return None
            parts.append(inner)
        elif isinstance(value, _FIXED):
            # Types, too: 1 and 1.0 are equal, and not the same.
            parts.append((type(value), value))
        else:
            return None
    return tuple(parts)


def _is_importable(function: FunctionType) -> bool:
    module = sys.modules.get(function.__module__)
    return (
        not function.__module__.endswith("_main__") and getattr(module, function.__name__, None) is function
    )


def _made_of(function: FunctionType) -> Iterator[Any]:
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # still empty
            yield None
    globals_ = function.__globals__
    for name in _names(function.__code__):
        if name in globals_:
            yield globals_[name]


def _names(code: Any) -> Iterator[str]:
    """Names that may be globals, those of functions within it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            yield from _names(constant)


def _modules_of(function: Any) -> Iterator[str]:
    """Names of installed modules that a function needs, as far as is cheap to see."""
    found = {getattr(function, "__module__", None)}
    if isinstance(function, FunctionType):
        for value in _made_of(function):
            if isinstance(value, ModuleType):
                found.add(value.__name__)
            elif isinstance(value, (type, FunctionType)):
                found.add(value.__module__)
    for name in found:
        ours = not isinstance(name, str) or name.startswith("graphvine")
        if not ours and name in sys.modules and modules.is_installed(name):
            yield name
