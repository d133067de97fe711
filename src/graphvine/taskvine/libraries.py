"""Libraries: functions that workers have at hand, with what a set-up made for them; and calls of them.

A library is a context of the engine (see ``manager.plan.Code``): on each worker that gets a call of it, one
process unpickles its functions, imports what is hoisted and runs the set-up, once; calls run in processes
forked from that one. So a call carries a name and its arguments only.

A call is of the library that was installed under its name when it was submitted; that one may be removed
meanwhile. Without one, it is over at once, with the result "missing library".
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from graphvine.manager.plan import Code
from graphvine.protocol.errors import LibraryError, NotPicklableError
from graphvine.protocol.libraries import Setup, dump_setup
from graphvine.taskvine.files import File
from graphvine.taskvine.functions import dump_arguments, name_of
from graphvine.taskvine.python import PythonTask, archive_of, within
from graphvine.taskvine.remote import calls, setups
from graphvine.taskvine.results import Summary
from graphvine.taskvine.task import Task

if TYPE_CHECKING:
    from graphvine.manager.plan import TaskOptions
    from graphvine.protocol.payload import Entry
    from graphvine.taskvine.plans import Builder

#: How calls run: one after the other in a process that is forked from the library's, or each in its own.
MODES = ("direct", "fork")
_numbers = itertools.count(1)


class LibraryTask(Task):
    """A library, to be installed with ``Manager.install_library``."""

    def __init__(self, setup: Setup, name: str, line: str = "") -> None:
        """``line``: a command line that is run before the set-up."""
        super().__init__(name)
        self.set_library_provided(name)
        self._setup = setup
        self._line = line
        self._slots = 0
        self._mode = "direct"

    @property
    def name(self) -> str:
        return self.command

    def set_function_slots(self, nslots: int) -> None:
        """At most so many calls of it at a time: they share the cores, memory, disk and GPUs that it states,
        or the worker if it states none. 0: one call per core."""
        if nslots < 0:
            raise ValueError(f"function slots: {nslots}")
        self._slots = int(nslots)

    def set_function_exec_mode(self, mode: str) -> None:
        """How calls run: "direct": one after the other in processes that are forked from the library's;
        "fork": each in a process of its own. Raises ValueError."""
        self._mode = checked_mode(mode)

    def set_function_exec_mode_from_string(self, mode: str) -> None:
        """See ``set_function_exec_mode``."""
        self.set_function_exec_mode(mode)

    def _enter(self, builder: Builder) -> None:
        raise ValueError(f"library {self.name} is to be installed (install_library), not submitted")

    def share(self) -> Summary:
        """What a call of it asks for that does not say."""
        slots = self._slots or max(1, int(self._asked.cores))
        asked = self._asked
        return Summary(
            cores=asked.cores / slots if asked.cores > 0 else -1 if self._slots else 1.0,
            memory=asked.memory / slots if asked.memory > 0 else -1,
            disk=asked.disk / slots if asked.disk > 0 else -1,
            gpus=asked.gpus / slots if asked.gpus > 0 else -1,
        )

    def share_of_worker(self) -> float:
        """The share of its worker that a call takes at the least, where the library states nothing else."""
        asked = self._asked
        stated = max(asked.cores, asked.memory, asked.disk, asked.gpus) > 0
        return 0.0 if stated or not self._slots else 1.0 / self._slots


class Function:
    """A function of a library under a name of its own, and perhaps with the library's context."""

    def __init__(
        self,
        name: str | None,
        func: Callable[..., Any],
        func_context: Callable[..., Any] | None = None,
        func_context_args: Sequence[Any] = (),
        func_context_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises TypeError, ValueError."""
        if not callable(func):
            raise TypeError(f"{func!r} cannot be called")
        self.func = func
        self.name = name or str(getattr(func, "__name__", ""))
        if not self.name:
            raise ValueError(f"{func!r} has no name to call it by: give one")
        self.func_context = func_context
        self.func_context_args = list(func_context_args)
        self.func_context_kwargs = dict(func_context_kwargs or {})

    def context(self) -> list[Any] | None:
        """As ``library_context_info``."""
        if self.func_context is None:
            return None
        return [self.func_context, self.func_context_args, self.func_context_kwargs]


class Installed(msgspec.Struct, frozen=True):
    """A library as it was when it was installed."""

    number: int
    name: str
    functions: frozenset[str]
    setup: bytes
    variables: tuple[tuple[str, str], ...]
    contexts: tuple[File, ...]
    inputs: tuple[File, ...]
    mode: str
    share: Summary
    share_of_worker: float

    def files(self) -> list[File]:
        """What it needs on its workers."""
        return [*self.contexts, *self.inputs]


def install(task: LibraryTask) -> Installed:
    """Take a library as it is now. Raises NotPicklableError, ValueError."""
    number = next(_numbers)
    setup = msgspec.structs.replace(task._setup, number=number)
    if task._inputs or task._line or setup.function is not None:
        names = [mount.name for mount in task._inputs]
        given = names, task._line, setup.function, setup.args, setup.kwargs
        setup = msgspec.structs.replace(
            setup, function=setups.set_up, args=given, kwargs={}, takes_inputs=True
        )
    try:
        data = dump_setup(setup)
    except Exception as error:
        raise NotPicklableError(
            f"library {task.name} cannot be sent to a worker: {type(error).__name__}: {error}"
        ) from error
    return Installed(
        number,
        task.name,
        frozenset(task._setup.functions),
        data,
        tuple(sorted((name, value) for name, value in task._variables.items() if value is not None)),
        tuple(task._contexts),
        tuple(mount.file for mount in task._inputs),
        task._mode,
        task.share(),
        task.share_of_worker(),
    )


def make(
    name: str,
    functions: Sequence[Callable[..., Any] | Function],
    context: Sequence[Any] | None,
    hoisted: Sequence[Any] | None,
    command: str | None,
) -> LibraryTask:
    """A library of functions. ``context``: function, arguments and keyword arguments of the set-up. Raises
    TypeError, ValueError."""
    named: dict[str, Callable[..., Any]] = {}
    for function in functions:
        if isinstance(function, Function):
            if function.func_context is not None and context is not None:
                raise ValueError(f"library {name}: it has several contexts, and can have one")
            context = function.context() or context
            named[function.name] = function.func
            continue
        if not callable(function):
            raise TypeError(f"library {name}: {function!r} cannot be called")
        key = getattr(function, "__name__", "")
        if not key:
            raise ValueError(f"library {name}: {function!r} has no name to call it by")
        if key in named and named[key] is not function:
            raise ValueError(f"library {name}: two functions are named {key!r}")
        named[key] = function
    return LibraryTask(
        Setup(*_context(name, context), _hoisted(name, hoisted or ()), named), name, command or ""
    )


def _context(
    name: str, context: Sequence[Any] | None
) -> tuple[Callable[..., Any] | None, tuple[Any, ...], dict[str, Any]]:
    if context is None:
        return None, (), {}
    parts = list(context) if isinstance(context, Sequence) else []
    if not 1 <= len(parts) <= 3 or not callable(parts[0]):
        raise TypeError(f"library {name}: library_context_info should be [function, args, kwargs]")
    args = parts[1] if len(parts) > 1 and parts[1] is not None else ()
    kwargs = parts[2] if len(parts) > 2 and parts[2] is not None else {}
    return parts[0], tuple(args), dict(kwargs)


def _hoisted(name: str, hoisted: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for value in hoisted:
        key = getattr(value, "__name__", None)
        if not isinstance(key, str):
            raise TypeError(f"library {name}: {value!r} cannot be hoisted: give modules, functions, classes")
        if isinstance(value, ModuleType) and "." in key:
            # As ``import a.b`` has it.
            top = key.partition(".")[0]
            found[top] = __import__(top)
        found[key] = value
    return found


def checked_mode(mode: str) -> str:
    """Raises ValueError."""
    if mode not in MODES:
        raise ValueError(f"exec_mode={mode!r}: give one of {', '.join(map(repr, MODES))}")
    return mode


class FunctionCall(PythonTask):
    """A call of a function of a library, to be submitted to a manager."""

    def __init__(
        self, library: str | LibraryTask, fn: str | Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> None:
        """``library``: its name, or itself. ``fn``: the function's name. What is not stated of resources is
        a share of the library's, or one core."""
        name = fn if isinstance(fn, str) else name_of(fn)
        Task.__init__(self, name)
        self._function = None
        self._begin(args, kwargs)
        self.set_library_required(library.name if isinstance(library, LibraryTask) else library)
        self._call_mode: str | None = None
        self._library: Installed | None = None

    def set_fn_args(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> None:
        """Other arguments than it was made with."""
        self._args, self._kwargs = tuple(args), dict(kwargs or {})

    def set_exec_method(self, remote_task_exec_method: str) -> None:
        """How it runs, if not as its library says: "fork" or "direct". Raises ValueError."""
        self._call_mode = checked_mode(remote_task_exec_method)

    def set_fork(self, fork: bool = True) -> None:
        """Whether it runs in a process of its own."""
        self._call_mode = "fork" if fork else "direct"

    def _pickle(self) -> tuple[Any, bytes]:
        self._library = self.manager._libraries.get(self._library_required)
        return self.command, dump_arguments(self.command, self._args, self._kwargs)

    def options(self, defaults: Summary) -> TaskOptions:
        library = self._library
        if library is None:
            return super().options(defaults)
        share = library.share
        options = super().options(
            Summary(
                cores=defaults.cores if defaults.cores >= 0 else share.cores,
                memory=defaults.memory if defaults.memory >= 0 else share.memory,
                disk=defaults.disk if defaults.disk >= 0 else share.disk,
                gpus=defaults.gpus if defaults.gpus >= 0 else share.gpus,
            )
        )
        request = msgspec.structs.replace(options.request, share=library.share_of_worker)
        return msgspec.structs.replace(options, request=request)

    def _asking(self) -> Hashable:
        return super()._asking(), self._library.number if self._library is not None else 0

    def _archives(self) -> list[File]:
        return [archive_of(file) for file in self._library.contexts] if self._library is not None else []

    def _needed_before(self) -> list[File]:
        return [*self._archives(), *(self._library.inputs if self._library is not None else ())]

    def _group(self) -> Hashable:
        return ("library", self._library.number if self._library is not None else 0)

    def _entry(self, spec: bytes) -> Entry:
        name, arguments = self._pickled
        assert self._library is not None
        mode = self._call_mode or self._library.mode
        return (calls.run_named_forked if mode == "fork" else calls.run_named, (name, arguments, spec), None)

    def _prepare(self, builder: Builder) -> None:
        library = self._library
        if library is None:
            raise LibraryError(
                f"library {self._library_required} is not installed: "
                "manager.install_library(...) comes before the calls"
            )
        if self.command not in library.functions:
            known = ", ".join(sorted(library.functions)) or "none"
            raise LibraryError(f"library {library.name} has no function {self.command!r}; it has: {known}")
        if self._contexts:
            raise ValueError("a call runs in the environment of its library: add it there")
        if builder.begun:
            return
        code: Code = msgspec.structs.replace(
            self.manager._functions.code(),
            imports=(),
            setup=library.setup,
            setup_name=library.name,
            variables=library.variables,
            inputs=tuple(builder.input(file) for file in library.inputs),
        )
        builder.code = within(builder, code, library.contexts)

    def input_files(self) -> list[File]:
        files = super().input_files()
        return [*files, *self._library.files()] if self._library is not None else files
