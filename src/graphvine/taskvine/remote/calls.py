"""Calls of the user's functions: of a Python task's own, and of those that a library holds.

- Each call runs in a directory that holds the task's inputs, empty but for them, and is back afterwards
  where the executor was. With ``spec`` empty, a call has no files.
- What the function returns is the result. It becomes a file (its pickle, or the bytes themselves) where a
  task's result is to be one, or where there are other outputs: then it is the first of them.
- What the function raises is the executor's to tell, as of any task; with outputs it is told in the note, as
  those that are wanted after a failure are made all the same.
"""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from graphvine.protocol.payload import in_child
from graphvine.protocol.trees import Tree
from graphvine.taskvine.remote import command
from graphvine.taskvine.remote.contents import Absent, SmallFile, make, resolved
from graphvine.worker import scratch
from graphvine.worker.notes import set_note

_SANDBOX = "sandbox"
_VALUE = "value"
_KEPT_FUNCTIONS = 512
#: Unpickled functions by their pickles, the one that was used last at the end.
_functions: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()


class Spec(msgspec.Struct, array_like=True):
    """What a call has beside its function and arguments. A variable that is None is unset while it runs.
    ``as_file``: its result is a file; ``raw``: of the bytes that it returns, not of their pickle."""

    inputs: list[command.Mount] = []
    outputs: list[command.Outlet] = []
    variables: dict[str, str | None] = {}
    as_file: bool = False
    raw: bool = False


class Ended(msgspec.Struct, array_like=True):
    """How a call with files ended: a word of TaskVine's and a reason; of one that raised its traceback and
    the pickled exception."""

    word: str = "success"
    reason: str = ""
    text: str = ""
    error: bytes = b""


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Spec).decode
decode_ended = msgspec.msgpack.Decoder(Ended).decode


def run(inputs: Sequence[Any], function: bytes, arguments: bytes, spec: bytes) -> Any:
    """Call a pickled function. Raises whatever it raises."""
    return _call(inputs, lambda: _function(function), arguments, spec, scratch.lasting)


def run_named(inputs: Sequence[Any], name: str, arguments: bytes, spec: bytes) -> Any:
    """Call a function of the library that this process belongs to. Raises whatever it raises, LookupError."""
    return _call(inputs, lambda: _named(name), arguments, spec, scratch.lasting)


@in_child
def run_named_forked(inputs: Sequence[Any], name: str, arguments: bytes, spec: bytes) -> Any:
    """``run_named`` in a process of its own, forked from the executor."""
    return _call(inputs, lambda: _named(name), arguments, spec, scratch.directory)


def value_of(inputs: Sequence[Any], raw: bool) -> Any:
    """What a call with outputs returned. Raises what unpickling raises, FileNotFoundError."""
    (whole,) = inputs
    if isinstance(whole, Tree):
        with open(os.path.join(whole.path, "0"), "rb") as file:
            data = file.read()
    else:
        first = whole.members[0]
        if isinstance(first, Absent):
            raise FileNotFoundError(first.reason)
        data = first.data
    return data if raw else pickle.loads(data)


def _function(data: bytes) -> Callable[..., Any]:
    function = _functions.get(data)
    if function is None:
        function = _functions[data] = pickle.loads(data)
        if len(_functions) > _KEPT_FUNCTIONS:
            _functions.popitem(last=False)
    return function


def _named(name: str) -> Callable[..., Any]:
    from graphvine.worker import library

    return library.named(name)


def _call(
    inputs: Sequence[Any],
    find: Callable[[], Callable[..., Any]],
    arguments: bytes,
    spec: bytes,
    directory: Callable[[], str],
) -> Any:
    home = directory()
    sandbox = os.path.join(home, _SANDBOX)
    before = os.getcwd()
    try:
        if spec:
            return _call_with_files([resolved(value) for value in inputs], find, arguments, spec, home)
        if not os.path.isdir(sandbox):
            os.mkdir(sandbox)
        os.chdir(sandbox)
        args, kwargs = pickle.loads(arguments)
        return find()(*args, **kwargs)
    finally:
        os.chdir(before)
        command.empty(home)


def _call_with_files(
    inputs: Sequence[Any], find: Callable[[], Callable[..., Any]], arguments: bytes, encoded: bytes, home: str
) -> Any:
    spec = _decode(encoded)
    mounted = command.Command("", spec.inputs, spec.outputs)
    lacking = command.lacking(inputs, mounted)
    if lacking:
        set_note(encode(Ended("input missing", lacking)))
        return _absent(spec, lacking)
    os.chdir(command.furnish(home, inputs, mounted))
    restored = _set_variables(spec.variables)
    before = command.stamps(inputs, mounted)
    try:
        if not spec.outputs:
            args, kwargs = pickle.loads(arguments)
            value = find()(*args, **kwargs)
            return _as_file(value, spec, os.path.join(scratch.directory(), _VALUE)) if spec.as_file else value
        return _call_with_outputs(find, arguments, spec, mounted)
    finally:
        command.drop_changed(before)
        _set_variables(restored)


def _call_with_outputs(
    find: Callable[[], Callable[..., Any]], arguments: bytes, spec: Spec, mounted: command.Command
) -> Any:
    sandbox = os.getcwd()
    collected = command.Collected(first=1)
    ended = Ended()
    first: Any
    try:
        args, kwargs = pickle.loads(arguments)
        first = _as_file(find()(*args, **kwargs), spec, os.path.join(scratch.directory(), _VALUE))
    except BaseException as error:  # noqa: BLE001 -- the user's, and theirs to see; SystemExit, too
        ended.text, ended.error = _told(error)
        first = Absent("the function raised an exception")
    status = command.Status("success", exit_code=int(bool(ended.text)))
    outputs = command.take_all(sandbox, collected, mounted, status)
    if status.missing:
        ended.word = "output missing"
        ended.reason = f"not made: {', '.join(status.missing)}"
    set_note(encode(ended))
    made = [first, *outputs]
    if all(isinstance(one, (SmallFile, Absent)) for one in made):
        return command.Bundle(made)
    if not isinstance(first, (SmallFile, Absent)):
        os.rename(first.path, collected.target(0))
    return collected.whole(made)


def _told(error: BaseException) -> tuple[str, bytes]:
    from graphvine.worker.failures import describe, pickle_error

    return describe(error), pickle_error(error)


def _absent(spec: Spec, reason: str) -> Any:
    if spec.outputs:
        return command.Bundle([Absent(reason)] * (len(spec.outputs) + 1))
    return Absent(reason) if spec.as_file else None


def _as_file(value: Any, spec: Spec, path: str) -> Any:
    """The result as a file. Raises what pickling raises, TypeError for what should be bytes and is not."""
    if spec.raw:
        data = bytes(memoryview(value))
    else:
        import cloudpickle

        data = cloudpickle.dumps(value, protocol=5)
    with open(path, "wb") as file:
        file.write(data)
    return make(path)


def _set_variables(variables: dict[str, str | None]) -> dict[str, str | None]:
    """Set or unset environment variables; what they were before."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return before
