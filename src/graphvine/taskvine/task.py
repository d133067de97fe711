"""A task: a command in a sandbox, what it needs and makes, what it asks for, and what became of it.

Nothing here acts: a task is data until it is submitted. Other kinds of task (a Python function, say) derive
from ``Task`` and replace ``_enter``, by which a task becomes entries of a plan, and ``_read``, by which it
learns from the engine's word for its own entry what became of it.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from graphvine.manager.plan import TaskOptions
from graphvine.protocol.messages import Resources
from graphvine.taskvine.files import File, Glance, LocalFile
from graphvine.taskvine.reported import Reported
from graphvine.taskvine.results import Report, Summary

if TYPE_CHECKING:
    from graphvine.manager.engine import Outcome
    from graphvine.protocol.payload import Entry
    from graphvine.taskvine.plans import Builder

#: Options that the constructor takes by keyword; each has a ``set_`` of its name.
_SETTABLE = (
    "library_required",
    "library_provided",
    "scheduler",
    "tag",
    "category",
    "snapshot_file",
    "retries",
    "max_forsaken",
    "cores",
    "memory",
    "disk",
    "gpus",
    "priority",
    "time_end",
    "time_start",
    "time_max",
    "time_min",
    "monitor_output",
)
_OTHER = ("features", "inputs", "outputs", "input_files", "output_files", "env")
_OPTIONS = frozenset((*_SETTABLE, *_OTHER))


class Input(msgspec.Struct, frozen=True):
    """A file that stands in the sandbox under a name."""

    file: File
    name: str
    strict: bool = False
    symlink: bool = False


class Output(msgspec.Struct, frozen=True):
    """A file that the task leaves in the sandbox under a name. ``when``: "always", "success", "failure"."""

    file: File
    name: str
    watch: bool = False
    when: str = "always"


class Task(Reported):
    """A command line, to be submitted to a manager."""

    _end_grace_s = 2.0
    """A command sees to it itself that it ends in time, if it has begun; only after so long others do."""

    def __init__(self, command: str, **options: Any) -> None:
        """Options: ``cores, memory, disk, gpus, priority, retries, category, tag, time_max, ...``, each as
        its ``set_`` method takes it; ``features`` (one, or a list); ``inputs`` and ``outputs``, dicts of
        files to names or to dicts of the arguments of ``add_input`` and ``add_output``; ``env``, a dict.
        Raises TypeError, ValueError."""
        if isinstance(command, dict):
            raise TypeError(f"{command} is no command line. Did you mean Task(**{command})?")
        _check_command(command)
        if not options.keys() <= _OPTIONS:
            unknown = sorted(options.keys() - _OPTIONS)
            raise TypeError(
                f"Task has no option {', '.join(unknown)}; there are: {', '.join((*_SETTABLE, *_OTHER))}"
            )
        self._command = command
        self._inputs: list[Input] = []
        self._outputs: list[Output] = []
        self._contexts: list[File] = []
        self._variables: dict[str, str | None] = {}
        self._asked = Summary()
        self._features: list[str] = []
        self._priority = 0.0
        self._retries = 0
        self._max_forsaken = -1
        self._tag: str | None = None
        self._category = "default"
        self._time_start = self._time_end = 0
        self._time_max = self._time_min = 0.0
        self._scheduler: Any = None
        self._monitor_output: str | None = None
        self._library_required: str | None = None
        self._library_provided: str | None = None
        self._on_over: Callable[[Task], None] | None = None
        """Called once it is over, or its manager closed, in a thread of ours; ``wait`` does not return it."""
        self.manager: Any = None
        """Who it was submitted to."""
        self._id = 0
        self._state = "initial"
        self._report: Report | None = None
        self._found: list[tuple[LocalFile, Glance]] = []
        """Local files that it needs, as they were when it was submitted."""
        self._metrics: dict[str, int] = {}
        self._take_options(options)

    def _take_options(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if name not in _OTHER:
                getattr(self, f"set_{name}")(value)
        if options.keys().isdisjoint(_OTHER):
            return
        features = options.get("features", ())
        for feature in [features] if isinstance(features, str) else features:
            self.add_feature(feature)
        for name in ("inputs", "input_files"):
            for file, stated in (options.get(name) or {}).items():
                self.add_input(file, **_mount_options(stated))
        for name in ("outputs", "output_files"):
            for file, stated in (options.get(name) or {}).items():
                self.add_output(file, **_mount_options(stated))
        for variable, value in (options.get("env") or {}).items():
            self.set_env_var(variable, value)

    # -- files -----------------------------------------------------------------------------------------

    def add_input(
        self, file: File, remote_name: str, strict_input: bool = False, mount_symlink: bool = False
    ) -> None:
        """``file`` stands in the sandbox as ``remote_name``.

        ``strict_input``: only if a worker has it already, else the task fails. ``mount_symlink``: as a
        symbolic link. Raises TypeError, ValueError."""
        _check_file(file)
        name = _checked_name(remote_name)
        if any(mount.name == name for mount in self._inputs):
            raise ValueError(f"two inputs are named {name!r}")
        self._inputs.append(Input(file, name, bool(strict_input), bool(mount_symlink)))

    def add_output(
        self,
        file: File,
        remote_name: str,
        watch: bool = False,
        failure_only: bool | None = None,
        success_only: bool | None = None,
    ) -> None:
        """What the task leaves in the sandbox as ``remote_name`` becomes ``file``.

        ``success_only``: only if the command ends with exit code 0; ``failure_only``: only if it does not.
        ``watch``: a file grows here while the task writes it (a buffer: what ``contents`` gives). Raises
        TypeError, ValueError."""
        _check_file(file)
        if file.kind not in ("file", "buffer", "temp"):
            raise ValueError(f"{file.label} cannot be an output: declare a file, a buffer or a temp for it")
        if failure_only and success_only:
            raise ValueError("an output is wanted only on success, or only on failure, not both")
        if any(output.file is file for output in self._outputs):
            raise ValueError(f"{file.label} is an output already")
        when = "success" if success_only else "failure" if failure_only else "always"
        self._outputs.append(Output(file, _checked_name(remote_name), bool(watch), when))

    def add_execution_context(self, file: File) -> None:
        """The command runs within a directory that has ``bin/run_in_env``, or within an environment.

        With several, the first added is the outermost. Raises TypeError."""
        _check_file(file)
        self._contexts.append(file)

    def add_environment(self, file: File) -> None:
        """See ``add_execution_context``."""
        self.add_execution_context(file)

    def add_poncho_package(self, file: File) -> None:
        """See ``add_execution_context``."""
        self.add_execution_context(file)

    def add_starch_package(self, file: File) -> None:
        """See ``add_execution_context``."""
        self.add_execution_context(file)

    def add_nopen(self, manager: Any) -> None:
        """Not here: it needs a library that comes with TaskVine. Raises NotImplementedError."""
        raise NotImplementedError("add_nopen needs lib-nopen.so, which is part of TaskVine itself")

    def input_files(self) -> list[File]:
        """All files that it needs, each once."""
        if not self._inputs and not self._contexts:
            return []
        files = [*(mount.file for mount in self._inputs), *self._contexts]
        return list({id(file): file for file in files}.values())

    def output_files(self) -> list[File]:
        """All files that it makes."""
        return [output.file for output in self._outputs]

    # -- what it asks for ------------------------------------------------------------------------------

    def set_command(self, command: str) -> None:
        """The command line, for /bin/sh. Raises TypeError, ValueError."""
        _check_command(command)
        self._command = command

    def set_env_var(self, name: str, value: str | None = None) -> None:
        """Set a variable for the command; None unsets it. Raises TypeError, ValueError."""
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} cannot be the name of an environment variable")
        if value is not None and "\0" in str(value):
            raise ValueError(f"the value of {name} has a null byte")
        _check_encodable("the variable", f"{name}={value}")
        self._variables[name] = None if value is None else str(value)

    def set_cores(self, cores: float) -> None:
        """Cores that it needs; unset, as many as its share of the other resources is."""
        self._asked.cores = _amount("cores", cores)

    def set_memory(self, memory: float) -> None:
        """Memory that it needs, in MB."""
        self._asked.memory = _amount("memory", memory)

    def set_disk(self, disk: float) -> None:
        """Disk that it needs, in MB."""
        self._asked.disk = _amount("disk", disk)

    def set_gpus(self, gpus: float) -> None:
        """GPUs that it needs; unset, none."""
        self._asked.gpus = _amount("gpus", gpus)

    def set_priority(self, priority: float) -> None:
        """Larger runs earlier; 0 unless set."""
        self._priority = _finite("priority", priority)

    def set_retries(self, max_retries: int) -> None:
        """How often it is tried again after it took its worker's process down (0 or less: as unset, twice).
        The loss of a worker that is not its fault does not count. Raises TypeError, ValueError."""
        self._retries = int(_finite("retries", max_retries))

    def set_max_forsaken(self, max_forsaken: int) -> None:
        """How often it may be lost with the worker that had it; once more, and it is "forsaken" (less than 0,
        as unset: any number of times)."""
        self._max_forsaken = int(max_forsaken)

    def set_category(self, name: str) -> None:
        """Tasks of one category should behave alike."""
        self._category = str(name)

    def set_tag(self, tag: str) -> None:
        """A word to know it by."""
        self._tag = None if tag is None else str(tag)

    def add_feature(self, name: str) -> None:
        """It runs only on workers with this feature. Raises TypeError."""
        if not isinstance(name, str):
            raise TypeError(f"feature {name!r} is not a str")
        if name not in self._features:
            self._features.append(name)

    def set_time_max(self, seconds: float) -> None:
        """It is stopped after so many seconds ("max wall time"); 0: never."""
        self._time_max = max(0.0, _finite("time_max", seconds))

    def set_time_min(self, seconds: float) -> None:
        """Seconds that its worker must have left when it begins, as far as the worker says how long it stays
        (``--wall-time``)."""
        self._time_min = max(0.0, _finite("time_min", seconds))

    def set_time_end(self, useconds: float) -> None:
        """When it is stopped at the latest ("max end time"), in microseconds since 1970; 0: never."""
        self._time_end = max(0, int(useconds))

    def set_time_start(self, useconds: float) -> None:
        """When it begins at the earliest, in microseconds since 1970."""
        self._time_start = max(0, int(useconds))

    def set_scheduler(self, scheduler: Any) -> None:
        """Accepted, nothing to do: tasks go where their data is, or where there is room."""
        self._scheduler = scheduler

    def set_monitor_output(self, directory: str) -> None:
        """A directory for a JSON file with what was measured: ``vine-PID-task-ID.summary``."""
        self._monitor_output = os.fspath(directory)

    def set_snapshot_file(self, filename: str) -> None:
        """Accepted, nothing to do: nothing is measured while a task runs but its peaks."""

    def set_library_required(self, library: str) -> None:
        """The library that a function call needs."""
        self._library_required = library

    def set_library_provided(self, library: str) -> None:
        """The library that a library task is."""
        self._library_provided = library

    def needs_library(self, library: str) -> None:
        """See ``set_library_required``."""
        self.set_library_required(library)

    def provides_library(self, library: str) -> None:
        """See ``set_library_provided``."""
        self.set_library_provided(library)

    def get_library_required(self) -> str | None:
        """What ``set_library_required`` said."""
        return self._library_required

    def get_library_provided(self) -> str | None:
        """What ``set_library_provided`` said."""
        return self._library_provided

    # As they are spelt there.
    get_libray_required = get_library_required
    get_libray_provided = get_library_provided

    def set_function_slots(self, nslots: int) -> None:
        """Means something for libraries only."""

    def submit_finalize(self) -> None:
        """Called when it is submitted, for kinds of task that have something to prepare."""

    def clone(self) -> Task:
        """A copy that can be submitted, too."""
        new = copy.copy(self)
        for name in ("_inputs", "_outputs", "_contexts", "_features", "_variables"):
            setattr(new, name, copy.copy(getattr(self, name)))
        new._asked = copy.copy(self._asked)
        new.manager = None
        new.forget()
        return new

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id or 'not submitted'}: {self._command!r}>"

    # -- the client ------------------------------------------------------------------------------------

    def forget(self) -> None:
        """As if it had not run."""
        self._id = 0
        self._state = "initial"
        self._report = None
        self._metrics = {}

    def options(self, defaults: Summary) -> TaskOptions:
        """What it asks of the engine; ``defaults``: where it states nothing (-1: its proportional share)."""
        asked = [
            stated if stated >= 0 else max(0.0, default)
            for stated, default in (
                (self._asked.cores, defaults.cores),
                (self._asked.memory, defaults.memory),
                (self._asked.disk, defaults.disk),
                (self._asked.gpus, defaults.gpus),
            )
        ]
        return TaskOptions(
            request=Resources(*asked),
            priority=round(self._priority),
            retries=max(0, self._retries),
            max_deaths=self._retries + 1 if self._retries > 0 else 0,
            max_losses=max(-1, self._max_forsaken),
            features=tuple(self._features),
            lasts_s=self._time_max,
            min_s=self._time_min,
        )

    def _asking(self) -> Hashable:
        """Tasks that ask for the same give the same: all that ``options`` looks at but the defaults."""
        asked = self._asked
        return (
            type(self),
            asked.cores,
            asked.memory,
            asked.disk,
            asked.gpus,
            self._priority,
            self._retries,
            self._max_forsaken,
            tuple(self._features),
            self._time_max,
            self._time_min,
        )

    def _enter(self, builder: Builder) -> None:
        """Become entries of a plan; its own is announced with ``builder.begin``."""
        from graphvine.taskvine import commands

        commands.enter(builder, self)

    def _group(self) -> Hashable:
        """Tasks of one group can share a plan: they need the same code in their executors."""
        return None

    def _archives(self) -> list[File]:
        """Files whose content must have a name before it can be part of a plan."""
        return []

    def _needed_before(self) -> list[File]:
        """Files that cannot be made in the plan that the task is a part of."""
        return self._archives()

    def _awaits_value(self, outcome: Outcome) -> bool:
        """Whether more of its own result is to be fetched before it is over; ``_take_value`` is given it."""
        from graphvine.taskvine import commands

        return commands.awaits_output(outcome)

    def _value_entry(self, outcome: Outcome) -> Entry | None:
        """What is fetched then is what this entry makes of the result; None: the result itself."""
        from graphvine.taskvine import commands

        return commands.OUTPUT_ENTRY

    def _take_value(self, report: Report, value: Any, error: BaseException | None) -> None:
        """What was fetched, or why that could not be."""
        from graphvine.taskvine import commands

        commands.take_output(report, value, error)

    def _take_failure(self, report: Report) -> None:
        """It is over and was never handed over; ``report`` says why."""

    def _read(self, outcome: Outcome) -> Report:
        """What became of it, by the outcome of its own entry. Called in a thread of the client."""
        from graphvine.taskvine import commands

        return commands.read(self, outcome)


def _check_command(command: Any) -> None:
    """Raises TypeError, ValueError."""
    if not isinstance(command, str):
        hint = " (shlex.join makes one of a list)" if isinstance(command, (list, tuple)) else ""
        raise TypeError(f"{command!r} is no command line, which is a str{hint}")
    if "\0" in command:
        raise ValueError("the command line has a null byte")
    _check_encodable("the command line", command)


def _check_encodable(what: str, text: str) -> None:
    """Raises ValueError for what cannot be sent: bytes of a name that is no UTF-8, say."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} {text!r} is no UTF-8") from None


