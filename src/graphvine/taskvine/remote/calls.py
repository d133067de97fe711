"""Calls of the user's functions: of a Python task's own, and of those that a library holds.

- Each call runs in a directory that holds the task's inputs, empty but for them, and is back afterwards
  where the executor was. With ``spec`` empty, a call has no files.
- What the function returns is the result. It becomes a file (its pickle, or the bytes themselves) where a
  task's result is to be one, or where there are other outputs: then it is the first of them.
- What the function prints is told in the note; what is long is kept with the result, in a directory.
- What the function raises is the executor's to tell, as of any task; with outputs, or much that was printed,
  it is told in the note, as those that are wanted after a failure are made all the same.
"""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from graphvine.protocol.payload import in_child
from graphvine.protocol.trees import NewTree, Tree

# Nothing is imported later: that would be anew in every process that is forked for a call.
from graphvine.taskvine.remote import guarding, mounting, outlets, setups
from graphvine.taskvine.remote.contents import Absent, SmallFile, make, resolved
from graphvine.taskvine.remote.description import Command, Mount, Outlet, Status
from graphvine.taskvine.remote.here import Making, with_made
from graphvine.taskvine.remote.home import OUTPUT, Home, here
from graphvine.taskvine.remote.limits import Limits, keeping
from graphvine.taskvine.remote.watching import watching
from graphvine.worker import capture, library, scratch
from graphvine.worker.notes import set_note

_VALUE = "value"
_ERROR = "error"
#: More of a traceback (at its begin and at its end), or of an exception, does not go into the note.
_MAX_TEXT = 2000
_MAX_ERROR_BYTES = 12_000
_MAX_REASON = 1000
_KEPT_FUNCTIONS = 512
#: Unpickled functions by their pickles, the one that was used last at the end.
_functions: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()


class Spec(msgspec.Struct, array_like=True):
    """What a call has beside its function and arguments. A variable that is None is unset while it runs.
    ``as_file``: its result is a file; ``raw``: of the bytes that it returns, not of their pickle."""

    inputs: list[Mount] = []
    outputs: list[Outlet] = []
    variables: dict[str, str | None] = {}
    as_file: bool = False
    raw: bool = False
    limits: Limits = Limits()
    made: list[Making] = []


class Ended(msgspec.Struct, array_like=True):
    """How a call ended where its result does not say all: a word of TaskVine's and a reason; of one that
    raised its traceback and the pickled exception, unless that is the executor's to tell; what it printed.
    ``kept``: more of it is with its result (see ``rest_of``), which is a directory then."""

    word: str = "success"
    reason: str = ""
    text: str = ""
    error: bytes = b""
    output: bytes = b""
    kept: bool = False
    exceeded: dict[str, float] = {}


class Rest(msgspec.Struct, frozen=True):
    """What a call left beside its other outputs: its result as a file has it (None: there is none), what it
    printed, the pickled exception."""

    value: bytes | None
    output: bytes = b""
    error: bytes = b""


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Spec).decode
decode_ended = msgspec.msgpack.Decoder(Ended).decode


def run(inputs: Sequence[Any], function: bytes, arguments: bytes, spec: bytes) -> Any:
    """Call a pickled function. Raises whatever it raises."""
    return _call(inputs, lambda: _function(function), arguments, spec)


def run_named(inputs: Sequence[Any], name: str, arguments: bytes, spec: bytes) -> Any:
    """Call a function of the library that this process belongs to. Raises whatever it raises, LookupError."""
    return _call(inputs, lambda: _named(name), arguments, spec)


@in_child
def run_named_forked(inputs: Sequence[Any], name: str, arguments: bytes, spec: bytes) -> Any:
    """``run_named`` in a process of its own, forked from the executor."""
    return _call(inputs, lambda: _named(name), arguments, spec)


def rest_of(inputs: Sequence[Any]) -> Rest:
    """What a call with outputs, or one that said much, returned, printed and raised. Raises OSError."""
    (whole,) = inputs
    if not isinstance(whole, Tree):
        first = whole.members[0]
        return Rest(None if isinstance(first, Absent) else first.data)
    value, output, error = (_read(os.path.join(whole.path, name)) for name in ("0", OUTPUT, _ERROR))
    return Rest(value, output or b"", error or b"")


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _function(data: bytes) -> Callable[..., Any]:
    function = _functions.get(data)
    if function is None:
        function = _functions[data] = pickle.loads(data)
        if len(_functions) > _KEPT_FUNCTIONS:
            _functions.popitem(last=False)
    return function


def _named(name: str) -> Callable[..., Any]:
    setups.link_files()
    return library.named(name)


def _call(
    inputs: Sequence[Any],
    find: Callable[[], Callable[..., Any]],
    arguments: bytes,
    spec: bytes,
) -> Any:
    home = here()
    # By its descriptor: the user may have removed it.
    before = os.open(".", os.O_PATH | os.O_CLOEXEC)
    process = os.getpid()
    capture.begin()
    try:
        if spec:
            return _call_with_files([resolved(value) for value in inputs], find, arguments, spec, home)
        home.furnish()
        os.chdir(home.sandbox)
        return _report(_Made(find, arguments), Spec())
    finally:
        # What the function forked may come out of it, too, and has nothing to clear away.
        if os.getpid() == process:
            capture.end()
            os.fchdir(before)
            os.close(before)
            home.empty()


