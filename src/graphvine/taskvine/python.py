"""Python tasks: a function and its arguments in place of a command.

What the function returned is ``t.output``. What it raised is, too: that exception itself, its cause the
traceback of the worker. So that scripts can go on asking ``isinstance(t.output, PythonTaskNoResult)``, every
exception that stands for a result answers to that (see ``mark``), whatever its class.
"""

from __future__ import annotations

import os
import pickle
import uuid
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from graphvine.manager.failure import failed_exception, raised_exception
from graphvine.manager.plan import TaskOptions
from graphvine.protocol.outcomes import Failed
from graphvine.taskvine import results
from graphvine.taskvine.commands import report_of, slot, write_summary
from graphvine.taskvine.files import Environment, File, LocalFile
from graphvine.taskvine.functions import dump_arguments, name_of
from graphvine.taskvine.naming import content_of, kept_name
from graphvine.taskvine.remote import calls
from graphvine.taskvine.remote.cache import environment_name
from graphvine.taskvine.remote.contents import last_line
from graphvine.taskvine.remote.description import Mount, Outlet
from graphvine.taskvine.remote.here import Making
from graphvine.taskvine.remote.limits import STOPPED, Limits, exceeded_by
from graphvine.taskvine.remote.outlets import pick
from graphvine.taskvine.results import Report, Summary
from graphvine.taskvine.task import Task

if TYPE_CHECKING:
    from graphvine.manager.engine import Outcome
    from graphvine.protocol.payload import Entry
    from graphvine.taskvine.plans import Builder

_MARK = "__graphvine_no_result__"
#: Words that a worker has for a function that did not come to its end.
_WITHOUT_VALUE = (*results.NOT_RUN, results.RESOURCE_EXHAUSTION)
#: Names of environments whose content has none.
_unnamed: weakref.WeakKeyDictionary[File, str] = weakref.WeakKeyDictionary()


class _NoResultType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return getattr(instance, _MARK, False) is True or super().__instancecheck__(instance)


class PythonTaskNoResult(Exception, metaclass=_NoResultType):
    """What ``t.output`` is an instance of where there is no result: an exception of any class that says
    why."""


#: The same of function calls.
FunctionCallNoResult = PythonTaskNoResult


def mark(error: BaseException) -> BaseException:
    """Have an exception stand for a result that there is not."""
    # An exception may forbid that its attributes are set.
    object.__setattr__(error, _MARK, True)
    return error


