"""Messages without sense, from a seed: the right types with any values; and bytes that almost make sense."""

from __future__ import annotations

import random
import types
import typing
from collections.abc import Sequence
from typing import Any

import msgspec

_INTEGERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, -1, 2**31, 2**63 - 1, -(2**63))
_FLOATS = (0.0, 1.0, -1.0, 1e308, float("inf"), float("nan"))
_TEXTS = ("", "a", "h", "n1", "x" * 1000)
_BYTES = (b"", b"x", b"\x80\x04N.")


def value(chance: random.Random, kind: Any) -> Any:
    """Any value of a type, as far as messages use types."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return value(chance, chance.choice(arguments))
    if origin is typing.Literal:
        return chance.choice(arguments)
    if origin is list:
        return [value(chance, arguments[0]) for _ in range(chance.choice((0, 0, 1, 2, 3)))]
    if origin is dict:
        pairs = [
            (value(chance, arguments[0]), value(chance, arguments[1]))
            for _ in range(chance.choice((0, 1, 2)))
        ]
        return dict(pairs)
    if origin is tuple and arguments[-1] is Ellipsis:
        return tuple(value(chance, list[arguments[0]]))
    if origin is tuple:
        return tuple(value(chance, one) for one in arguments)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        return kind(*[value(chance, hints[name]) for name in kind.__struct_fields__])
    plain = {
        int: _INTEGERS,
        float: _FLOATS,
        str: _TEXTS,
        bytes: _BYTES,
        bool: (False, True),
        type(None): (None,),
    }
    return chance.choice(plain[kind])


def batch(chance: random.Random, kinds: Sequence[Any], most: int = 3) -> list[Any]:
    """A batch of messages of these types."""
    return [value(chance, chance.choice(kinds)) for _ in range(chance.randrange(most + 1))]


def damaged(chance: random.Random, data: bytes) -> bytes:
    """The same with a few bytes changed, cut, doubled or added."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(changed) + 1)
        how = chance.randrange(4)
        if how == 0 and changed:
            changed[at % len(changed)] = chance.randrange(256)
        elif how == 1:
            del changed[at:]
        elif how == 2:
            changed[at:at] = changed[:at]
        else:
            changed[at:at] = chance.randbytes(chance.randrange(9))
    return bytes(changed)
