"""What users of TaskVine see of a manager: ``submit``, ``wait``, libraries, and in its bases all the rest.

``TaskClient`` is a base of the manager's class, beside ``DaskClient``: the methods of ``engine.Engine`` are
on the same object. It only takes orders; ``desk`` carries them out. docs/taskvine.md has a row for every
name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphvine.taskvine.declaring import FileClient
from graphvine.taskvine.files import File
from graphvine.taskvine.map_client import MapClient
from graphvine.taskvine.steering import SteeringClient

if TYPE_CHECKING:
    from graphvine.taskvine.functions import Functions
    from graphvine.taskvine.libraries import Installed, LibraryTask
    from graphvine.taskvine.task import Task

Timeout = float | str | None


class TaskClient(FileClient, SteeringClient, MapClient):
    """Declares files and runs tasks on the engine that it is."""

    def __init__(self) -> None:
        super().__init__()
        self._functions_made: Functions | None = None
        self._libraries: dict[str, Installed] = {}
        """Those that are installed, by name."""

    @property
    def _functions(self) -> Functions:
        """How the functions of Python tasks travel."""
        if self._functions_made is None:
            from graphvine.taskvine.functions import Functions

            self._functions_made = Functions()
        return self._functions_made

    # -- tasks -----------------------------------------------------------------------------------------

    def submit(self, task: Task) -> int:
        """Have a task run; its number. Raises TypeError, ValueError, ManagerClosedError."""
        from graphvine.taskvine.task import Task

        if not isinstance(task, Task):
            raise TypeError(f"{task!r} is no task")
        other = task.manager
        if other is not None and other is not self and other._has(task):
            raise ValueError(f"task {task.id} was submitted to another manager, and is not over: clone() it")
        desk = self._desk
        if desk.ledger.empty():
            # It waits for the manager's thread: not for each of thousands.
            self._engine.expect_work()
        task.manager = self
        task.submit_finalize()
        return desk.submit(task)

    def _has(self, task: Task) -> bool:
        """Whether a task was submitted here, and will be returned by ``wait``."""
        return self._desk_made is not None and self._desk_made.has(task)

    def wait(self, timeout: Timeout = "wait_forever") -> Task | None:
        """The next task that is over, or None when none is after ``timeout`` seconds (a fraction, too; 0:
        what is there), or when there are no tasks. Raises ManagerClosedError."""
        return self._desk.wait(_seconds(timeout), None, None)

    def wait_for_tag(self, tag: str | None, timeout: Timeout = "wait_forever") -> Task | None:
        """As ``wait``, for a task with this tag (None: any)."""
        return self._desk.wait(_seconds(timeout), tag, None)

    def wait_for_task_id(self, task_id: int, timeout: Timeout = "wait_forever") -> Task | None:
        """As ``wait``, for the task of this number (-1: any)."""
        return self._desk.wait(_seconds(timeout), None, None if task_id == -1 else task_id)

    def empty(self) -> bool:
        """Whether every submitted task was returned."""
        return self._desk.ledger.empty()

    def cancel_by_task_id(self, id: int) -> int:
        """Stop a task; ``wait`` returns it with the result "cancelled". 1 if it was there and not over."""
        with self._desk.lock:
            task = self._desk.ledger.get(id)
        return self._desk.cancel([task] if task is not None else [])

    def cancel_by_task_tag(self, tag: str) -> int:
        """... one task of this tag."""
        return self._desk.cancel([task for task in self._desk.wanted() if task.tag == tag][:1])

    def cancel_by_category(self, category: str) -> int:
        """... all tasks of this category; how many."""
        return self._desk.cancel([task for task in self._desk.wanted() if task.category == category])

    def cancel_all(self) -> int:
        """... all tasks; how many."""
        return self._desk.cancel(self._desk.wanted())

    cancel_by_taskid = cancel_by_task_id
    cancel_by_tag = cancel_by_tasktag = cancel_by_task_tag

    def task_state(self, task_id: int) -> str:
        """ "ready", "running", "retrieved", or "unknown" for one that is not here."""
        with self._desk.lock:
            task = self._desk.ledger.get(task_id)
        return "unknown" if task is None else task.state

    def set_min_task_id(self, minid: int) -> int:
        """Numbers of further tasks are at least this."""
        with self._desk.lock:
            return self._desk.ledger.set_next_id(minid)

    # -- libraries -------------------------------------------------------------------------------------

    def create_library_from_functions(
        self,
        library_name: str,
        *function_list: Callable[..., Any],
        poncho_env: File | str | None = None,
        init_command: str | None = None,
        add_env: bool = True,
        library_context_info: Sequence[Any] | None = None,
        hoisting_modules: Sequence[Any] | None = None,
        exec_mode: str = "direct",
        function_infile_load_mode: str = "cloudpickle",
        import_modules: Sequence[Any] | None = None,
    ) -> LibraryTask:
        """Functions that workers have at hand, for ``install_library`` and ``FunctionCall``.

        ``library_context_info``: ``[function, args, kwargs]``, called once per worker; the dict that it
        returns is what ``load_variable_from_library`` reads. ``hoisting_modules`` (``import_modules``):
        globals of all functions. ``poncho_env``: an environment as for ``declare_poncho``; without one,
        calls run in the worker's own (``add_env`` changes nothing). ``init_command``: a command line that
        runs before the set-up. ``exec_mode``: see ``LibraryTask.set_function_exec_mode``.
        ``function_infile_load_mode``: accepted; arguments travel by themselves. Raises TypeError,
        ValueError."""
        from graphvine.taskvine import libraries

        task = libraries.make(
            library_name,
            function_list,
            library_context_info,
            [*(hoisting_modules or ()), *(import_modules or ())],
            init_command,
        )
        task.set_function_exec_mode(exec_mode)
        if poncho_env is not None:
            task.add_environment(
                poncho_env if isinstance(poncho_env, File) else self.declare_poncho(poncho_env, cache=True)
            )
        return task

    def create_library_from_serverized_files(self, *_: Any, **__: Any) -> LibraryTask:
        """Not here. Raises NotImplementedError."""
        raise NotImplementedError("use create_library_from_functions: it takes the functions themselves")

    def create_library_from_command(self, *_: Any, **__: Any) -> LibraryTask:
        """Not here. Raises NotImplementedError."""
        raise NotImplementedError(
            "a library is no program here: use create_library_from_functions, or a Task for the command"
        )

    def enable_tasks_cache(self, *_: Any, **__: Any) -> None:
        """Not here yet. Raises NotImplementedError."""
        raise NotImplementedError("results of tasks are not kept from one run to the next yet")

    def undeclare_function(self, fn: Callable[..., Any]) -> None:
        """Forget the pickle of a function of Python tasks."""
        self._functions.forget(fn)

    def install_library(self, task: LibraryTask) -> None:
        """Calls that are submitted from now on find this library under its name. Raises TypeError,
        NotPicklableError."""
        from graphvine.taskvine import libraries

        if not isinstance(task, libraries.LibraryTask):
            raise TypeError(f"{task!r} is no library: make one with create_library_from_functions")
        task.manager = self
        installed = libraries.install(task)
        # Before that one lets go of them, which may be the same.
        self._desk.use(installed.files())
        self._forget_library(task.name)
        self._libraries[task.name] = installed

    install = install_library

    def remove_library(self, name: str) -> None:
        """Calls that are submitted from now on do not find it. Raises KeyError."""
        if name not in self._libraries:
            raise KeyError(f"no library {name!r} is installed")
        self._forget_library(name)

    def _forget_library(self, name: str) -> None:
        library = self._libraries.pop(name, None)
        if library is not None:
            self._desk.let_go(library.files())

    def close(self) -> None:
        """Take no more tasks. Safe to call twice."""
        if self._desk_made is not None and os.getpid() == self._process:
            self._desk_made.close()
        super_close = getattr(super(), "close", None)
        if super_close is not None:
            super_close()


def _seconds(timeout: Timeout) -> float | None:
    if timeout is None or timeout == "wait_forever":
        return None
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        raise TypeError(f"timeout={timeout!r}: give seconds, or 'wait_forever'") from None
    return None if seconds < 0 else seconds