class PythonTask(Task):
    """A call of a function, to be submitted to a manager."""

    _end_grace_s = 0.0

    def __init__(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """``func(*args, **kwargs)`` runs on a worker. Raises TypeError."""
        if not callable(func):
            raise TypeError(f"{func!r} cannot be called")
        super().__init__(name_of(func))
        self._function: Callable[..., Any] | None = func
        self._begin(args, kwargs)

    def _begin(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._args = args
        self._kwargs = kwargs
        self._pickled = b"", b""
        """Function and arguments, while it is submitted."""
        self._temp_output = False
        self._serialized = True
        self._output_level: bool | str = False
        self._output_file: File | None = None

    # -- options ---------------------------------------------------------------------------------------

    def set_environment(self, environment: File | str | os.PathLike[str]) -> None:
        """As ``add_environment``; or a path of a packed environment, or what can be packed."""
        self._contexts = []
        if isinstance(environment, File):
            self.add_environment(environment)
        else:
            self._environment_path = os.fspath(environment)

    _environment_path = ""
    _text = ""
    """The traceback of what it raised."""

    def enable_temp_output(self) -> None:
        """What it returns stays on the workers: ``output_file`` is the pickle of it, for other tasks."""
        self._temp_output = True

    def disable_temp_output(self) -> None:
        """See ``enable_temp_output``."""
        self._temp_output = False

    def set_output_cache(self, cache: bool | str = False) -> None:
        """How long workers keep ``output_file``: as for ``declare_buffer``."""
        self._output_level = cache

    def enable_output_serialization(self) -> None:
        """See ``disable_output_serialization``."""
        self._serialized = True

    def disable_output_serialization(self) -> None:
        """It returns bytes, which are what ``output`` and ``output_file`` are then, and no pickle."""
        self._serialized = False

    # -- what became of it -----------------------------------------------------------------------------

    @property
    def output_file(self) -> File | None:
        """The pickle of what it returned, as a file; None where there is none (yet)."""
        if self._output_file is None and self._report is not None and self.successful():
            data = self._report.value if not self._serialized else _dumps(self._report.value)
            self._output_file = self.manager.declare_buffer(data, self._output_level)
        return self._output_file

    @property
    def output(self) -> Any:
        """What the function returned, or raised (see ``PythonTaskNoResult``); None before.

        Raises ValueError with ``enable_temp_output``, as there is none here."""
        if self._report is None:
            return None
        if self._temp_output and self.successful():
            raise ValueError("its output stays on the workers (enable_temp_output): see output_file")
        return self._report.value

    # -- the client ------------------------------------------------------------------------------------

    def submit_finalize(self) -> None:
        """Take function and arguments as they are now. Raises NotPicklableError."""
        if self._environment_path:
            self.add_environment(self.manager.declare_poncho(self._environment_path, cache=True))
            self._environment_path = ""
        self._pickled = self._pickle()
        self._output_file = None
        if self._temp_output:
            self._output_file = self.manager.declare_temp()

    def _pickle(self) -> tuple[Any, bytes]:
        assert self._function is not None
        return (
            self.manager._functions.dumps(self._function),
            dump_arguments(self.command, self._args, self._kwargs),
        )

    def clone(self) -> Task:
        new = super().clone()
        assert isinstance(new, PythonTask)
        new._output_file = None
        return new

    def output_files(self) -> list[File]:
        files = super().output_files()
        return [self._output_file, *files] if self._output_file is not None else files

    def options(self, defaults: Summary) -> TaskOptions:
        # What it raises is its result, so it is not run again for that.
        return msgspec.structs.replace(super().options(defaults), retries=0, max_s=self._time_max)

    def _archives(self) -> list[File]:
        return [archive_of(file) for file in self._contexts]

    def _group(self) -> Hashable:
        return ("python", *map(id, self._contexts))

    def _entry(self, spec: bytes) -> Entry:
        function, arguments = self._pickled
        return (calls.run, (function, arguments, spec), None)

    def _prepare(self, builder: Builder) -> None:
        """State the code of the plan."""
        if builder.begun:
            return
        code = self.manager._functions.code()
        builder.code = within(builder, code, self._contexts)

    def _enter(self, builder: Builder) -> None:
        self._prepare(builder)
        slots: dict[int, int] = {}
        options = builder.options_of(self)
        spec = self._spec(builder, slots, builder.limits_of(options.request))
        size = len(self._pickled[1])
        entry = builder.add(self._entry(spec), list(slots), self.id, self._category, options, size=size)
        self._pickled = b"", b""
        files = [output.file for output in self._outputs]
        own = self._output_file
        if not files:
            builder.begin(self, entry, [(own, entry)] if own is not None else [])
            return
        wanted = [(0, own)] if own is not None else []
        wanted += list(enumerate(files, 1))
        builder.begin(
            self,
            entry,
            [
                (
                    file,
                    builder.add((pick, (position,), None), [entry], f"output of {self.id}", "pick"),
                )
                for position, file in wanted
            ],
        )

    def _spec(self, builder: Builder, slots: dict[int, int], limits: Limits) -> bytes:
        """What the call has beside its arguments; b"" where that is nothing. Raises MissingInputError."""
        made: list[Making] = []
        mounts = [
            Mount(
                slot(builder, mount.file, slots, mount.name, made),
                mount.name,
                any(output.name == mount.name for output in self._outputs),
                mount.symlink,
                kept_name(mount.file) if isinstance(mount.file, LocalFile) else "",
            )
            for mount in self._inputs
        ]
        outlets = [Outlet(output.name, output.when, output.watch) for output in self._outputs]
        if not (mounts or outlets or self._variables or self._temp_output or limits):
            return b""
        raw = not self._serialized
        return calls.encode(
            calls.Spec(mounts, outlets, self._variables, self._temp_output, raw, limits, made)
        )

    def _awaits_value(self, outcome: Outcome) -> bool:
        if not outcome.ok:
            return False
        ended = _ended(outcome)
        if ended.kept:
            return True
        if self._temp_output or ended.text or ended.word in _WITHOUT_VALUE:
            return False
        return bool(self._outputs) or outcome.value is None

    def _value_entry(self, outcome: Outcome) -> Entry | None:
        return (calls.rest_of, (), None) if self._outputs or _ended(outcome).kept else None

    def _take_value(self, report: Report, value: Any, error: BaseException | None) -> None:
        if error is not None:
            if report.exit_code:
                # The text of what it raised is here, if not all of it.
                return
            _no_value(report, results.OUTPUT_MISSING, f"what it returned cannot be fetched: {error}", error)
        elif isinstance(value, calls.Rest):
            self._take_rest(report, value)
        else:
            report.value = value

    def _take_rest(self, report: Report, rest: calls.Rest) -> None:
        # What is long is here, and only that.
        report.output = rest.output + report.output
        if rest.error:
            report.value = self._raised(report, rest.error, self._text)
        elif report.exit_code or self._temp_output:
            return
        elif rest.value is not None and self._serialized:
            _load(report, rest.value)
        elif rest.value is not None:
            report.value = rest.value

    def _read(self, outcome: Outcome) -> Report:
        report = report_of(outcome)
        report.measured = _measured(self, outcome)
        ended = _ended(outcome)
        report.output = ended.output
        if not outcome.ok:
            self._read_failure(report, outcome)
        elif ended.text:
            self._read_raised(report, ended.error, ended.text)
        elif ended.word in _WITHOUT_VALUE:
            report.exceeded = ended.exceeded
            _no_value(report, ended.word, ended.reason)
        else:
            report.result, report.reason = ended.word, ended.reason
            if outcome.value is not None and not self._outputs and not self._temp_output and not ended.kept:
                _load(report, outcome.value)
        report.measured.exit_status = report.exit_code
        write_summary(self, report)
        return report

    def _read_raised(self, report: Report, error: bytes, text: str) -> None:
        self._text = text
        report.value = self._raised(report, error, text)
        # The function ran to its end.
        report.result, report.exit_code = results.SUCCESS, 1
        report.reason = last_line(text)
        report.output += text.encode()

    def _raised(self, report: Report, error: bytes, text: str) -> BaseException:
        where = f"task {self.id} ({self.command}) failed on {report.worker or report.host}"
        return mark(raised_exception(error, text, self.command, where))

    def _read_failure(self, report: Report, outcome: Outcome) -> None:
        if outcome.kind == "raised":
            self._read_raised(report, outcome.error, outcome.text)
            return
        error = failed_exception(Failed(outcome.kind, outcome.text, outcome.error), self.command)
        if outcome.kind == "killed" and STOPPED in outcome.text:
            report.result = results.RESOURCE_EXHAUSTION
            report.reason = outcome.text.rpartition(STOPPED)[2].strip()
            report.exceeded = exceeded_by(report.reason)
        _no_value(report, report.result, report.reason, error)

    def _take_failure(self, report: Report) -> None:
        """It is over without having been handed over."""
        _no_value(report, report.result, report.reason)


def _ended(outcome: Outcome) -> calls.Ended:
    return calls.decode_ended(outcome.note) if outcome.note else calls.Ended()


def within(builder: Builder, code: Any, contexts: Sequence[File]) -> Any:
    """``code`` for executors in an environment. Raises MissingInputError, ValueError."""
    if not contexts:
        return code
    if len(contexts) > 1:
        raise ValueError("a Python task runs in one environment at most")
    archive = archive_of(contexts[0])
    # What has no name of its content is unpacked once for each manager that uses it.
    name = environment_name(content_of(archive)) or _unnamed.setdefault(
        archive, f"unnamed-{uuid.uuid4().hex}"
    )
    return msgspec.structs.replace(code, environment=builder.input(archive), environment_name=name)


def archive_of(file: File) -> File:
    """The archive of what was added as an environment."""
    return file.archive if isinstance(file, Environment) else file


def _no_value(report: Report, word: str, reason: str, error: BaseException | None = None) -> None:
    report.result, report.reason, report.exit_code = word, reason, -1
    report.value = mark(error if error is not None else PythonTaskNoResult(f"{word}: {reason}"))
    report.output += reason.encode()


def _load(report: Report, data: bytes) -> None:
    try:
        report.value = pickle.loads(data)
    except Exception as error:  # noqa: BLE001 -- unpickling runs the user's code
        _no_value(
            report, results.OUTPUT_MISSING, f"what it returned cannot be unpickled here: {error}", error
        )


def _dumps(value: Any) -> bytes:
    import cloudpickle

    return cloudpickle.dumps(value, protocol=5)  # type: ignore[no-any-return]


def _measured(task: Task, outcome: Outcome) -> Summary:
    wall, start = round(outcome.duration_s * 1e6), round(outcome.began_s * 1e6)
    return Summary(
        category=task.category,
        start=start,
        end=start + wall,
        wall_time=wall,
        gpus=max(0.0, task._asked.gpus),
        memory=round(outcome.memory_mb, 3),
    )
