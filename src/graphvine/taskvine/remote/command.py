"""A command in a sandbox: its inputs are put there, it runs, and its outputs are collected.

    sandbox/          the working directory; $VINE_SANDBOX
    tmp/              $TMPDIR, beside the sandbox, so that it is not among what the command lists
    output            what it writes to standard output and standard error

These are the executor's, and stay, empty, from one command to the next. Outputs are moved to a directory of
the task's own, on their way into the store.

- Inputs are hard links into the store where that is possible: never to be written to (a file that is, is
  dropped from the store). What is also an output is a copy. An input that cannot be had means that the
  command is not run.
- The command is one process group in the executor's session. The group is ended when the command is over,
  or its time is, and so are those that left it (``strays``); the zygote ends it when the executor dies.
- What became of it is a ``Status``, attached to the result as a note, so that it arrives whatever the
  result is.
- One output is the result itself; several are a ``Bundle`` (all small) or a directory, of which ``pick``
  takes one.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from graphvine.envs.errors import PackedEnvironmentError
from graphvine.protocol import tree_files
from graphvine.protocol.trees import NewTree, Tree
from graphvine.taskvine.remote import strays
from graphvine.taskvine.remote.cache import NodeCache
from graphvine.taskvine.remote.contents import (
    MARK,
    Absent,
    Made,
    SmallFile,
    copy_tree,
    is_small,
    last_line,
    link_tree,
    make,
    place,
    reason_absent,
    resolved,
)
from graphvine.taskvine.remote.environments import activate
from graphvine.taskvine.remote.limits import Limits, Monitor, descendants, extent
from graphvine.taskvine.remote.watching import watching
from graphvine.worker import scratch
from graphvine.worker.notes import set_note

log = logging.getLogger("graphvine.command")

#: Standard output up to this travels in the status; what is longer is kept with the outputs.
SHORT_OUTPUT_BYTES = 32 * 2**10
#: ... and is cut off here.
OUTPUT_BYTES = 10**9
_CUT = b"\n[standard output is cut here: it had %d bytes]\n"
OUTPUT = "output"
_SANDBOX = "sandbox"
_TMP = "tmp"
#: Not by ``preexec_fn`` where it can be helped: that forks the executor with all its memory, which takes
#: several times as long as vfork.
_OWN_GROUP: dict[str, Any] = (
    {"process_group": 0} if sys.version_info >= (3, 11) else {"preexec_fn": os.setpgrp}
)
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
    "failure"). ``watch``: it is sent as it grows."""

    name: str
    when: str = "always"
    watch: bool = False


class Context(msgspec.Struct, array_like=True):
    """Input ``slot`` is a directory with bin/run_in_env, or a packed environment whose content has this
    name."""

    slot: int
    name: str = ""