class _Made:
    """What came of a function: what it returned, or what it raised."""

    def __init__(self, find: Callable[[], Callable[..., Any]], arguments: bytes) -> None:
        """Calls it. A child that the function forked does not come back from here: raises what it raised
        there, or SystemExit."""
        process = os.getpid()
        self.value: Any = None
        self.error: BaseException | None = None
        try:
            args, kwargs = pickle.loads(arguments)
            self.value = find()(*args, **kwargs)
        except BaseException as error:
            if os.getpid() != process:
                raise
            self.error = error
        if os.getpid() != process:
            raise SystemExit(0)
        self.printed = capture.end()


def _report(made: _Made, spec: Spec) -> Any:
    """The result of a call without outputs. Raises what it raised, unless its output is to go with that."""
    if made.printed > outlets.SHORT_OUTPUT_BYTES:
        return _with_rest(made, spec, Command(""), os.getcwd())
    if made.printed:
        set_note(encode(Ended(output=capture.take())))
    if made.error is not None:
        try:
            raise made.error
        finally:
            # Its traceback leads here: what is in a circle stays for long, and so would the arguments.
            made.error = None
    if not spec.as_file:
        return made.value
    return _as_file(made.value, spec, os.path.join(scratch.directory(), _VALUE))


def _with_rest(made: _Made, spec: Spec, mounted: Command, sandbox: str) -> Any:
    """The result of a call together with its outputs, and with what it printed if that is long."""
    collected = outlets.Collected(first=1)
    ended, error = Ended(), made.error
    first: Any = Absent("the function raised an exception")
    made.error = None
    if error is None:
        try:
            first = _as_file(made.value, spec, os.path.join(scratch.directory(), _VALUE))
        except Exception as caught:  # noqa: BLE001 -- pickling runs the user's code
            error = caught
    if error is not None:
        _tell(error, ended, collected)
    status = Status("success", exit_code=int(error is not None))
    if error is not None:
        status.reason = f"{type(error).__name__}: {error}"
    outputs = outlets.take_all(sandbox, collected, mounted, status)
    if status.missing:
        ended.word = "output missing"
        ended.reason = f"not made: {', '.join(status.missing)}"[:_MAX_REASON]
    if made.printed > outlets.SHORT_OUTPUT_BYTES:
        path = os.path.join(collected.path, OUTPUT)
        capture.move(path)
        outlets.cut_output(path, made.printed)
        ended.kept = True
    elif made.printed:
        ended.output = capture.take()
    set_note(encode(ended))
    return _together(first, outputs, collected, ended.kept)


def _together(
    first: Any, outputs: Sequence[Any], collected: outlets.Collected, kept: bool
) -> outlets.Bundle | NewTree:
    all_made = [first, *outputs]
    if not kept and all(isinstance(one, (SmallFile, Absent)) for one in all_made):
        return outlets.Bundle(all_made)
    if not isinstance(first, (SmallFile, Absent)):
        os.rename(first.path, collected.target(0))
    if not outputs:
        outlets.mark(collected.path)
    return collected.whole(all_made)


def _tell(error: BaseException, ended: Ended, collected: outlets.Collected) -> None:
    """What a function raised, in the note; an exception that is too long for that beside its outputs."""
    from graphvine.protocol.failures import describe, pickle_error

    text, data = describe(error), pickle_error(error)
    ended.text = text if len(text) <= 2 * _MAX_TEXT else f"{text[:_MAX_TEXT]}\n[...]\n{text[-_MAX_TEXT:]}"
    if len(data) <= _MAX_ERROR_BYTES:
        ended.error = data
        return
    with open(os.path.join(collected.path, _ERROR), "wb") as file:
        file.write(data)
    ended.kept = True


def _call_with_files(
    inputs: Sequence[Any],
    find: Callable[[], Callable[..., Any]],
    arguments: bytes,
    encoded: bytes,
    home: Home,
) -> Any:
    spec = _decode(encoded)
    inputs = with_made(inputs, spec.made)
    mounted = Command("", spec.inputs, spec.outputs)
    lack = mounting.lacking(inputs, mounted)
    if lack is not None:
        set_note(encode(Ended(lack.word, lack.reason)))
        return _absent(spec, lack.reason)
    process = os.getpid()
    mounting.furnish(home, inputs, mounted)
    sandbox = home.sandbox
    os.chdir(sandbox)
    restored = _set_variables(spec.variables)
    before = guarding.stamps(mounting.linked(inputs, mounted))
    try:
        made = None
        with keeping(spec.limits, sandbox) as monitor, watching(outlets.watched(sandbox, mounted)):
            made = _Made(find, arguments)
        if monitor.exceeded or made is None:
            if made is not None:
                made.error = None
            capture.end()
            ended = Ended("resource exhaustion", monitor.reason, exceeded=monitor.exceeded)
            ended.output = capture.take()[-outlets.SHORT_OUTPUT_BYTES :]
            set_note(encode(ended))
            return _absent(spec, monitor.reason)
        return _with_rest(made, spec, mounted, sandbox) if spec.outputs else _report(made, spec)
    finally:
        if os.getpid() == process:
            guarding.drop_changed(before)
            _set_variables(restored)


def _absent(spec: Spec, reason: str) -> Any:
    if spec.outputs:
        return outlets.Bundle([Absent(reason)] * (len(spec.outputs) + 1))
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
