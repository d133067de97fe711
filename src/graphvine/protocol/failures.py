"""An exception of the user's code as bytes and text that another process can take in."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from types import TracebackType

import graphvine
from graphvine.protocol.errors import parts_of_exception, rebuild_exception
from graphvine.protocol.values import MAIN

_OURS = os.path.dirname(os.path.abspath(graphvine.__file__)) + os.sep
#: What is longer is not worth carrying.
_MAX_ERROR_BYTES = 4 * 2**20
_MAX_TEXT = 100_000
_MAX_LINE = 4_000


def describe(error: BaseException) -> str:
    """The formatted traceback, from the user's first frame on."""
    try:
        lines = traceback.format_exception(type(error), error, _user_part(error.__traceback__))
        text = "".join(lines)
    except Exception as second:  # noqa: BLE001 -- __str__ and the like are the user's code
        text = f"{type(error).__name__} (its traceback cannot be formatted: {type(second).__name__})\n"
    if len(text) > _MAX_LINE:
        # Each line by itself: the last one begins with the exception's name.
        text = "\n".join(map(_bounded, text.split("\n")))
    if len(text) > _MAX_TEXT:
        text = f"{text[: _MAX_TEXT // 2]}\n[...]\n{text[-_MAX_TEXT // 2 :]}"
    # Lone surrogates cannot go over the wire.
    return text.encode("utf-8", "backslashreplace").decode()


def _bounded(line: str) -> str:
    half = _MAX_LINE // 2
    return line if len(line) <= _MAX_LINE else f"{line[:half]} [...] {line[-half:]}"


def _user_part(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OURS):
        tb = tb.tb_next
    return tb


def pickle_error(error: BaseException) -> bytes:
    """The pickled exception, b"" when it cannot be carried: what is returned was seen to unpickle.

    Python makes an exception anew by calling its class with its ``args``. A class whose constructor builds
    the message refuses that, or builds it twice: such a one is put together without its constructor."""
    message = _message(error)
    fallback = b""
    for pack in (_itself, _Parts):
        for dump in (_plain, _by_value):
            try:
                data = dump(pack(error))
                again = pickle.loads(data)
            except BaseException:  # noqa: BLE001 -- constructors and __reduce__ are the user's code
                continue
            if type(again).__name__ != type(error).__name__ or len(data) > _MAX_ERROR_BYTES:
                continue
            if _message(again) == message:
                return data
            fallback = fallback or data
    return fallback


def _message(error: BaseException) -> str | None:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 -- __str__ is the user's code
        return None


def _itself(error: BaseException) -> object:
    return error


class _Parts:
    """Stands for an exception, as which it is unpickled."""

    def __init__(self, error: BaseException) -> None:
        kind, args, attributes = parts_of_exception(error)
        self._parts = kind, tuple(map(_with_parts, args)), attributes

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[object, ...]]:
        return rebuild_exception, self._parts


def _with_parts(arg: object) -> object:
    """An argument of an exception; those of a group are exceptions."""
    if isinstance(arg, BaseException):
        return _Parts(arg)
    return [_with_parts(one) for one in arg] if isinstance(arg, list) else arg


def _plain(error: object) -> bytes:
    data = pickle.dumps(error, protocol=5)
    if MAIN in data:
        raise pickle.PicklingError("what lives in __main__ is not found elsewhere")
    return data


def _by_value(error: object) -> bytes:
    import cloudpickle

    return cloudpickle.dumps(error, protocol=5)  # type: ignore[no-any-return]