class Command(msgspec.Struct, array_like=True):
    """What is run, and how. ``max_s``: its time, ``end_s``: when it must be over (since 1970); 0: no limit.
    ``contexts``: what it runs within, the outermost first.
    ``limits``: what it may use, where that is seen to.
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
    made = _run([resolved(value) for value in inputs], command, status)
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
    reason = lacking(inputs, command)
    if reason:
        return _not_run(command, status, reason)
    home = scratch.lasting()
    try:
        sandbox = furnish(home, inputs, command)
        before = stamps(inputs, command)
        _execute(home, sandbox, inputs, command, status)
        drop_changed(before, command.line)
        return _collect(home, sandbox, command, status)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            if isinstance(error, SandboxError):
                return _not_run(command, status, str(error.strerror))
            raise
        status.word, status.reason = "sandbox exhaustion", f"the disk of the worker is full: {error}"
        return _nothing(command, status.reason)
    finally:
        empty(home)


def lacking(inputs: Sequence[Any], command: Command) -> str:
    """Which input cannot be had, and why; "" when all can."""
    names = {mount.slot: mount.name for mount in command.inputs}
    for slot, value in enumerate(inputs):
        reason = reason_absent(value)
        if reason:
            return f"{names.get(slot, 'its environment')}: {reason}"
    return ""


def _not_run(command: Command, status: Status, reason: str) -> Any:
    status.word, status.reason, status.exit_code = "input missing", reason, -1
    return _nothing(command, reason)


def _nothing(command: Command, reason: str) -> Any:
    if len(command.outputs) == 1:
        return Absent(reason)
    return Bundle([Absent(reason)] * len(command.outputs)) if command.outputs else None


# -- before ----------------------------------------------------------------------------------------------


def furnish(home: str, inputs: Sequence[Any], command: Command) -> str:
    """Make the sandbox, with its inputs; its path."""
    sandbox = os.path.join(home, _SANDBOX)
    for path in (sandbox, os.path.join(home, _TMP)):
        if not os.path.isdir(path):
            os.mkdir(path)
    for mount in command.inputs:
        try:
            _mount(inputs[mount.slot], mount, os.path.join(sandbox, mount.name))
        except OSError as error:
            why = f"{mount.name} cannot be put into the sandbox: {_why_not(sandbox, mount.name, error)}"
            raise SandboxError(error.errno, why) from error
    for outlet in command.outputs:
        os.makedirs(os.path.dirname(os.path.join(sandbox, outlet.name)), exist_ok=True)
    return sandbox


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


class Stamp(msgspec.Struct, frozen=True):
    """What an input that is a file of the store was like before. ``name``: in the sandbox."""

    name: str
    size: int
    mtime_ns: int


def stamps(inputs: Sequence[Any], command: Command) -> dict[str, Stamp]:
    """What tells whether a command writes to inputs that are files of the store; by their paths there."""
    linked = [(inputs[mount.slot], mount.name) for mount in command.inputs if not mount.copied]
    return {
        value.path: _stamp(value.path, name)
        for value, name in linked
        if isinstance(value, Tree) and os.path.isfile(value.path)
    }


def _stamp(path: str, name: str) -> Stamp:
    status = os.stat(path)
    return Stamp(name, status.st_size, status.st_mtime_ns)


def drop_changed(before: dict[str, Stamp], line: str = "") -> None:
    """An input that was written to is no file of anybody's any more: the worker finds that it is gone, and
    has it made or sent again."""
    for path, stamp in before.items():
        try:
            changed = _stamp(path, stamp.name) != stamp
        except FileNotFoundError:
            continue
        if changed:
            log.warning(
                "%s wrote to its input %s, which is made or sent again for others: what is declared as an "
                "output of that name, too, is a copy",
                repr(line) if line else "a task",
                stamp.name,
            )
            tree_files.remove(os.path.dirname(path))


def empty(home: str) -> None:
    """Leave nothing for the next command."""
    if not os.path.isdir(home):
        # This one has removed it, with its own sandbox.
        return
    for entry in os.scandir(home):
        if entry.name not in (_SANDBOX, _TMP) or not entry.is_dir(follow_symlinks=False):
            tree_files.remove(entry.path)
            continue
        if stat.S_IMODE(entry.stat().st_mode) & 0o700 != 0o700:
            os.chmod(entry.path, 0o700)
        for left in os.scandir(entry.path):
            tree_files.remove(left.path)


def watched(sandbox: str, command: Command) -> list[tuple[str, int]]:
    """The outputs that are sent as they grow, by path and position."""
    return [
        (os.path.join(sandbox, outlet.name), position)
        for position, outlet in enumerate(command.outputs)
        if outlet.watch
    ]


def _environment(home: str, sandbox: str, command: Command) -> dict[str, str]:
    variables = dict(os.environ)
    variables["VINE_SANDBOX"] = sandbox
    variables["TMPDIR"] = os.path.join(home, _TMP)
    variables["PWD"] = sandbox
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


# -- while it runs ---------------------------------------------------------------------------------------


def _execute(home: str, sandbox: str, inputs: Sequence[Any], command: Command, status: Status) -> None:
    with ExitStack() as while_used:
        variables = _environment(home, sandbox, command)
        line = command.line
        try:
            for context in reversed(command.contexts):
                line = activate(inputs[context.slot], context.name, line, variables, while_used)
        except (PackedEnvironmentError, TypeError) as error:
            status.word, status.reason = "input missing", f"its environment: {error}"
            return
        limit = _limit(command)
        if limit.seconds <= 0:
            status.word, status.reason = limit.word, "it was to be over before it could begin"
            return
        while_used.enter_context(watching(watched(sandbox, command)))
        _run_line(home, sandbox, line, variables, limit, status, command.limits)


def _run_line(
    home: str,
    sandbox: str,
    line: str,
    variables: dict[str, str],
    limit: Limit,
    status: Status,
    limits: Limits,
) -> None:
    output = os.path.join(home, OUTPUT)
    began = time.monotonic()
    status.began = time.time_ns() // 1000
    with strays.ended():
        with open(output, "wb") as stream:
            process = subprocess.Popen(
                ["/bin/sh", "-c", line],
                cwd=sandbox,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                **_OWN_GROUP,
            )
        _attend(process, limit, status, limits, sandbox)
    status.ended = status.began + round((time.monotonic() - began) * 1e6)
    _take_output(output, status)


class Limit(msgspec.Struct):
    """A command may go on for so many seconds; ``word``: its result when it does not end within them."""

    seconds: float
    word: str


def _limit(command: Command) -> Limit:
    limits = [Limit(math.inf, "success")]
    if command.max_s > 0:
        limits.append(Limit(command.max_s, "max wall time"))
    if command.end_s > 0:
        limits.append(Limit(command.end_s - time.time(), "max end time"))
    return min(limits, key=lambda limit: limit.seconds)


def _attend(
    process: subprocess.Popen[bytes], limit: Limit, status: Status, limits: Limits, sandbox: str
) -> None:
    """Wait for a command, and end what it leaves."""
    monitor = Monitor(limits, sandbox, lambda: [process.pid, *descendants(process.pid)])
    try:
        in_time = True
        if limits:
            in_time = monitor.ended_within(process.pid, limit.seconds)
        elif limit.seconds < math.inf:
            in_time = _ended_within(process.pid, limit.seconds)
        if not in_time:
            status.word, status.reason = limit.word, f"it was stopped after {limit.seconds:.3g} s"
        else:
            # It is not reaped yet, so that its number, which is that of the group, is nobody else's.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        _kill_group(process.pid)
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    status.exit_code, status.signal = max(process.returncode, 0), max(-process.returncode, 0)
    status.cpu = round((usage.ru_utime + usage.ru_stime) * 1e6)
    monitor.note(memory=usage.ru_maxrss / 1024, disk=extent(sandbox)[0] if limits.disk else 0.0)
    status.memory = monitor.memory
    if monitor.exceeded:
        status.word, status.reason = "resource exhaustion", monitor.reason
        status.exceeded = monitor.exceeded
    if status.signal and status.word == "success":
        status.word = "signal"
        status.exit_code = status.signal
        status.reason = f"it was ended by {_signal_name(status.signal)}"


def _ended_within(pid: int, seconds: float) -> bool:
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _take_output(path: str, status: Status) -> None:
    try:
        size = os.path.getsize(path)
    except FileNotFoundError:
        status.word, status.reason = "stdout missing", "the command removed the file that takes its output"
        return
    if size <= SHORT_OUTPUT_BYTES:
        with open(path, "rb") as file:
            status.output = file.read()
        return
    status.kept_bytes = size
    cut_output(path, size)


def cut_output(path: str, size: int) -> None:
    """Have standard output end where it is too long."""
    if size > OUTPUT_BYTES:
        os.truncate(path, OUTPUT_BYTES)
        with open(path, "ab") as file:
            file.write(_CUT % size)


# -- after -----------------------------------------------------------------------------------------------


def _collect(home: str, sandbox: str, command: Command, status: Status) -> Any:
    status.disk, status.files = extent(sandbox)
    collected = Collected()
    made = take_all(sandbox, collected, command, status)
    if status.missing and status.word == "success":
        status.word = "output missing"
        status.reason = f"not made: {', '.join(status.missing)}" + _said(status)
    del status.missing[_MAX_NAMED:]
    if status.kept_bytes:
        os.rename(os.path.join(home, OUTPUT), os.path.join(collected.path, OUTPUT))
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
            made.append(_take(sandbox, names, position, collected, status))
    return made


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
        return Absent(f"the command did not make {name!r} (or no file and no directory)")
    if is_small(path):
        return make(path)
    target = collected.target(collected.first + position)
    if stays:
        copy_tree(path, target)
    else:
        os.rename(path, target)
    return make(target)
