"""A command in a sandbox: its inputs are put there, it runs, and its outputs are collected.

The sandbox is the working directory, and $VINE_SANDBOX; $TMPDIR lies beside it (``home``). They are the
executor's. Outputs are moved to a directory of the task's own, on their way into the store.

- Inputs are hard links into the store where that is possible: never to be written to (``guarding``). What is
  also an output is a copy. An input that cannot be had means that the command is not run.
- The command is one process group in the executor's session (``process``); the zygote ends it when the
  executor dies.
- What became of it is a ``Status``, attached to the result as a note, so that it arrives whatever the
  result is.
- One output is the result itself; several are a ``Bundle`` (all small) or a directory, of which ``pick``
  takes one.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from graphvine.envs.cache import is_full
from graphvine.envs.errors import PackedEnvironmentError
from graphvine.protocol.tree_files import scan
from graphvine.protocol.trees import BadTreeError, NewTree, Tree
from graphvine.taskvine.remote import process
from graphvine.taskvine.remote.cache import NodeCache
from graphvine.taskvine.remote.contents import (
    MARK,
    Absent,
    Made,
    SmallFile,
    copy_tree,
    is_for_lack_of_room,
    is_small,
    last_line,
    link_tree,
    make,
    place,
    reason_absent,
    resolved,
)
from graphvine.taskvine.remote.environments import activate
from graphvine.taskvine.remote.guarding import drop_changed, stamps
from graphvine.taskvine.remote.here import Making, with_made
from graphvine.taskvine.remote.home import OUTPUT, Home, here
from graphvine.taskvine.remote.limits import Limits, Monitor, descendants, extent
from graphvine.taskvine.remote.spawning import Environment
from graphvine.taskvine.remote.watching import watching
from graphvine.worker import scratch, sigterm
from graphvine.worker.notes import set_note

#: Standard output up to this travels in the status; what is longer is kept with the outputs.
SHORT_OUTPUT_BYTES = 32 * 2**10
#: ... and is cut off here.
OUTPUT_BYTES = 10**9
_CUT = b"\n[standard output is cut here: it had %d bytes]\n"
_MAX_REASON = 4000
#: The executor has them for one core.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_MAX_NAMED = 20


class Mount(msgspec.Struct, array_like=True):
    """Input ``slot`` stands in the sandbox as ``name``. ``copied``: may be written to. ``keep_as``: the name
    under which the node keeps it for later runs, "" for none."""

    slot: int
    name: str
    copied: bool = False
    symlink: bool = False
    keep_as: str = ""


class Outlet(msgspec.Struct, array_like=True):
    """An output: its name in the sandbox, and after which commands it is wanted ("always", "success",
    "failure"). ``watch``: it is sent as it grows. ``mode``: the permission bits that it gets, 0: its own."""

    name: str
    when: str = "always"
    watch: bool = False
    mode: int = 0


class Context(msgspec.Struct, array_like=True):
    """Input ``slot`` is a directory with bin/run_in_env, or a packed environment whose content has this
    name."""

    slot: int
    name: str = ""


class Command(msgspec.Struct, array_like=True):
    """What is run, and how. ``max_s``: its time, ``end_s``: when it must be over (since 1970); 0: no limit.
    ``contexts``: what it runs within, the outermost first.
    ``limits``: what it may use, where that is seen to. ``made``: inputs that are made here; their slots are
    -1, -2, ...
    A variable that is None is unset. ``threads``: how many libraries may start, 0: as many as they like."""

    line: str
    inputs: list[Mount] = []
    outputs: list[Outlet] = []
    variables: dict[str, str | None] = {}
    contexts: list[Context] = []
    max_s: float = 0.0
    end_s: float = 0.0
    threads: int = 1
    limits: Limits = Limits()
    made: list[Making] = []


class Status(msgspec.Struct, array_like=True):
    """What became of a command. Times in microseconds (``began``, ``ended`` since 1970), memory and disk in
    MB. ``signal``: the one that ended it, or 0. ``reason``: in words, where the word is not enough.
    ``kept_bytes``: that much standard output is with the outputs (see ``output_of``), as it is long."""

    word: str
    reason: str = ""
    exit_code: int = 0
    signal: int = 0
    output: bytes = b""
    kept_bytes: int = 0
    began: int = 0
    ended: int = 0
    cpu: int = 0
    memory: float = 0.0
    disk: float = 0.0
    files: int = 0
    missing: list[str] = []
    exceeded: dict[str, float] = {}


class SandboxError(OSError):
    """An input cannot be put where it is to stand, and why."""


class Bundle(msgspec.Struct, frozen=True):
    """Several outputs, each small or absent, by position."""

    members: list[SmallFile | Absent]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Command).decode
decode_status = msgspec.msgpack.Decoder(Status).decode


def encode(command: Command) -> bytes:
    return _encode(command)


def run(inputs: Sequence[Any], encoded: bytes) -> Any:
    """Run a command; the result is its outputs, the note its status. Raises OSError when the node cannot."""
    command = _decode(encoded)
    status = Status("success")
    made = _run(with_made([resolved(value) for value in inputs], command.made), command, status)
    status.reason = status.reason[:_MAX_REASON]
    set_note(_encode(status))
    return made


def pick(inputs: Sequence[Any], position: int) -> Made:
    """One output of a command that has several."""
    (whole,) = inputs
    reason = reason_absent(whole)
    if reason:
        return Absent(reason)
    if isinstance(whole, Bundle):
        return whole.members[position]
    assert isinstance(whole, Tree), "several outputs are a bundle or a directory"
    source = os.path.join(whole.path, str(position))
    if not os.path.lexists(source):
        return Absent("the command did not make it")
    target = os.path.join(scratch.directory(), "picked")
    link_tree(source, target)
    return make(target)


def output_of(inputs: Sequence[Any]) -> bytes:
    """The standard output that was kept with a command's outputs. Raises OSError."""
    (whole,) = inputs
    assert isinstance(whole, Tree), "it was kept"
    with open(os.path.join(whole.path, OUTPUT), "rb") as file:
        return file.read()