def _mount_options(stated: Any) -> dict[str, Any]:
    """The arguments of ``add_input`` from what stands beside a file in ``inputs=``."""
    if isinstance(stated, str):
        return {"remote_name": stated}
    if isinstance(stated, Mapping):
        return {name: value for name, value in stated.items() if name != "cache"}
    raise TypeError(f"{stated!r}: give the name in the sandbox, or a dict with remote_name")


def _check_file(file: Any) -> None:
    if not isinstance(file, File):
        raise TypeError(f"{file!r} is no file: declare it first, as with manager.declare_file(path)")
    if file.undeclared:
        raise ValueError(f"{file.label} was undeclared")


def _checked_name(name: Any) -> str:
    """A name in the sandbox. Raises TypeError, ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"remote_name={name!r} is not a str")
    _check_encodable("remote_name", name)
    normal = os.path.normpath(name) if name else ""
    parts: Sequence[str] = normal.split("/")
    if not name or normal == "." or "\0" in name or name.startswith("/") or ".." in parts:
        raise ValueError(f"remote_name={name!r}: give a path within the sandbox")
    return normal


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name}={value!r} is not finite")
    return number


def _amount(name: str, value: Any) -> float:
    """An amount of a resource; a negative one means "not stated", as in TaskVine."""
    number = _finite(name, value)
    return number if number >= 0 else -1
