"""What executors need before they can unpickle a plan's blobs: the user's own modules, and what to import.

Importing is only a head start, taken once per worker and then forked; so what is worth it is told from a
sample of the payload: the modules of the functions, of the types of their arguments, and those that a
function names as globals.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from types import FunctionType, ModuleType
from typing import Any

import msgspec

from graphvine.envs import modules
from graphvine.manager.plan import Code, code_of

_MAX_IMPORTS = 64
_DEPTH = 6
_WIDTH = 16


def make_code(found: modules.Found, sample: Iterable[Any]) -> Code:
    """The code of a plan: the user's modules, and imports for a sample of its entries."""
    imports = tuple(sorted(islice(_unique(sample), _MAX_IMPORTS)))
    return code_of(found.name, found.modules, imports)


def with_imports(code: Code, imports: Iterable[str]) -> Code:
    """The same code, with these modules imported ahead, too."""
    more = sorted({*imports} - {*code.imports})
    if not more:
        return code
    digest = hashlib.sha256("\0".join((code.name, *more)).encode()).hexdigest()[:32]
    return msgspec.structs.replace(code, name=digest, imports=(*code.imports, *more))


def _unique(sample: Iterable[Any]) -> Iterator[str]:
    seen: set[str] = set()
    for value in sample:
        for name in _modules_of(value, _DEPTH):
            if name not in seen:
                seen.add(name)
                if _is_worth_it(name):
                    yield name


def _is_worth_it(name: str) -> bool:
    return name in sys.modules and not name.startswith("graphvine") and modules.is_installed(name)


def _modules_of(value: Any, depth: int) -> Iterator[str]:
    """Names of the modules that ``value`` is made of, as far as is cheap to see."""
    if depth == 0:
        return
    if isinstance(value, ModuleType):
        yield value.__name__
    elif isinstance(value, FunctionType):
        yield value.__module__ or ""
        yield from _modules_of_function(value, depth)
    elif isinstance(value, functools.partial):
        for part in (value.func, value.args, value.keywords):
            yield from _modules_of(part, depth - 1)
    elif type(value) in (tuple, list, set, frozenset):
        for part in islice(value, _WIDTH):
            yield from _modules_of(part, depth - 1)
    elif type(value) is dict:
        for part in islice(value.values(), _WIDTH):
            yield from _modules_of(part, depth - 1)
    else:
        # Of a class, a builtin function or a method: where it is defined; of an object: where its class is.
        name = getattr(value, "__module__", None)
        if isinstance(name, str):
            yield name


def _modules_of_function(function: FunctionType, depth: int) -> Iterator[str]:
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        if isinstance(used, (ModuleType, type, FunctionType)) and used is not function:
            yield from _modules_of(used, min(depth, 2) - 1)
    for cell in function.__closure__ or ():
        try:
            yield from _modules_of(cell.cell_contents, depth - 1)
        except ValueError:
            continue  # a cell that is still empty