def _run(inputs: Sequence[Any], command: Command, status: Status) -> Any:
    lack = lacking(inputs, command)
    if lack is not None:
        return _not_run(command, status, lack)
    home, untouched = here(), False
    try:
        furnish(home, inputs, command)
        before = stamps(linked(inputs, command)) if command.inputs else {}
        _execute(home, inputs, command, status)
        if before:
            drop_changed(before, command.line)
        untouched = home.is_untouched()
        if not untouched:
            status.disk, status.files = extent(home.sandbox)
        return _collect(home, command, status)
    except OSError as error:
        if not is_full(error):
            if isinstance(error, SandboxError):
                return _not_run(command, status, Lack("input missing", str(error.strerror)))
            raise
        status.word, status.reason = "sandbox exhaustion", f"the disk of the worker is full: {error}"
        return _nothing(command, Absent(status.reason, no_room=True))
    finally:
        home.empty(untouched)


class Lack(msgspec.Struct, frozen=True):
    """Why a task is not run: the word that is its result, and the reason."""

    word: str
    reason: str


def lacking(inputs: Sequence[Any], command: Command) -> Lack | None:
    """Which input cannot be had, and why; None when all can."""
    for slot, value in enumerate(inputs):
        reason = reason_absent(value)
        if reason:
            names = {mount.slot % len(inputs): mount.name for mount in command.inputs}
            word = "sandbox exhaustion" if is_for_lack_of_room(value) else "input missing"
            return Lack(word, f"{names.get(slot, 'its environment')}: {reason}")
    return None


def _not_run(command: Command, status: Status, lack: Lack) -> Any:
    status.word, status.reason, status.exit_code = lack.word, lack.reason, -1
    return _nothing(command, Absent(lack.reason, no_room=lack.word == "sandbox exhaustion"))


def _nothing(command: Command, absent: Absent) -> Any:
    if len(command.outputs) == 1:
        return absent
    return Bundle([absent] * len(command.outputs)) if command.outputs else None


