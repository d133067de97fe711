"""A command in a sandbox: its inputs are put there, it runs, and its outputs are collected.

The sandbox is the working directory, and $VINE_SANDBOX; $TMPDIR lies beside it (``home``). They are the
executor's. Inputs are put there by ``mounting``, outputs collected by ``outlets``.

- The command is one process group in the executor's session (``process``); the zygote ends it when the
  executor dies.
- What became of it is a ``Status``, attached to the result as a note, so that it arrives whatever the
  result is.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import msgspec

from graphvine.envs.cache import is_full
from graphvine.envs.errors import PackedEnvironmentError
from graphvine.taskvine.remote import process
from graphvine.taskvine.remote.contents import (
    Absent,
    resolved,
)
from graphvine.taskvine.remote.description import Command, Status, decode_command, encode_status
from graphvine.taskvine.remote.environments import activate
from graphvine.taskvine.remote.guarding import drop_changed, stamps
from graphvine.taskvine.remote.here import with_made
from graphvine.taskvine.remote.home import Home, here
from graphvine.taskvine.remote.limits import Limits, Monitor, descendants, extent
from graphvine.taskvine.remote.mounting import Lack, SandboxError, furnish, lacking, linked
from graphvine.taskvine.remote.outlets import Bundle, collect, take_printed, watched
from graphvine.taskvine.remote.spawning import Environment
from graphvine.taskvine.remote.watching import watching
from graphvine.worker import sigterm
from graphvine.worker.notes import set_note

_MAX_REASON = 4000
#: The executor has them for one core.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def run(inputs: Sequence[Any], encoded: bytes) -> Any:
    """Run a command; the result is its outputs, the note its status. Raises OSError when the node cannot."""
    command = decode_command(encoded)
    status = Status("success")
    made = _run(with_made([resolved(value) for value in inputs], command.made), command, status)
    status.reason = status.reason[:_MAX_REASON]
    set_note(encode_status(status))
    return made


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
        return collect(home, command, status)
    except OSError as error:
        if not is_full(error):
            if isinstance(error, SandboxError):
                return _not_run(command, status, Lack("input missing", str(error.strerror)))
            raise
        status.word, status.reason = "sandbox exhaustion", f"the disk of the worker is full: {error}"
        return _nothing(command, Absent(status.reason, no_room=True))
    finally:
        home.empty(untouched)


def _not_run(command: Command, status: Status, lack: Lack) -> Any:
    status.word, status.reason, status.exit_code = lack.word, lack.reason, -1
    return _nothing(command, Absent(lack.reason, no_room=lack.word == "sandbox exhaustion"))


def _nothing(command: Command, absent: Absent) -> Any:
    if len(command.outputs) == 1:
        return absent
    return Bundle([absent] * len(command.outputs)) if command.outputs else None


# -- around it -------------------------------------------------------------------------------------------


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
            status.word, status.reason, status.exit_code = "input missing", f"its environment: {error}", -1
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
    take_printed(home.output_path, output, status)


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