# -- before ----------------------------------------------------------------------------------------------


def furnish(home: Home, inputs: Sequence[Any], command: Command) -> None:
    """Have the sandbox, with its inputs."""
    home.furnish()
    sandbox = home.sandbox
    for mount in command.inputs:
        try:
            _mount(inputs[mount.slot], mount, os.path.join(sandbox, mount.name))
        except OSError as error:
            why = f"{mount.name} cannot be put into the sandbox: {_why_not(sandbox, mount.name, error)}"
            raise SandboxError(error.errno, why) from error
    for outlet in command.outputs:
        os.makedirs(os.path.dirname(os.path.join(sandbox, outlet.name)), exist_ok=True)


def linked(inputs: Sequence[Any], command: Command) -> list[tuple[Any, str]]:
    """What stands in the sandbox without being a copy, with its name."""
    return [(inputs[mount.slot], mount.name) for mount in command.inputs if not mount.copied]


def _mount(value: Any, mount: Mount, path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if mount.keep_as and isinstance(value, Tree):
        NodeCache().put(mount.keep_as, value.path)
    if mount.symlink and isinstance(value, Tree):
        os.symlink(value.path, path)
    elif isinstance(value, Tree) and os.path.isdir(value.path) and os.path.isdir(path):
        # Something was put below it before.
        shutil.copytree(value.path, path, symlinks=True, dirs_exist_ok=True)
    else:
        place(value, path, link=not mount.copied)


def _why_not(sandbox: str, name: str, error: OSError) -> str:
    """What is in the way of an input, in the names that the task uses."""
    above = os.path.dirname(name)
    while above and not os.path.isfile(os.path.join(sandbox, above)):
        above = os.path.dirname(above)
    if above:
        return f"{above} is an input, too, and no directory"
    if os.path.isdir(os.path.join(sandbox, name)):
        return "other inputs stand below it, and it is no directory"
    return error.strerror or str(error)


def watched(sandbox: str, command: Command) -> list[tuple[str, int]]:
    """The outputs that are sent as they grow, by path and position."""
    return [
        (os.path.join(sandbox, outlet.name), position)
        for position, outlet in enumerate(command.outputs)
        if outlet.watch
    ]


def _variables(home: Home, command: Command) -> dict[str, str]:
    variables = dict(os.environ)
    variables["VINE_SANDBOX"] = variables["PWD"] = home.sandbox
    variables["TMPDIR"] = home.tmp
    for name in THREAD_VARIABLES:
        variables[name] = str(command.threads)
        if command.threads == 0:
            del variables[name]
    for name, value in command.variables.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value
    return variables


class _Environments:
    """The environment of the last command, which the next one often shares: putting one together takes longer
    than looking whether all that it is made of is what it was."""

    def __init__(self) -> None:
        self._made_of: tuple[object, ...] = ()
        self._environment = Environment({})

    def get(self, home: Home, command: Command) -> Environment:
        """Raises ValueError."""
        raw = getattr(os.environ, "_data", None)
        made_of = (home.path, command.threads, command.variables, raw)
        if raw is None or made_of != self._made_of:  # None: some other Python
            self._environment = Environment(_variables(home, command))
            self._made_of = (home.path, command.threads, command.variables, dict(raw or ()))
        return self._environment


_environments = _Environments()


# -- while it runs ---------------------------------------------------------------------------------------


def _execute(home: Home, inputs: Sequence[Any], command: Command, status: Status) -> None:
    environment = _environments.get(home, command)
    line = command.line
    growing = watched(home.sandbox, command) if command.outputs else []
    if not command.contexts and not growing:
        _run_in_time(home, line, environment, command, status)
        return
    with ExitStack() as while_used:
        variables = dict(environment.variables)
        try:
            for context in reversed(command.contexts):
                line = activate(inputs[context.slot], context.name, line, variables, while_used)
        except (PackedEnvironmentError, TypeError) as error:
            status.word, status.reason = "input missing", f"its environment: {error}"
            return
        while_used.enter_context(watching(growing))
        _run_in_time(home, line, Environment(variables), command, status)


def _run_in_time(home: Home, line: str, environment: Environment, command: Command, status: Status) -> None:
    limit = _limit(command)
    if limit.seconds <= 0:
        status.word, status.reason = limit.word, "it was to be over before it could begin"
    else:
        _run_line(home, line, environment, limit, status, command.limits)


def _run_line(
    home: Home,
    line: str,
    environment: Environment,
    limit: Limit,
    status: Status,
    limits: Limits,
) -> None:
    output, sandbox = home.open_output(), home.sandbox
    attendant = Attendant(limits, sandbox)
    began = time.monotonic()
    status.began = time.time_ns() // 1000
    end = process.run(line, sandbox, environment, output, limit.seconds, attendant.wait if limits else None)
    status.ended = status.began + round((time.monotonic() - began) * 1e6)
    if end.in_time and end.code == -signal.SIGTERM and sigterm.whole_job_ends():
        # The worker is going: as one that it did not get to, the task is done elsewhere.
        os.kill(os.getpid(), signal.SIGKILL)
    _tell(end, limit, status)
    attendant.tell(end, status)
    _take_output(home.output_path, output, status)


class Attendant:
    """Sees to it that a command keeps to its limits."""

    def __init__(self, limits: Limits, sandbox: str) -> None:
        self._limits = limits
        self._sandbox = sandbox
        self._monitor: Monitor | None = None

    def wait(self, pid: int, seconds: float) -> bool:
        """Whether the command ended by itself within that time, and within its limits."""
        self._monitor = Monitor(self._limits, self._sandbox, lambda: [pid, *descendants(pid)])
        return self._monitor.ended_within(pid, seconds)

    def tell(self, end: process.End, status: Status) -> None:
        """Note what it used."""
        monitor = self._monitor
        if monitor is None:
            return
        disk = extent(self._sandbox)[0] if self._limits.disk else 0.0
        monitor.note(memory=end.peak_mb, disk=disk)
        status.memory = monitor.memory
        if monitor.exceeded:
            status.word, status.reason = "resource exhaustion", monitor.reason
            status.exceeded = monitor.exceeded


class Limit(msgspec.Struct):
    """A command may go on for so many seconds; ``word``: its result when it does not end within them."""

    seconds: float
    word: str


_NO_LIMIT = Limit(math.inf, "success")


def _limit(command: Command) -> Limit:
    if not command.max_s and not command.end_s:
        return _NO_LIMIT
    limits = [_NO_LIMIT]
    if command.max_s > 0:
        limits.append(Limit(command.max_s, "max wall time"))
    if command.end_s > 0:
        limits.append(Limit(command.end_s - time.time(), "max end time"))
    return min(limits, key=lambda limit: limit.seconds)


def _tell(end: process.End, limit: Limit, status: Status) -> None:
    status.exit_code, status.signal = max(end.code, 0), max(-end.code, 0)
    status.cpu, status.memory = round(end.cpu_s * 1e6), end.peak_mb
    status.exit_code = status.exit_code or status.signal
    if not end.in_time:
        status.word, status.reason = limit.word, f"it was stopped after {limit.seconds:.3g} s"
    elif status.signal:
        status.word = "signal"
        status.reason = f"it was ended by {_signal_name(status.signal)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _take_output(path: str, output: int, status: Status) -> None:
    found = os.fstat(output)
    if not found.st_nlink:
        status.word, status.reason = "stdout missing", "the command removed the file that takes its output"
    elif found.st_size > SHORT_OUTPUT_BYTES:
        status.kept_bytes = found.st_size
        cut_output(path, found.st_size)
    elif found.st_size:
        status.output = os.pread(output, SHORT_OUTPUT_BYTES, 0)


def cut_output(path: str, size: int) -> None:
    """Have standard output end where it is too long."""
    if size > OUTPUT_BYTES:
        os.truncate(path, OUTPUT_BYTES)
        with open(path, "ab") as file:
            file.write(_CUT % size)


# -- after -----------------------------------------------------------------------------------------------


def _collect(home: Home, command: Command, status: Status) -> Any:
    collected = Collected()
    made = take_all(home.sandbox, collected, command, status)
    if status.missing and status.word == "success":
        status.word = "output missing"
        status.reason = f"not made: {', '.join(status.missing)}" + _said(status)
    del status.missing[_MAX_NAMED:]
    if status.kept_bytes:
        home.give_up_output()
        os.rename(home.output_path, os.path.join(collected.path, OUTPUT))
        mark(collected.path)
        return collected.whole(made)
    if len(made) < 2:
        return made[0] if made else None
    members = [one for one in made if isinstance(one, (SmallFile, Absent))]
    return Bundle(members) if len(members) == len(made) else collected.whole(made)


def mark(directory: str) -> None:
    """Who takes the directory as an input takes what lies there as 0, and not all of it."""
    place(SmallFile(b""), os.path.join(directory, MARK))


class Collected:
    """The directory for outputs that are on their way into the store, made when one needs it."""

    def __init__(self, first: int = 0) -> None:
        """``first``: the position of the first output of the sandbox."""
        self._path = ""
        self.first = first

    @property
    def path(self) -> str:
        self._path = self._path or scratch.directory()
        return self._path

    def target(self, position: int) -> str:
        return os.path.join(self.path, str(position))

    def whole(self, made: Sequence[Made]) -> NewTree:
        """All outputs together, each by its position."""
        for position, one in enumerate(made):
            if isinstance(one, SmallFile):
                place(one, self.target(position))
        return NewTree(self.path)


def take_all(sandbox: str, collected: Collected, command: Command, status: Status) -> list[Made]:
    """The outputs that are wanted, taken out of the sandbox. Notes in ``status`` what is missing."""
    succeeded = status.word == "success" and status.exit_code == 0
    names = [outlet.name for outlet in command.outputs]
    made: list[Made] = []
    for position, outlet in enumerate(command.outputs):
        if outlet.when == ("failure" if succeeded else "success"):
            made.append(Absent(f"it is wanted after {outlet.when} only"))
        else:
            if outlet.mode:
                _set_mode(os.path.join(sandbox, outlet.name), outlet.mode)
            made.append(_take(sandbox, names, position, collected, status))
    return made


def _unfit(path: str, sandbox: str) -> str:
    """Why a directory can be no output, in the names that the command used; "" when it can."""
    if os.path.isdir(path):
        try:
            scan(path)
        except BadTreeError as error:
            return str(error).replace(f"{os.path.realpath(sandbox)}/", "")
    return ""


def _set_mode(path: str, mode: int) -> None:
    # Not of what a link leads to, which may be anything.
    if os.path.isfile(path) and not os.path.islink(path):
        os.chmod(path, mode)


def _said(status: Status) -> str:
    last = last_line(status.output.decode(errors="replace"))
    code = f"; the command ended with exit code {status.exit_code}" if status.exit_code else ""
    return code + (f" and said: {last}" if last else "")


def _take(sandbox: str, names: Sequence[str], position: int, collected: Collected, status: Status) -> Made:
    name = names[position]
    path = os.path.join(sandbox, name)
    # Another one may lie in it, or be the same. And what a link leads to may be an input, or lie anywhere.
    others = names[position + 1 :]
    stays = any(other == name or other.startswith(f"{name}/") for other in others) or os.path.islink(path)
    path = os.path.realpath(path)
    if not os.path.isfile(path) and not os.path.isdir(path):
        status.missing.append(name)
        why = f"; {status.reason}" if status.reason else _said(status)
        return Absent(f"the command did not make {name!r} (or no file and no directory){why}")
    if is_small(path):
        return make(path)
    unfit = _unfit(path, sandbox)
    if unfit:
        status.missing.append(f"{name} ({unfit})")
        return Absent(unfit)
    target = collected.target(collected.first + position)
    if stays:
        copy_tree(path, target)
    else:
        os.rename(path, target)
    return make(target)
